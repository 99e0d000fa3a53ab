/* Noticing functions with atomic blocks, so that their `with` can be rewritten.
 *
 * Two ways, first that applies:
 *   - A function watcher (3.12+) sees each function when it is created.  One that
 *     mentions `atomic` gets an entry point of ours, which has it rewritten at its
 *     first call (its globals are complete by then).  Before 3.14 it is rewritten
 *     at once.
 *   - The first entry of a `with` that was missed: this execution of the block is
 *     irrevocable, the function is rewritten for its next call.
 *
 * INV-WATCH-1  The hooks into Python are called outside of any block, and what
 *              they do never changes what a call returns.
 * INV-WATCH-2  A function is rewritten before its entry point is the ordinary one
 *              again: two threads that call it first both wait for that.
 * INV-WATCH-3  Sites of blocks that could not be rewritten are kept for ever: one
 *              per line of a file, however often that is compiled.
 *
 * Guarded by tests/ame/test_rewrite_install.py.
 */
#include "stmpy_block.h"

static PyObject *first_call_hook;  /* called with a function; NULL: none is set */
static PyObject *first_entry_hook; /* called with a frame and a Site */
static PyObject *new_code_hook;    /* called with a function: its new code, or None */
static PyObject *sites;            /* of blocks that were not rewritten, by place */

/* --- functions ---------------------------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030C0000

static PyObject *name_atomic; /* interned */
static vectorcallfunc ordinary_call;

/* Is this global name another name of `atomic`, or an atomic(...) object? */
static bool is_alias(PyObject *globals, PyObject *name)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value = NULL;
    if (PyDict_GetItemRef(globals, name, &value) <= 0) {
        return false;
    }
    bool is = value == (PyObject *)stmpy_atomic_type || Py_IS_TYPE(value, stmpy_atomic_type);
    Py_DECREF(value);
    return is;
#else
    PyObject *value = PyDict_GetItemWithError(globals, name);
    return value != NULL &&
           (value == (PyObject *)stmpy_atomic_type || Py_IS_TYPE(value, stmpy_atomic_type));
#endif
}

static bool mentions_atomic(PyCodeObject *code, PyObject *globals)
{
    PyObject *names = code->co_names;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        if (PyTuple_GET_ITEM(names, i) == name_atomic) {
            return true;
        }
    }
    /* Code without a handler has no `with`: most code ends here. */
    bool has_handlers = PyBytes_GET_SIZE(code->co_exceptiontable) != 0;
    for (Py_ssize_t i = 0; has_handlers && i < PyTuple_GET_SIZE(names); i++) {
        if (is_alias(globals, PyTuple_GET_ITEM(names, i))) {
            return true;
        }
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_consts); i++) {
        PyObject *inner = PyTuple_GET_ITEM(code->co_consts, i);
        if (PyCode_Check(inner) && mentions_atomic((PyCodeObject *)inner, globals)) {
            return true;
        }
    }
    return false;
}

#if PY_VERSION_HEX >= 0x030E0000

static PyObject *first_call(PyObject *fn, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyObject *done = PyObject_CallOneArg(first_call_hook, fn);
    PyFunction_SetVectorcall((PyFunctionObject *)fn, ordinary_call);
    if (done == NULL) {
        return NULL;
    }
    Py_DECREF(done);
    return ordinary_call(fn, args, nargsf, kwnames);
}

static void have_rewritten(PyFunctionObject *fn)
{
    fn->vectorcall = first_call; /* nobody else knows the function yet */
}

#else

/* The specialised calls of 3.12 and 3.13 do not look at the entry point of a
 * function: it gets its new code now. */
static void have_rewritten(PyFunctionObject *fn)
{
    static _Thread_local bool is_busy; /* the rewriter's own functions */
    if (is_busy) {
        return;
    }
    is_busy = true;
    PyObject *code = PyObject_CallOneArg(new_code_hook, (PyObject *)fn);
    is_busy = false;
    if (code != NULL && PyCode_Check(code)) {
        Py_SETREF(fn->func_code, Py_NewRef(code));
    }
    Py_XDECREF(code);
}

