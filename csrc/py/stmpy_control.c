/* The verbs of a block: run, retry, or_else, irrevocable, and functions that ask
 * about the current block.
 *
 * INV-CTL-1  retry leaves the attempt waiting; the alternatives of or_else and the
 *            outermost block are the only ones that answer it.  An alternative that
 *            retried is undone, its reads stay: the block wakes when anything that
 *            any alternative has read changes (GHC's orElse).
 * INV-CTL-2  The timeout of a wait counts from the first attempt that came to it:
 *            a wait is known by its key, or by the place that calls retry.
 *
 * Lineage: retry and or_else from Composable Memory Transactions (Harris, Marlow,
 * Peyton Jones, Herlihy 2005).
 * Guarded by tests/stm/test_retry.py, tests/stm/test_or_else.py, tests/stm/test_block.py.
 */
#include "stmpy_block.h"

stmpy_thread *stmpy_require_block(const char *what)
{
    if (!stmpy_in_block()) {
        PyErr_Format(stmpy_not_in_transaction_error,
                     "%s() was called outside of an atomic block: call it inside "
                     "`with ame.atomic():` or a function decorated with @ame.atomic",
                     what);
        return NULL;
    }
    return stmpy_tls;
}

int stmpy_check_function(PyObject *fn, const char *who)
{
    const char *why = NULL;
    if (PyType_Check(fn)) {
        why = "a class: decorate its methods instead";
    } else if (!PyCallable_Check(fn) || PyObject_TypeCheck(fn, &PyStaticMethod_Type)) {
        why = "not callable: for a classmethod or staticmethod put @ame.atomic below it";
    } else if (PyFunction_Check(fn)) {
        int flags = ((PyCodeObject *)PyFunction_GET_CODE(fn))->co_flags;
        if (flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)) {
            why = "a coroutine function: a block must not span an await; put the block into a "
                  "plain function and call that";
        } else if (flags & CO_GENERATOR) {
            why = "a generator function: a block must not span a yield; put the block into a "
                  "plain function and call that";
        }
    }
    if (why != NULL) {
        PyErr_Format(PyExc_TypeError, "%s cannot make %R a block: it is %s", who, fn, why);
        return -1;
    }
    return 0;
}

PyObject *stmpy_call_body(stmpy_thread *th, void *arg)
{
    stmpy_call *c = arg;
    return PyObject_Vectorcall(c->fn, c->args, c->nargsf, c->kwnames);
}

int stmpy_label(PyObject *label, uint32_t *number)
{
    *number = 0;
    if (label == NULL || label == Py_None) {
        return 0;
    }
    if (!PyUnicode_Check(label)) {
        PyErr_Format(PyExc_TypeError, "label must be a str that names the block, got %s",
                     Py_TYPE(label)->tp_name);
        return -1;
    }
    const char *text = PyUnicode_AsUTF8(label);
    if (text == NULL) {
        return -1;
    }
    *number = stm_label_intern(stmpy_domain, text);
    return 0;
}

int stmpy_seconds(PyObject *value, const char *what, double none, double *seconds)
{
    *seconds = none;
    if (value == NULL || value == Py_None) {
        return 0;
    }
    if (!PyBool_Check(value) && (PyFloat_Check(value) || PyLong_Check(value) ||
                                 (Py_TYPE(value)->tp_as_number != NULL &&
                                  Py_TYPE(value)->tp_as_number->nb_float != NULL))) {
        *seconds = PyFloat_AsDouble(value);
        if (*seconds == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        if (*seconds >= 0) {
            return 0;
        }
        PyErr_Format(PyExc_ValueError, "%s must be a number of seconds >= 0 or None, got %R", what,
                     value);
        return -1;
    }
    PyErr_Format(PyExc_TypeError, "%s must be a number of seconds or None, got %s", what,
                 Py_TYPE(value)->tp_name);
    return -1;
}

/* --- run -------------------------------------------------------------------------- */

static PyObject *run(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    if (count < 1 || !PyCallable_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "run(fn, *args) needs a callable first, got %s",
                     count < 1 ? "nothing" : Py_TYPE(args[0])->tp_name);
        return NULL;
    }
    if (!PyType_Check(args[0]) && stmpy_check_function(args[0], "ame.run") < 0) {
        return NULL;
    }
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    stmpy_call call = {args[0], args + 1, (size_t)(count - 1) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                       kwnames};
    return stmpy_run_block(th, &stmpy_no_options, args[0], stmpy_call_body, &call);
}

