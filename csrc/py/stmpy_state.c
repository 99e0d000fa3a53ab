/* The domain, the state of a thread, statuses as exceptions.
 *
 * INV-STATE-1  A stmpy_thread is used by the thread that made it only.  It is
 *              found through one thread-local pointer (initial-exec).
 * INV-STATE-2  It ends with its thread: a capsule in the thread's state dict is
 *              destroyed while the thread can still run Python; what comes even
 *              later (or has no such dict) is met by a pthread key, which hands
 *              the record back without touching Python objects.
 * INV-STATE-3  Code that the interpreter runs in the middle of a block without
 *              being part of it (finalizers found by a garbage collection,
 *              signal handlers during a wait) gets a record of its own: its
 *              effects must not vanish when the block loses an attempt.
 *              Exception: if the block cannot lose, such code joins it, as
 *              waiting for it from inside of it would never end.
 * INV-STATE-4  Every wait detaches from the interpreter, and on the main thread
 *              looks for signals every 0.05 s.
 *
 * Guarded by tests/anomalies (thread churn, finalizers, exit, fork).
 */
#include "stmpy_block.h"

#include <pthread.h>

#include "stm_platform.h"
#include "stmpy_api.h"
#include "stmpy_table.h"

_Thread_local stmpy_thread *stmpy_tls;
stm_domain *stmpy_domain;
_Atomic bool stmpy_quitting;

PyObject *stmpy_abort_error;
PyObject *stmpy_timeout_error;
PyObject *stmpy_not_in_transaction_error;
PyObject *stmpy_irrevocable_error;
PyObject *stmpy_open_block_error;
PyObject *stmpy_read_only_error;
PyObject *stmpy_transaction_error;
PyObject *stmpy_untracked_error;
PyObject *stmpy_rerun_error;
PyObject *stmpy_limit_hook;
PyObject *stmpy_strict_hook;

static PyObject *long_wait_hook; /* a Python function; set once */
static pthread_key_t thread_key;
static const char CAPSULE[] = "stm._core.thread";

stm_domain *stmpy_get_domain(void)
{
    return stmpy_domain;
}

/* --- hooks of the core ------------------------------------------------------ */

static void release_object(stm_value value)
{
    if (value > STMPY_SWEPT) { /* the marks of stmpy_table.h are no objects */
        Py_DECREF(stmpy_object(value));
    }
}

static void *detach(void)
{
    return PyEval_SaveThread();
}

static int attach(void *token)
{
    PyEval_RestoreThread(token);
    stmpy_thread *th = stmpy_tls;
    if (th == NULL || !th->is_main) {
        return 0;
    }
    stmpy_aside room;
    stmpy_set_aside(th, &room, true);
    int interrupted = PyErr_CheckSignals();
    stmpy_take_up(th, &room);
    return interrupted;
}

static void long_wait(uint32_t holder_label, double seconds)
{
    stmpy_thread *th = stmpy_tls;
    stmpy_aside room;
    stmpy_set_aside(th, &room, true);
    PyObject *done = PyObject_CallFunction(long_wait_hook, "sd",
                                           stm_label_text(stmpy_domain, holder_label), seconds);
    if (done == NULL) {
        PyErr_WriteUnraisable(long_wait_hook);
    }
    Py_XDECREF(done);
    stmpy_take_up(th, &room);
}

static const stm_hooks hooks = {
    .release = release_object,
    .detach = detach,
    .attach = attach,
    .long_wait = long_wait,
};

/* --- a thread's state ------------------------------------------------------- */

static void thread_end(stmpy_thread *th)
{
    stmpy_tls = NULL;
    pthread_setspecific(thread_key, NULL);
    if (th->block.txn != NULL) {
        stm_txn_free(th->block.txn);
        stm_domain_collect(stmpy_domain); /* what it left: nobody else might */
    }
    Py_XDECREF(th->context);
    if (th->spare != NULL) {
        stmpy_with_free(th->spare);
    }
    stmpy_running left = th->block; /* of a block that never ended */
    free(th);
    for (uint32_t i = 0; i < left.hooks.count; i++) {
        Py_DECREF(left.hooks.items[i].call);
    }
    stmpy_forget(&left);
    free(left.nests);
    free(left.hooks.items);
}

static void capsule_end(PyObject *capsule)
{
    stmpy_thread *th = PyCapsule_GetPointer(capsule, CAPSULE);
    if (th == stmpy_tls) {
        thread_end(th);
    } /* else the interpreter clears the state of a thread that hangs: leave it */
}

/* Without the interpreter: Python objects can't be touched any more. */
static void key_end(void *pointer)
{
    stmpy_thread *th = pointer;
    if (th->block.txn != NULL) {
        stm_txn_abandon(th->block.txn);
        stm_txn_free(th->block.txn);
    }
    free(th);
}

static int remember(stmpy_thread *th)
{
    pthread_setspecific(thread_key, th);
    PyObject *dict = PyThreadState_GetDict();
    if (dict == NULL) {
        return 0;
    }
    PyObject *capsule = PyCapsule_New(th, CAPSULE, capsule_end);
    if (capsule == NULL) {
        return -1;
    }
    int status = PyDict_SetItemString(dict, CAPSULE, capsule);
    if (status < 0) {
        PyCapsule_SetDestructor(capsule, NULL);
    }
    Py_DECREF(capsule);
    return status;
}

