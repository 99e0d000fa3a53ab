/* split and unprotected: a block that commits half-way.
 *
 * Terms.  Rest: what is left of a block after it has committed a part.  Suspended:
 * a block whose thread is inside `with unprotected():`.
 *
 * INV-SPLIT-1  What was committed is there, so the block cannot start over: its
 *              rest runs in the protected slot (a read-only one cannot lose).
 * INV-SPLIT-2  A suspended block is kept in a list of its thread, innermost first;
 *              only the first can be taken up again.  One that ends while it is
 *              suspended (in a generator that is not finished) is taken off.
 * INV-SPLIT-3  A suspended block has no attempt: blocks that begin meanwhile are
 *              transactions of their own.
 *
 * Lineage: the Yield of AME (Isard and Birrell 2007).
 * Guarded by tests/stm/test_split.py, tests/stm/test_unprotected.py.
 */
#include "stmpy_block.h"

/* `with unprotected():`, one object per use. */
typedef struct stmpy_unprotected {
    PyObject_HEAD
    stmpy_thread *thread; /* whose block it has left; NULL: none */
    struct stmpy_unprotected *outer;
    stmpy_running rest;
} unprotected_object;

static PyTypeObject *unprotected_type;

static int commit_part(stmpy_thread *th, stmpy_running *rest)
{
    stmpy_hooks hooks = stmpy_hooks_take(th);
    *rest = th->block; /* before the commit: it runs finalizers, and those run blocks */
    th->block = (stmpy_running){.txn = rest->txn};
    stm_status status = stm_commit(th->block.txn);
    if (status != STM_OK) {
        th->block = *rest;
        th->block.hooks = hooks;
        return stmpy_fail_wait(th, status, NULL);
    }
    return stmpy_hooks_run(th, &hooks, true) < 0 ? 1 : 0;
}

static int begin_rest(stmpy_thread *th, const stmpy_running *rest)
{
    stmpy_running *b = &th->block;
    free(b->nests);
    free(b->hooks.items);
    *b = *rest;
    b->depth = 1; /* also on failure: the block is still there, the attempt is not */
    b->irrevocable = true;
    b->births = 0;
    stmpy_error e; /* the rest begins with an exception on its way, too */
    stmpy_save_error(&e);
    uint32_t flags = b->options->flags & STM_BEGIN_READ_ONLY; /* cannot lose anyway */
    flags = (flags != 0 ? flags : STM_BEGIN_PROTECTED) | (th->is_main ? STM_INTERRUPTIBLE : 0);
    stm_status status = stm_begin(b->txn, flags, b->options->label,
                                  stmpy_sooner(stmpy_patience(th), b->options->timeout_s));
    if (status != STM_OK && !stmpy_error_is_set(&e)) {
        return stmpy_fail_wait(th, status, NULL);
    }
    stmpy_restore_error(&e);
    return 0;
}

/* The state of this thread, if its block may be committed half-way. */
static stmpy_thread *require_outermost(const char *what)
{
    stmpy_thread *th = stmpy_require_block(what);
    if (th == NULL) {
        return NULL;
    }
    stm_state state = stm_txn_state(th->block.txn);
    if (state == STM_DOOMED || state == STM_WAITING) {
        stmpy_raise(STM_CONFLICT);
        return NULL;
    }
    bool is_nested = th->block.depth > 1 || th->block.is_joined;
    if (is_nested || (th->block.locals != NULL && PyDict_GET_SIZE(th->block.locals) != 0)) {
        PyObject *where = stmpy_describe_block(th);
        if (where != NULL) {
            PyErr_Format(stmpy_open_block_error,
                         is_nested
                             ? "%s() in a block that is nested in %U: it would commit half of "
                               "the outer one; call it in the outermost block only"
                             : "%s() inside of `with lock:` in %U: it would give up what the "
                               "lock protects; leave the lock first",
                         what, where);
            Py_DECREF(where);
        }
        return NULL;
    }
    return th;
}