static PyObject *run_block(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count < 2 || !PyCallable_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "run_block(label, fn, *args) needs a label (a str or "
                                         "None) and a callable");
        return NULL;
    }
    stmpy_options options = stmpy_no_options;
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL || stmpy_label(args[0], &options.label) < 0) {
        return NULL;
    }
    stmpy_call call = {args[1], args + 2, (size_t)(count - 2) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                       NULL};
    return stmpy_run_block(th, &options, args[1], stmpy_call_body, &call);
}

/* --- retry and or_else --------------------------------------------------------------- */

/* Where retry() was called from: (code, instruction), or NULL without an exception. */
static PyObject *calling_place(void)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) {
        return NULL;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *place = Py_BuildValue("ni", (Py_ssize_t)code, PyFrame_GetLasti(frame));
    Py_DECREF(code); /* the caller runs it: the address stays its own for this block */
    return place;
}

static int set_timer(stmpy_thread *th, double seconds, PyObject *key)
{
    if (seconds < 0) {
        return 0;
    }
    PyObject *place = key != NULL ? PyLong_FromVoidPtr(key) : calling_place();
    int status = place == NULL && PyErr_Occurred() ? -1 : stmpy_lower_deadline(th, seconds, place);
    Py_XDECREF(place);
    return status;
}

static int retry_arguments(PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
                           double *seconds, PyObject **key)
{
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    *seconds = -1;
    *key = NULL;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
            if (stmpy_seconds(args[count + i], "timeout", -1, seconds) < 0) {
                return -1;
            }
        } else if (PyUnicode_CompareWithASCIIString(name, "key") == 0) {
            *key = args[count + i];
        } else {
            count = 1;
            break;
        }
    }
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "retry() takes no argument but timeout=, in seconds, and "
                                         "key=, the object whose wait it is");
        return -1;
    }
    return 0;
}

static PyObject *retry(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    double seconds;
    PyObject *key;
    if (retry_arguments(args, count, kwnames, &seconds, &key) < 0) {
        return NULL;
    }
    stmpy_thread *th = stmpy_require_block("retry");
    if (th == NULL) {
        return NULL;
    }
    if (th->block.irrevocable || !th->block.can_rerun) {
        const char *why =
            "retry() in %U, which runs irrevocably as it could not be made repeatable "
            "(ame.doctor() says why): put its body into a function decorated with "
            "@ame.atomic";
        if (th->block.is_joined) {
            why = "retry() in a finalizer or signal handler that interrupted %U and became part of "
                  "it: it cannot give up a block that is not its own";
        } else if (th->block.can_rerun) {
            why = "retry() in %U, which is irrevocable: it cannot be undone to wait; call retry() "
                  "before irrevocable(), split() or unprotected()";
        }
        return stmpy_raise_about(stmpy_irrevocable_error, why, th->block.site);
    }
    if (set_timer(th, seconds, key) < 0) {
        return NULL;
    }
    return stmpy_raise(stm_retry(th->block.txn));
}

typedef struct {
    PyObject *const *fns;
    Py_ssize_t count;
} alternatives;

/* One alternative in a savepoint.  *waits: it retried, and was undone unless it is
 * the last one, with which the whole block waits. */
static PyObject *try_one(stmpy_thread *th, PyObject *fn, bool is_last, bool *waits)
{
    *waits = false;
    if (stmpy_push_nest(th) < 0) {
        return NULL;
    }
    uint32_t depth = th->block.depth, floor = th->block.floor;
    th->block.floor = depth;
    PyObject *result = PyObject_CallNoArgs(fn);
    th->block.floor = floor;
    th->block.depth = depth;
    stmpy_close_deeper(th, depth);
    if (stm_txn_state(th->block.txn) != STM_WAITING || is_last ||
        (result == NULL && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))) {
        stmpy_end_nested(th, result == NULL ? PyErr_Occurred() : NULL, &stmpy_no_options);
        return result;
    }
    *waits = true;
    PyErr_Clear();
    Py_XDECREF(result);
    stmpy_undo_nest(th, stmpy_pop_nest(th));
    return NULL;
}