stmpy_thread *stmpy_thread_new(void)
{
    stmpy_thread *th = stmpy_tls;
    if (th != NULL) { /* its block is set aside */
        th->block.txn = stm_txn_new(stmpy_domain);
        if (th->block.txn == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        return th;
    }
    th = calloc(1, sizeof(*th));
    stm_txn *txn = th == NULL ? NULL : stm_txn_new(stmpy_domain);
    if (txn == NULL) {
        free(th);
        PyErr_NoMemory();
        return NULL;
    }
    th->block.txn = txn;
    th->is_main = stm_is_main_thread();
    stmpy_tls = th;
    if (remember(th) < 0) {
        thread_end(th);
        return NULL;
    }
    return th;
}

void stmpy_set_aside(stmpy_thread *th, stmpy_aside *room, bool waiting)
{
    room->waiting = waiting;
    room->by_collection = false;
    room->outer = th->aside;
    room->block = th->block;
    th->aside = room;
    if (th->block.depth > 0 && stm_txn_state(th->block.txn) == STM_PROTECTED) {
        th->block.floor = th->block.depth;
        th->block.is_joined = true;
        th->block.can_rerun = false; /* it must not give up, or split, a block not its own */
        return;                      /* INV-STATE-3: join */
    }
    if (th->block.depth > 0 && th->block.txn->has_slot) {
        room->waiting = true; /* lost, or read-only, with the slot: don't wait for it for ever */
    }
    th->block = (stmpy_running){.txn = NULL};
}

/* Frees what belongs to a block that ran while another one was set aside. */
static void drop_running(stmpy_thread *th)
{
    stmpy_running left = th->block;
    for (uint32_t i = 0; i < left.hooks.count; i++) {
        Py_DECREF(left.hooks.items[i].call);
    }
    stmpy_forget(&left);
    free(left.nests);
    free(left.hooks.items);
}

void stmpy_take_up(stmpy_thread *th, stmpy_aside *room)
{
    if (th->block.txn == room->block.txn) {
        /* Joined: what it did is the block's, but for blocks that it left open. */
        stmpy_cut_depth(th, room->block.depth);
        th->block.floor = room->block.floor;
        th->block.is_joined = room->block.is_joined;
        th->block.can_rerun = room->block.can_rerun;
    } else {
        if (th->block.txn != NULL) {
            stm_txn_free(th->block.txn);
        }
        drop_running(th);
        th->block = room->block;
    }
    th->aside = room->outer;
}

/* --- statuses --------------------------------------------------------------- */

PyObject *stmpy_raise(stm_status status)
{
    switch (status) {
    case STM_CONFLICT:
        PyErr_SetNone(stmpy_abort_error);
        break;
    case STM_NO_MEMORY:
        PyErr_NoMemory();
        break;
    case STM_TIMEOUT:
        PyErr_SetString(stmpy_timeout_error,
                        "the transaction waited for another one until its time was up");
        break;
    case STM_INTERRUPTED: /* the attach hook has set the exception */
        if (!PyErr_Occurred()) {
            PyErr_SetNone(PyExc_KeyboardInterrupt);
        }
        break;
    case STM_READ_ONLY:
        PyErr_SetString(stmpy_read_only_error,
                        "a write in a block declared read_only: drop read_only=True, or move "
                        "the write out of the block");
        break;
    default:
        if (stmpy_in_block() && stm_txn_state(stmpy_tls->block.txn) == STM_IDLE) {
            PyErr_SetString(stmpy_transaction_error,
                            "the block has ended already, by a timeout or an interrupt in split() "
                            "or unprotected(): let that exception leave it");
        } else {
            PyErr_SetString(PyExc_SystemError, "stm._core: a call in a state that forbids it");
        }
    }
    return NULL;
}

/* --- garbage collections, fork, exit ------------------------------------------ */

/* After a collection in a thread that had no record when it began: a block that a
 * finalizer has left open ends here. */
static void end_left_open(stmpy_thread *th)
{
    if (th != NULL && th->block.depth > 0) {
        stmpy_cut_depth(th, 1);
        stmpy_close_deeper(th, 0);
        stmpy_roll_back(th);
    }
}

/* gc.callbacks: finalizers that a collection finds are not part of the block in
 * the middle of which it started. */
static PyObject *on_collection(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    static _Thread_local bool had_no_record;
    stmpy_thread *th = stmpy_tls;
    if (count < 1 || !PyUnicode_Check(args[0])) {
        Py_RETURN_NONE;
    }
    if (PyUnicode_CompareWithASCIIString(args[0], "start") == 0) {
        had_no_record = th == NULL;
        if (th == NULL) {
            Py_RETURN_NONE;
        }
        stmpy_aside *room = malloc(sizeof(*room));
        if (room == NULL) {
            return PyErr_NoMemory();
        }
        stmpy_set_aside(th, room, false);
        room->by_collection = true;
        stm_domain_collect(stmpy_domain); /* so that it finds what is garbage by now */
    } else if (had_no_record) {
        had_no_record = false;
        end_left_open(th);
    } else if (th != NULL && th->aside != NULL && th->aside->by_collection) {
        stmpy_aside *room = th->aside; /* else its start failed */
        stmpy_take_up(th, room);
        free(room);
    }
    Py_RETURN_NONE;
}

/* Nothing has to be done before a fork: all other threads are stopped or without
 * the GIL then, so none is inside the core but in a wait, with no lock held.
 * (Taking the commit lock first would stop the stop: who waits for it is
 * attached.) */
static PyObject *after_fork_child(PyObject *self, PyObject *unused)
{
    stmpy_thread *th = stmpy_tls;
    stm_txn *own[32]; /* deeper ones than that are given up */
    size_t count = 0;
    if (th != NULL && th->block.txn != NULL) {
        own[count++] = th->block.txn;
    }
    for (stmpy_aside *a = th == NULL ? NULL : th->aside; a != NULL && count < 32; a = a->outer) {
        if (a->block.txn != NULL && a->block.txn != own[count - (count != 0)]) {
            own[count++] = a->block.txn;
        }
    }
    stm_domain_fork_child(stmpy_domain, own, count);
    if (th != NULL) {
        th->is_main = stm_is_main_thread();
    }
    Py_RETURN_NONE;
}

static PyObject *collect(PyObject *self, PyObject *unused)
{
    stm_domain_collect(stmpy_domain);
    Py_RETURN_NONE;
}

/* At exit: a thread that will never run again may hold the protected slot, so
 * nobody waits for ever from now on. */
static PyObject *quit(PyObject *self, PyObject *unused)
{
    stm_domain_collect(stmpy_domain);
    stm_store(&stmpy_quitting, true);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"_on_collection", (PyCFunction)(void (*)(void))on_collection, METH_FASTCALL, NULL},
    {"_after_fork_child", after_fork_child, METH_NOARGS, NULL},
    {"_quit", quit, METH_NOARGS, NULL},
    {"collect", collect, METH_NOARGS,
     "Cuts every old version and frees every dead object that no running transaction needs."},
    {NULL, NULL, 0, NULL},
};

