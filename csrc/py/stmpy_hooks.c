/* on_commit and on_abort: calls that wait for the end of the attempt.
 *
 * Terms.  Due list: hooks of blocks that have ended, in the order in which they
 * are to run; one per thread, emptied by whoever found it empty.
 *
 * INV-HOOK-1  A hook runs outside of any block, once, after the attempt that
 *             registered it has ended: on_commit after its commit, on_abort after
 *             it was undone.  Hooks of a lost attempt's commit never run.
 * INV-HOOK-2  on_commit hooks of one thread run in the order of its commits, and
 *             within a block in the order of registration: a block that commits
 *             inside a hook appends to the due list that is being emptied.
 *             on_abort hooks run before anything else, last registered first, as
 *             cleanup does.
 * INV-HOOK-3  An Exception of a hook is reported (sys.unraisablehook) and changes
 *             nothing.  KeyboardInterrupt and the like are raised when all hooks
 *             have run.
 * INV-HOOK-4  A nested block that is undone takes its on_commit hooks with it; its
 *             on_abort hooks run when the outermost attempt has ended, in any way.
 *
 * Guarded by tests/stm/test_hooks.py.
 */
#include "stmpy_block.h"

static int add_hook(stmpy_thread *th, PyObject *call, bool on_abort)
{
    stmpy_hooks *h = &th->block.hooks;
    if (h->count == h->capacity) {
        stmpy_hook *grown = stm_grow(h->items, &h->capacity, 8, sizeof(*h->items));
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        h->items = grown;
    }
    h->items[h->count++] = (stmpy_hook){Py_NewRef(call), on_abort, false};
    return 0;
}

void stmpy_hooks_undo(stmpy_thread *th, uint32_t keep)
{
    stmpy_hooks *h = &th->block.hooks;
    if (h->count == keep) {
        return;
    }
    uint32_t kept = keep, dropped = 0;
    PyObject **drop = PyMem_Malloc((h->count - keep) * sizeof(*drop));
    for (uint32_t i = keep; i < h->count; i++) {
        if (h->items[i].on_abort) {
            h->items[kept] = h->items[i];
            h->items[kept++].is_due = true;
        } else if (drop != NULL) {
            drop[dropped++] = h->items[i].call;
        } /* else leaked: there is no memory to remember it by */
    }
    h->count = kept;
    while (dropped != 0) { /* last: may run anything, also hooks of its own */
        Py_DECREF(drop[--dropped]);
    }
    PyMem_Free(drop);
}

stmpy_hooks stmpy_hooks_take(stmpy_thread *th)
{
    stmpy_hooks taken = th->block.hooks;
    th->block.hooks = (stmpy_hooks){NULL, 0, 0};
    return taken;
}

/* Calls one; keeps the first exception that is more than an Exception. */
static void run_one(PyObject *call, stmpy_error *first)
{
    PyObject *fn = PyTuple_GET_ITEM(call, 0);
    PyObject *kwargs = PyTuple_GET_ITEM(call, 2);
    PyObject *result =
        PyObject_Call(fn, PyTuple_GET_ITEM(call, 1), kwargs == Py_None ? NULL : kwargs);
    if (result != NULL) {
        Py_DECREF(result);
    } else if (PyErr_ExceptionMatches(PyExc_Exception) || stmpy_error_is_set(first)) {
        PyErr_WriteUnraisable(fn);
    } else {
        stmpy_save_error(first);
    }
}

/* The list is this thread's alone, but a hook may append to it. */
static void empty_due(stmpy_thread *th, stmpy_error *first)
{
    PyObject *due = th->due;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(due); i++) {
        PyObject *call = Py_NewRef(PyList_GET_ITEM(due, i));
        PyList_SetItem(due, i, Py_NewRef(Py_None));
        run_one(call, first);
        Py_DECREF(call);
    }
    th->due = NULL;
    Py_DECREF(due);
}

static void append_due(stmpy_thread *th, PyObject *call)
{
    if (PyList_Append(th->due, call) < 0) {
        PyErr_WriteUnraisable(PyTuple_GET_ITEM(call, 0));
    }
}

/* INV-HOOK-2: cleanup runs at once, last registered first. */
static void run_aborts(const stmpy_hooks *hooks, bool committed, stmpy_error *first)
{
    for (uint32_t i = hooks->count; i-- > 0;) {
        const stmpy_hook *h = &hooks->items[i];
        if (h->on_abort && (h->is_due || !committed)) {
            run_one(h->call, first);
        }
    }
}

