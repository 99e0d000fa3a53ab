/* Errors about blocks: what happened, in which block, with file and line.
 *
 * INV-ERR-1  Making an error runs Python code, so nothing here is called under a
 *            lock or in the middle of a commit.
 *
 * Guarded by tests/stm/test_options.py, tests/stm/test_block_misuse.py.
 */
#include "stmpy_block.h"

void stmpy_save_error(stmpy_error *e)
{
#if PY_VERSION_HEX >= 0x030C0000
    e->type = NULL;
    e->value = PyErr_GetRaisedException();
#else
    PyErr_Fetch(&e->type, &e->value, &e->traceback);
#endif
}

void stmpy_restore_error(stmpy_error *e)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(e->value);
#else
    PyErr_Restore(e->type, e->value, e->traceback);
#endif
}

void stmpy_chain_error(stmpy_error *e)
{
    stmpy_error now;
    if (!stmpy_error_is_set(e)) {
        return;
    }
    stmpy_save_error(&now);
#if PY_VERSION_HEX < 0x030C0000
    PyErr_NormalizeException(&now.type, &now.value, &now.traceback);
    PyErr_NormalizeException(&e->type, &e->value, &e->traceback);
    Py_CLEAR(e->type);
    if (e->traceback != NULL) {
        PyException_SetTraceback(e->value, e->traceback);
        Py_CLEAR(e->traceback);
    }
#endif
    if (now.value != NULL && now.value != e->value) {
        PyException_SetContext(now.value, e->value); /* takes the reference */
    } else {
        Py_XDECREF(e->value);
    }
    stmpy_restore_error(&now);
}

/* A function, or what wraps one. */
static PyObject *describe_function(PyObject *fn)
{
    PyObject *inner = PyObject_GetAttrString(fn, "__wrapped__");
    if (inner == NULL) {
        PyErr_Clear();
    }
    PyObject *plain = inner != NULL ? inner : fn;
    PyObject *text;
    if (PyFunction_Check(plain)) {
        PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(plain);
        text = PyUnicode_FromFormat("the block at %U:%d in %U", code->co_filename,
                                    code->co_firstlineno, code->co_qualname);
    } else {
        text = PyUnicode_FromFormat("the block %R", plain);
    }
    Py_XDECREF(inner);
    return text;
}

PyObject *stmpy_describe_site(PyObject *site)
{
    if (site == NULL) {
        return PyUnicode_FromString("an atomic block");
    }
    if (Py_IS_TYPE(site, stmpy_site_type)) {
        stmpy_site *s = (stmpy_site *)site;
        return PyUnicode_FromFormat("the block at %U:%d in %U", s->filename, s->line, s->name);
    }
    return describe_function(site);
}

PyObject *stmpy_describe_block(const stmpy_thread *th)
{
    return stmpy_describe_site(th->block.site);
}

PyObject *stmpy_raise_about(PyObject *error, const char *text, PyObject *site)
{
    PyObject *where = stmpy_describe_site(site);
    if (where != NULL) {
        PyErr_Format(error, text, where);
        Py_DECREF(where);
    }
    return NULL;
}

PyObject *stmpy_raise_open_block(PyObject *site)
{
    return stmpy_raise_about(stmpy_open_block_error,
                             "%U was left where this thread has not entered it: a block must end "
                             "in the thread and in the call that began it",
                             site);
}

/* AttemptLimit and TransactionTimeout carry data: stm/_errors.py makes them. */
void stmpy_raise_limit(const stmpy_thread *th, bool timeout, PyObject *cells)
{
    stm_txn *t = th->block.txn;
    stm_wait_info info;
    stm_conflict conflict;
    stm_txn_wait_info(t, &info);
    stm_txn_conflict(t, &conflict);
    PyObject *where = stmpy_describe_block(th);
    PyObject *error = where == NULL
                          ? NULL
                          : PyObject_CallFunction(stmpy_limit_hook, "iNIdiisO", timeout, where,
                                                  stm_txn_attempt(t) + 1, info.seconds,
                                                  info.for_change, (int)conflict.cause,
                                                  stm_label_text(stmpy_domain, info.holder_label),
                                                  cells == NULL ? Py_None : cells);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

/* The exception for a status that ended a wait. */
int stmpy_fail_wait(const stmpy_thread *th, stm_status status, PyObject *cells)
{
    if (status == STM_TIMEOUT) {
        stmpy_raise_limit(th, true, cells);
        return -1;
    }
    return stmpy_fail(status);
}
