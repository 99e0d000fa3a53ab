"""Another interpreter of the same process is refused with an ImportError, and harms nothing."""

from __future__ import annotations

from support import run_script

SCRIPT = """
import sys, ame
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
interpreters.run_string(other, '''
import sys
sys.path[:] = %r
try:
    import ame
except ImportError as error:
    print("refused:", error, flush=True)
''' % (sys.path,))
interpreters.destroy(other)
r = ame.Ref(1)
r.value += 1
print(r)
"""


def test_subinterpreter_is_refused_and_the_main_one_goes_on() -> None:
    refused, ref = run_script(SCRIPT).stdout.splitlines()
    assert refused.startswith("refused: ")
    assert "interpreter" in refused
    assert ref == "Ref(2)"