static int fetch(PyObject *module, const char *name, PyObject **where)
{
    *where = PyObject_GetAttrString(module, name); /* kept for ever */
    return *where == NULL ? -1 : 0;
}

int stmpy_state_install(PyObject *module)
{
    if (fetch(module, "TransactionAborted", &stmpy_abort_error) < 0 ||
        fetch(module, "TransactionTimeout", &stmpy_timeout_error) < 0 ||
        fetch(module, "NotInTransaction", &stmpy_not_in_transaction_error) < 0 ||
        fetch(module, "IrrevocableError", &stmpy_irrevocable_error) < 0 ||
        fetch(module, "OpenBlockError", &stmpy_open_block_error) < 0 ||
        fetch(module, "ReadOnlyError", &stmpy_read_only_error) < 0 ||
        fetch(module, "TransactionError", &stmpy_transaction_error) < 0 ||
        fetch(module, "UntrackedMutable", &stmpy_untracked_error) < 0 ||
        fetch(module, "BlockRerun", &stmpy_rerun_error) < 0 ||
        fetch(module, "_limit_error", &stmpy_limit_hook) < 0 ||
        fetch(module, "_strict_error", &stmpy_strict_hook) < 0 ||
        fetch(module, "_long_wait", &long_wait_hook) < 0) {
        return -1;
    }
    if (pthread_key_create(&thread_key, key_end) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    stmpy_domain = stm_domain_new(&hooks, 0);
    if (stmpy_domain == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return PyModule_AddFunctions(module, methods);
}

/* The functions are called by all threads: DESIGN 4.9. */
static void defer_functions(PyObject *module)
{
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(PyModule_GetDict(module), &at, &name, &value)) {
        if (PyCFunction_Check(value)) {
            stmpy_defer_counts(value);
        }
    }
}

int stmpy_install(uintptr_t address)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *module = (PyObject *)address;
    int status = -1;
    if (stmpy_domain != NULL) {
        PyErr_SetString(PyExc_ImportError, "stm._core is installed already; it works in the main "
                                           "interpreter of a process only");
    } else if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "stm._core works in the main interpreter only");
    } else if (stmpy_state_install(module) == 0 && stmpy_ref_install(module) == 0 &&
               stmpy_atomic_install(module) == 0 && stmpy_hooks_install(module) == 0 &&
               stmpy_control_install(module) == 0 && stmpy_split_install(module) == 0 &&
               stmpy_with_install(module) == 0 && stmpy_watch_install(module) == 0 &&
               stmpy_strict_install(module) == 0 && stmpy_dict_install(module) == 0 &&
               stmpy_dictview_install(module) == 0) {
        defer_functions(module);
        status = 0;
    }
    if (status < 0) {
        PyErr_Print();
    }
    PyGILState_Release(gil);
    return status;
}
