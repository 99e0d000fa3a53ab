/* Running blocks: the attempt loop, joining, irrevocability, and functions of the
 * module that ask about the current transaction.
 *
 * INV-BLOCK-1  While a body runs, depth > 0 and the record is in an attempt.
 *              depth is 0 before commit, restart or rollback are called, as
 *              they may release objects whose finalizers run blocks.
 * INV-BLOCK-2  The outcome of a doomed attempt (value or exception) is dropped,
 *              whatever the body did with the abort, and the body runs again.
 * INV-BLOCK-3  A joined block changes nothing but depth: commit and rollback
 *              belong to the outermost block.
 *
 * Guarded by tests/stm/test_block.py, tests/anomalies.
 */
#include "stmpy_block.h"

static const double LAST_TIMEOUT_S = 1.0;

void stmpy_save_error(stmpy_error *e)
{
#if PY_VERSION_HEX >= 0x030C0000
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

/* How long to wait in seconds; negative: for ever.  Code that runs while its own
 * thread waits inside the core must give up in the end, as what it waits for may
 * be that thread; and so must code that runs when the other threads have ended. */
static double patience(const stmpy_thread *th)
{
    if (stm_unlikely(stm_load_rlx(&stmpy_quitting))) {
        return LAST_TIMEOUT_S;
    }
    for (const stmpy_aside *a = th->aside; a != NULL; a = a->outer) {
        if (a->waiting) {
            return LAST_TIMEOUT_S;
        }
    }
    return -1;
}

static int upgrade(stmpy_thread *th)
{
    stm_status status = stm_make_irrevocable(th->txn, patience(th));
    if (status != STM_OK) {
        return stmpy_fail(status);
    }
    th->irrevocable = true;
    return 0;
}

int stmpy_enter(stmpy_thread *th, uint32_t flags, uint32_t label)
{
    if (th->depth > 0) {
        if ((flags & STM_BEGIN_PROTECTED) && upgrade(th) < 0) {
            return -1;
        }
        th->depth++;
        return 0;
    }
    if (th->is_main) {
        flags |= STM_INTERRUPTIBLE;
    }
    stm_status status = stm_begin(th->txn, flags, label, patience(th));
    if (stm_unlikely(status != STM_OK)) {
        return stmpy_fail(status);
    }
    th->births = 0;
    th->floor = 0;
    th->irrevocable = (flags & STM_BEGIN_PROTECTED) != 0;
    th->depth = 1;
    return 0;
}

/* Drops the attempt, keeping the exception that is being shown. */
static void roll_back(stmpy_thread *th)
{
    stmpy_error e;
    stmpy_save_error(&e);
    th->depth = 0;
    stm_rollback(th->txn);
    stmpy_restore_error(&e);
}

int stmpy_leave(stmpy_thread *th, bool failed)
{
    if (th->depth > 1) {
        th->depth--;
        return 0;
    }
    if (failed) {
        roll_back(th);
        return 0;
    }
    th->depth = 0;
    stm_status status = stm_commit(th->txn);
    if (status != STM_OK) {
        stmpy_raise(status);
        roll_back(th);
        return -1;
    }
    return 0;
}

/* 0: the next attempt runs. */
static int again(stmpy_thread *th)
{
    th->depth = 0;
    stm_status status = stm_restart(th->txn, -1);
    if (status != STM_OK) {
        return stmpy_fail(status);
    }
    th->births = 0;
    th->irrevocable = false;
    th->depth = 1;
    return 0;
}

PyObject *stmpy_raise_open_block(void)
{
    PyErr_SetString(stmpy_open_block_error,
                    "an atomic block was left that this thread has not entered: a block must "
                    "end in the thread and in the call that began it");
    return NULL;
}

/* What a body returned, unless it left a `with` block open (in a generator). */
static PyObject *check_depth(stmpy_thread *th, uint32_t depth, PyObject *result)
{
    if (stm_unlikely(th->depth != depth)) {
        th->depth = depth;
        if (result != NULL && stm_txn_state(th->txn) != STM_DOOMED) {
            Py_DECREF(result);
            PyErr_SetString(stmpy_open_block_error,
                            "a function ended while an atomic block that it began is open (in a "
                            "generator?): a block must end in the call that began it");
            result = NULL;
        }
    }
    return result;
}

static PyObject *run_joined(stmpy_thread *th, uint32_t flags, stmpy_body body, void *arg)
{
    if (stmpy_enter(th, flags, 0) < 0) {
        return NULL;
    }
    uint32_t depth = th->depth, floor = th->floor;
    th->floor = depth;
    PyObject *result = check_depth(th, depth, body(th, arg));
    th->floor = floor;
    th->depth = depth - 1;
    return result;
}

PyObject *stmpy_run_block(stmpy_thread *th, uint32_t flags, uint32_t label, stmpy_body body,
                          void *arg)
{
    if (th->depth > 0) {
        return run_joined(th, flags, body, arg);
    }
    if (stmpy_enter(th, flags, label) < 0) {
        return NULL;
    }
    for (;;) {
        th->floor = 1;
        PyObject *result = check_depth(th, 1, body(th, arg));
        stm_status status = STM_CONFLICT;
        if (stm_likely(stm_txn_state(th->txn) != STM_DOOMED)) {
            if (result == NULL) {
                roll_back(th);
                return NULL;
            }
            th->depth = 0;
            status = stm_commit(th->txn);
            if (stm_likely(status == STM_OK)) {
                return result;
            }
        }
        if (status != STM_CONFLICT) {
            stmpy_raise(status);
            roll_back(th);
            Py_DECREF(result);
            return NULL;
        }
        if (result == NULL) {
            if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
                roll_back(th); /* not of the attempt's making: must not get lost */
                return NULL;
            }
            PyErr_Clear();
        } else {
            th->depth = 1; /* finalizers of what it made belong to the lost attempt */
            Py_DECREF(result);
        }
        if (again(th) < 0) {
            return NULL;
        }
    }
}