static PyObject *split(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = require_outermost("split");
    stmpy_running rest;
    int status = th == NULL ? -1 : commit_part(th, &rest);
    if (status < 0 || begin_rest(th, &rest) < 0 || status != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- unprotected ------------------------------------------------------------------------ */

static PyObject *unprotected(PyObject *module, PyObject *unused)
{
    return unprotected_type->tp_alloc(unprotected_type, 0);
}

static PyObject *unprotected_enter(PyObject *op, PyObject *unused)
{
    unprotected_object *self = (unprotected_object *)op;
    if (self->thread != NULL) {
        PyErr_SetString(stmpy_open_block_error, "this unprotected() is entered already: call "
                                                "ame.unprotected() anew for each `with`");
        return NULL;
    }
    stmpy_thread *th = require_outermost("unprotected");
    int status = th == NULL ? -1 : commit_part(th, &self->rest);
    if (status != 0) {
        if (status > 0) {
            begin_rest(th, &self->rest);
        }
        return NULL;
    }
    self->thread = th;
    self->outer = th->suspended;
    th->suspended = (unprotected_object *)Py_NewRef(op);
    return Py_NewRef(op);
}

/* Takes the innermost suspended block off the list.  Its rest is still to begin. */
static stmpy_running take_suspended(stmpy_thread *th)
{
    unprotected_object *first = th->suspended;
    stmpy_running rest = first->rest;
    th->suspended = first->outer;
    first->outer = NULL;
    first->thread = NULL;
    Py_DECREF((PyObject *)first);
    return rest;
}

static PyObject *unprotected_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    stmpy_thread *th = stmpy_tls;
    if (th == NULL || (PyObject *)th->suspended != op || th->block.depth != 0) {
        PyErr_SetString(stmpy_open_block_error,
                        "unprotected() was left where its block is not any more: in another "
                        "thread, in another block, or after the end of its own (in a generator?)");
        return NULL;
    }
    stmpy_running rest = take_suspended(th);
    return begin_rest(th, &rest) < 0 ? NULL : Py_NewRef(Py_False);
}

bool stmpy_resume(stmpy_thread *th, uint32_t depth)
{
    if (th->block.depth != 0 || th->suspended == NULL || depth != 1) {
        return false;
    }
    stmpy_running rest = take_suspended(th);
    free(th->block.nests);
    free(th->block.hooks.items);
    th->block = rest;
    th->block.depth = 1;
    return true;
}

static void unprotected_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef unprotected_methods[] = {
    {"__enter__", unprotected_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))unprotected_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot unprotected_slots[] = {
    {Py_tp_doc, "What unprotected() returns: a context manager, to be entered once."},
    {Py_tp_dealloc, unprotected_dealloc},
    {Py_tp_methods, unprotected_methods},
    {0, NULL},
};

static PyType_Spec unprotected_spec = {
    .name = "ame.Unprotected",
    .basicsize = sizeof(unprotected_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = unprotected_slots,
};

static PyMethodDef methods[] = {
    {"split", split, METH_NOARGS,
     "split($module)\n--\n\n"
     "Commits what the block has done so far and goes on in a new transaction.\n\n"
     "Others may change anything in between.  on_commit functions of the first part run now.\n"
     "As the block cannot start over any more, its rest runs as irrevocable() blocks do; an\n"
     "exception undoes the rest only.  This is the Yield of AME (Isard and Birrell 2007).\n\n"
     "Raises:\n"
     "    NotInTransaction: outside of a block.\n"
     "    OpenBlockError: in a nested block, half of whose outer block it would commit.\n\n"
     "In a transaction: required."},
    {"unprotected", unprotected, METH_NOARGS,
     "unprotected($module)\n--\n\n"
     "Leaves the block for a while: `with unprotected(): ...` runs outside of any transaction.\n\n"
     "Entering it commits what the block has done so far (as split does), leaving it begins a\n"
     "new transaction, for the rest of the block, that cannot lose.  For slow work such as\n"
     "loading, which no other thread should have to wait for.\n\n"
     "Raises, when entered:\n"
     "    NotInTransaction: outside of a block.\n"
     "    OpenBlockError: in a nested block.\n\n"
     "In a transaction: required; blocks inside of it are transactions of their own."},
    {NULL, NULL, 0, NULL},
};

int stmpy_split_install(PyObject *module)
{
    unprotected_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &unprotected_spec, NULL);
    return unprotected_type == NULL ? -1 : PyModule_AddFunctions(module, methods);
}