int stmpy_hooks_run(stmpy_thread *th, stmpy_hooks *hooks, bool committed)
{
    stmpy_error shown, first = {NULL, NULL, NULL};
    bool is_first = false;
    if (hooks->count == 0) {
        free(hooks->items);
        return 0;
    }
    stmpy_save_error(&shown);
    run_aborts(hooks, committed, &first);
    if (committed) {
        is_first = th->due == NULL;
        if (is_first && (th->due = PyList_New(0)) == NULL) {
            PyErr_WriteUnraisable(NULL);
        }
    }
    for (uint32_t i = 0; i < hooks->count; i++) {
        if (committed && th->due != NULL && !hooks->items[i].on_abort) {
            append_due(th, hooks->items[i].call);
        }
        Py_DECREF(hooks->items[i].call);
    }
    free(hooks->items);
    if (is_first && th->due != NULL) {
        empty_due(th, &first);
    }
    if (!stmpy_error_is_set(&first)) {
        stmpy_restore_error(&shown);
        return 0;
    }
    stmpy_restore_error(&first);
    stmpy_chain_error(&shown);
    return -1;
}

/* --- functions of the module ----------------------------------------------------- */

static PyObject *register_hook(PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
                               bool on_abort)
{
    const char *name = on_abort ? "on_abort" : "on_commit";
    if (count < 1 || !PyCallable_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "%s(fn, *args, **kwargs) needs a callable first, got %s",
                     name, count < 1 ? "nothing" : Py_TYPE(args[0])->tp_name);
        return NULL;
    }
    if (!stmpy_in_block()) {
        if (on_abort) {
            Py_RETURN_NONE; /* there is nothing that could be undone */
        }
        PyObject *result = PyObject_Vectorcall(
            args[0], args + 1, (size_t)(count - 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames);
        if (result == NULL) {
            return NULL;
        }
        Py_DECREF(result);
        Py_RETURN_NONE;
    }
    stmpy_thread *th = stmpy_tls;
    stm_state state = stm_txn_state(th->block.txn);
    if (state == STM_DOOMED || state == STM_WAITING) {
        return stmpy_raise(STM_CONFLICT);
    }
    PyObject *positional = PyTuple_New(count - 1);
    PyObject *kwargs = kwnames == NULL ? Py_NewRef(Py_None) : PyDict_New();
    int status = positional == NULL || kwargs == NULL ? -1 : 0;
    for (Py_ssize_t i = 1; status == 0 && i < count; i++) {
        PyTuple_SET_ITEM(positional, i - 1, Py_NewRef(args[i]));
    }
    for (Py_ssize_t i = 0; status == 0 && kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        status = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, i), args[count + i]);
    }
    PyObject *call = status < 0 ? NULL : PyTuple_Pack(3, args[0], positional, kwargs);
    Py_XDECREF(positional);
    Py_XDECREF(kwargs);
    status = call == NULL ? -1 : add_hook(th, call, on_abort);
    Py_XDECREF(call);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *on_commit(PyObject *module, PyObject *const *args, Py_ssize_t count,
                           PyObject *kwnames)
{
    return register_hook(args, count, kwnames, false);
}

static PyObject *on_abort(PyObject *module, PyObject *const *args, Py_ssize_t count,
                          PyObject *kwnames)
{
    return register_hook(args, count, kwnames, true);
}

static PyMethodDef methods[] = {
    {"on_commit", (PyCFunction)(void (*)(void))on_commit, METH_FASTCALL | METH_KEYWORDS,
     "on_commit($module, fn, /, *args, **kwargs)\n--\n\n"
     "Calls fn(*args, **kwargs) once, after the current block has committed.\n\n"
     "For what a block must not do itself, as it may run more than once: sending, printing,\n"
     "starting threads.  Calls are made outside of the block, by the thread that ran it, in the\n"
     "order of its commits and, within a block, of registration.  An exception of fn is reported\n"
     "through sys.unraisablehook; it undoes nothing and reaches nobody.\n\n"
     "Args:\n    fn: called with the arguments given here.\n"
     "Raises:\n    TypeError: fn is not callable.\n\n"
     "In a transaction: dropped when the attempt, or the nested block that registered it, is\n"
     "undone.  Outside of a block fn is called at once."},
    {"on_abort", (PyCFunction)(void (*)(void))on_abort, METH_FASTCALL | METH_KEYWORDS,
     "on_abort($module, fn, /, *args, **kwargs)\n--\n\n"
     "Calls fn(*args, **kwargs) once if this attempt of the current block is undone.\n\n"
     "For cleaning up after what transactions do not undo: a file that the attempt made.  It is\n"
     "called after the attempt was undone, by a conflict, by retry() or by an exception, and\n"
     "before the next one begins; last registered first.  Exceptions as for on_commit.\n\n"
     "Args:\n    fn: called with the arguments given here.\n"
     "Raises:\n    TypeError: fn is not callable.\n\n"
     "In a transaction: what a nested block registered that alone is undone is called when the\n"
     "outermost block has ended.  Outside of a block nothing can be undone: fn is not called."},
    {NULL, NULL, 0, NULL},
};

int stmpy_hooks_install(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