/* --- functions of the module --------------------------------------------------- */

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
    return stmpy_run_block(th, 0, 0, stmpy_call_body, &call);
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

static PyObject *run_block(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count < 2 || !PyCallable_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "run_block(label, fn, *args) needs a label (a str or "
                                         "None) and a callable");
        return NULL;
    }
    uint32_t label;
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL || stmpy_label(args[0], &label) < 0) {
        return NULL;
    }
    stmpy_call call = {args[1], args + 2, (size_t)(count - 2) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                       NULL};
    return stmpy_run_block(th, 0, label, stmpy_call_body, &call);
}

static stmpy_thread *require_block(const char *what)
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

static PyObject *irrevocable(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = require_block("irrevocable");
    if (th == NULL || upgrade(th) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *in_transaction(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(stmpy_in_block());
}

static PyObject *attempt(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = require_block("attempt");
    return th == NULL ? NULL : PyLong_FromUnsignedLong(stm_txn_attempt(th->txn));
}

static PyObject *is_irrevocable(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(stmpy_in_block() && stmpy_tls->irrevocable);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL | METH_KEYWORDS,
     "run($module, fn, /, *args, **kwargs)\n--\n\n"
     "Runs fn(*args, **kwargs) as one transaction and returns its result.\n\n"
     "Args:\n    fn: may run more than once; what a lost attempt wrote is undone.\n"
     "Returns:\n    What fn returned in the attempt that committed.\n"
     "Raises:\n    Whatever fn raises; everything it wrote is then undone.\n\n"
     "In a transaction: joins it."},
    {"run_block", (PyCFunction)(void (*)(void))run_block, METH_FASTCALL,
     "run_block($module, label, fn, /, *args)\n--\n\n"
     "As run, with a label (a str or None) that statistics show."},
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
    {NULL, NULL, 0, NULL},
};

int stmpy_block_install(PyObject *module)
{
    return PyModule_AddFunctions(module, methods) < 0 ? -1 : stmpy_atomic_install(module);
}