static PyObject *or_else_body(stmpy_thread *th, void *arg)
{
    alternatives *a = arg;
    PyObject *result = NULL;
    bool waits = true;
    for (Py_ssize_t i = 0; waits && i < a->count; i++) {
        result = try_one(th, a->fns[i], i == a->count - 1, &waits);
    }
    return result;
}

static PyObject *or_else(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count == 0) {
        PyErr_SetString(PyExc_TypeError, "or_else(*alternatives) needs at least one function");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyCallable_Check(args[i])) {
            PyErr_Format(PyExc_TypeError,
                         "or_else(*alternatives) takes functions without arguments; argument %zd "
                         "is a %s",
                         i + 1, Py_TYPE(args[i])->tp_name);
            return NULL;
        }
        if (!PyType_Check(args[i]) && stmpy_check_function(args[i], "or_else") < 0) {
            return NULL;
        }
    }
    stmpy_thread *th = stmpy_thread_get();
    alternatives a = {args, count};
    if (th == NULL) {
        return NULL;
    }
    return th->block.depth > 0 ? or_else_body(th, &a)
                               : stmpy_run_block(th, &stmpy_no_options, args[0], or_else_body, &a);
}

/* --- irrevocable ---------------------------------------------------------------------- */

static PyObject *irrevocable(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_require_block("irrevocable");
    if (th == NULL || stmpy_upgrade(th) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- questions ------------------------------------------------------------------------ */

static PyObject *in_transaction(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(stmpy_in_block());
}

static PyObject *attempt(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_require_block("attempt");
    return th == NULL ? NULL : PyLong_FromUnsignedLong(stm_txn_attempt(th->block.txn));
}

static PyObject *is_irrevocable(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(stmpy_in_block() && stmpy_tls->block.irrevocable);
}

static PyObject *block_info(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_require_block("current");
    if (th == NULL) {
        return NULL;
    }
    stm_txn *t = th->block.txn;
    PyObject *where = stmpy_describe_block(th);
    return where == NULL
               ? NULL
               : Py_BuildValue("sNInnIN", stm_label_text(stmpy_domain, th->block.options->label),
                               where, stm_txn_attempt(t), (Py_ssize_t)stm_txn_reads(t),
                               (Py_ssize_t)stm_txn_writes(t), th->block.depth,
                               PyBool_FromLong(th->block.irrevocable));
}

static PyObject *attempt_locals(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_require_block("attempt_locals");
    if (th == NULL) {
        return NULL;
    }
    if (th->block.locals == NULL) {
        th->block.locals = PyDict_New();
    }
    return Py_XNewRef(th->block.locals);
}

static PyObject *cancel_wait(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_require_block("cancel_wait");
    if (th == NULL) {
        return NULL;
    }
    bool waits = stm_txn_state(th->block.txn) == STM_WAITING;
    if (waits) {
        stm_doom(th->block.txn, STM_CAUSE_RETRY);
    }
    return PyBool_FromLong(waits);
}

/* For tests: the current attempt is lost from here on. */
static PyObject *lose(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_require_block("lose");
    if (th == NULL) {
        return NULL;
    }
    if (th->block.can_rerun && !th->block.irrevocable) {
        stm_doom(th->block.txn, STM_CAUSE_INJECTED);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL | METH_KEYWORDS,
     "run($module, fn, /, *args, **kwargs)\n--\n\n"
     "Runs fn(*args, **kwargs) as one transaction and returns its result.\n\n"
     "Args:\n    fn: may run more than once; what a lost attempt wrote is undone.\n"
     "Returns:\n    What fn returned in the attempt that committed.\n"
     "Raises:\n    Whatever fn raises; everything it wrote is then undone.\n\n"
     "In a transaction: nests; an exception undoes what fn wrote."},
    {"run_block", (PyCFunction)(void (*)(void))run_block, METH_FASTCALL,
     "run_block($module, label, fn, /, *args)\n--\n\n"
     "As run, with a label (a str or None) that statistics show."},
    {"retry", (PyCFunction)(void (*)(void))retry, METH_FASTCALL | METH_KEYWORDS,
     "retry($module, /, *, timeout=None, key=None)\n--\n\n"
     "Gives the attempt up and sleeps until something that the block has read changes.\n\n"
     "Then the block runs again from its start.  What the attempt wrote is undone; inside of an\n"
     "alternative of or_else the next alternative is tried instead of sleeping.  Never returns.\n"
     "After Composable Memory Transactions (Harris et al. 2005).\n\n"
     "Args:\n"
     "    timeout: seconds, counted from the first time that the block came to this wait; None:\n"
     "        no limit.\n"
     "    key: what tells this wait from others of the block; None: the place of the call.\n"
     "Raises:\n"
     "    NotInTransaction: outside of a block.\n"
     "    TransactionTimeout: from the block, when the time is up.\n"
     "    IrrevocableError: the block cannot be undone (irrevocable, split, unprotected).\n"
     "    TransactionError: from the block, if it had read nothing and has no timeout.\n\n"
     "In a transaction: required."},
    {"or_else", (PyCFunction)(void (*)(void))or_else, METH_FASTCALL,
     "or_else($module, /, *alternatives)\n--\n\n"
     "Runs the first alternative that does not call retry(), and returns what it returns.\n\n"
     "An alternative that calls retry() is undone and the next one tried.  If all do, the block\n"
     "sleeps until something changes that any of them has read.\n"
     "After Composable Memory Transactions (Harris et al. 2005).\n\n"
     "Args:\n    alternatives: functions without arguments.\n"
     "Returns:\n    The result of the alternative that ran to its end.\n"
     "Raises:\n    Whatever an alternative raises; what it wrote is then undone.\n\n"
     "In a transaction: part of it.  Outside of a block it is a block of its own."},
    {"irrevocable", irrevocable, METH_NOARGS,
     "irrevocable($module)\n--\n\n"
     "Makes the rest of the current block run exactly once, for I/O and the like.\n\n"
     "The block may start over once, before this call returns; after that it cannot lose.\n"
     "One block at a time is irrevocable, others wait here for their turn, and others that\n"
     "would overwrite what it has read wait with their commit.\n\n"
     "Raises:\n    NotInTransaction: outside of a block."},
    {"in_transaction", in_transaction, METH_NOARGS,
     "in_transaction($module)\n--\n\nTells whether this thread is inside an atomic block."},
    {"attempt", attempt, METH_NOARGS,
     "attempt($module)\n--\n\n"
     "Returns which execution of the current block this is: 0 for the first.\n\n"
     "Raises:\n    NotInTransaction: outside of a block."},
    {"is_irrevocable", is_irrevocable, METH_NOARGS,
     "is_irrevocable($module)\n--\n\n"
     "Tells whether the current block was made irrevocable; False outside of a block."},
    {"attempt_locals", attempt_locals, METH_NOARGS,
     "attempt_locals($module)\n--\n\n"
     "Returns a dict of this attempt of the current block, for libraries; it ends with it.\n\n"
     "Raises:\n    NotInTransaction: outside of a block."},
    {"cancel_wait", cancel_wait, METH_NOARGS,
     "cancel_wait($module)\n--\n\n"
     "Turns a wait that retry() has asked for, and that is on its way out of the block, into\n"
     "starting over at once; for loops that put several items into one block.\n\n"
     "Returns:\n    Whether there was one.\n"
     "Raises:\n    NotInTransaction: outside of a block."},
    {"block_info", block_info, METH_NOARGS,
     "block_info($module)\n--\n\n"
     "Returns (label, place, attempt, reads, writes, depth, irrevocable) of the current block.\n\n"
     "Raises:\n    NotInTransaction: outside of a block."},
    {"_lose", lose, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int stmpy_control_install(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