#endif

static int watch(PyFunction_WatchEvent event, PyFunctionObject *fn, PyObject *unused)
{
    if (event != PyFunction_EVENT_CREATE || first_call_hook == NULL) {
        return 0;
    }
    PyCodeObject *code = (PyCodeObject *)fn->func_code;
    if ((code->co_flags & CO_NESTED) == 0 && PyDict_Check(fn->func_globals) &&
        mentions_atomic(code, fn->func_globals)) {
        have_rewritten(fn);
        if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
            PyErr_SetInterrupt(); /* raised again where it can be */
        }
        PyErr_Clear();
    }
    return 0;
}

static int start_watching(PyObject *any_function)
{
    ordinary_call = ((PyFunctionObject *)any_function)->vectorcall;
    name_atomic = PyUnicode_InternFromString("atomic");
    if (name_atomic == NULL) {
        return -1;
    }
    if (PyFunction_AddWatcher(watch) < 0) { /* all are taken: first entries do */
        PyErr_Clear();
        return 0;
    }
    return 1;
}

#else

static int start_watching(PyObject *any_function)
{
    return 0;
}

#endif

/* --- first entries -------------------------------------------------------------------- */

/* The known site of this place, or a new one.  Borrowed: INV-WATCH-3. */
static PyObject *find_site(PyFrameObject *frame, PyCodeObject *code, bool *is_new)
{
    int line = PyFrame_GetLineNumber(frame);
    PyObject *key = Py_BuildValue("(OOi)", code->co_filename, code->co_qualname, line);
    PyObject *site = key == NULL ? NULL : PyDict_GetItemWithError(sites, key);
    *is_new = false;
    if (site == NULL && key != NULL && !PyErr_Occurred()) {
        PyObject *made = stmpy_site_new(code->co_filename, line, code->co_qualname);
        site = made == NULL ? NULL : PyDict_SetDefault(sites, key, made);
        *is_new = site == made && made != NULL;
        Py_XDECREF(made);
    }
    Py_XDECREF(key);
    return site;
}

PyObject *stmpy_first_entry(void)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) {
        return Py_None; /* entered from C */
    }
    bool is_new;
    Py_INCREF(frame);
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *site = find_site(frame, code, &is_new);
    Py_DECREF(code);
    if (site != NULL) {
        stm_fetch_add(&((stmpy_site *)site)->irrevocable, 1);
        if (is_new && first_entry_hook != NULL) {
            PyObject *done =
                PyObject_CallFunctionObjArgs(first_entry_hook, (PyObject *)frame, site, NULL);
            if (done != NULL) {
                ((stmpy_site *)site)->suspends = done == Py_True;
                Py_DECREF(done);
            } else {
                site = NULL;
            }
        }
    }
    if (site != NULL && ((stmpy_site *)site)->suspends) {
        stmpy_raise_leaving(site);
        site = NULL;
    }
    Py_DECREF(frame);
    return site;
}

/* --- functions of the module ------------------------------------------------------------ */

static PyObject *set_rewriter(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyFunction_Check(args[0]) || first_call_hook != NULL) {
        PyErr_SetString(PyExc_TypeError, "_set_rewriter(first_call, first_entry, new_code) takes "
                                         "three functions, once");
        return NULL;
    }
    new_code_hook = Py_NewRef(args[2]);
    first_entry_hook = Py_NewRef(args[1]);
    first_call_hook = Py_NewRef(args[0]);
    return PyBool_FromLong(start_watching(args[0]));
}

static PyMethodDef methods[] = {
    {"_set_rewriter", (PyCFunction)(void (*)(void))set_rewriter, METH_FASTCALL,
     "_set_rewriter($module, first_call, first_entry, new_code, /)\n--\n\n"
     "Has functions with atomic blocks rewritten from now on.  Returns whether functions are seen\n"
     "when they are created."},
    {NULL, NULL, 0, NULL},
};

int stmpy_watch_install(PyObject *module)
{
    sites = PyDict_New();
    return sites == NULL ? -1 : PyModule_AddFunctions(module, methods);
}
