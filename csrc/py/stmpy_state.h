/* What every CPython type here shares: the domain, the state of a thread, and
 * how a status of the core becomes an exception. */
#ifndef STMPY_STATE_H
#define STMPY_STATE_H

#include <Python.h>

#include <structmember.h>

#include "stm_access.h"
#include "stm_domain.h"

/* A lock for short sections that run no Python code.  Before 3.13 the GIL is one. */
#if PY_VERSION_HEX >= 0x030D0000
typedef PyMutex stmpy_mutex;
#define stmpy_mutex_lock(m) PyMutex_Lock(m)
#define stmpy_mutex_unlock(m) PyMutex_Unlock(m)
#else
typedef char stmpy_mutex;
#define stmpy_mutex_lock(m) ((void)(m))
#define stmpy_mutex_unlock(m) ((void)(m))
#endif

/* A block that is set aside while unrelated code of the same thread runs: the
 * finalizers that a garbage collection calls, signal handlers during a wait. */
typedef struct stmpy_aside {
    struct stmpy_aside *outer;
    stm_txn *txn;
    uint32_t depth;
    uint32_t births;
    uint32_t floor;
    bool irrevocable;
    bool by_collection; /* on the heap: between gc's "start" and "stop" */
    bool waiting;       /* it waits inside the core: who runs now must not wait for ever */
} stmpy_aside;

/* One per OS thread that has used transactions; used by that thread only. */
typedef struct stmpy_thread {
    stm_txn *txn;
    uint32_t depth;  /* open blocks, joined ones included; 0: no transaction */
    uint32_t floor;  /* the depth that only the end of a function block goes below */
    uint32_t births; /* mappings created in this attempt */
    bool is_main;
    bool irrevocable; /* this attempt was made so */
    stmpy_aside *aside;
    PyObject *context; /* this thread's `atomic()` object, owned */
} stmpy_thread;

extern _Thread_local stmpy_thread *stmpy_tls;
extern stm_domain *stmpy_domain;
extern _Atomic bool
    stmpy_quitting; /* the interpreter is about to end; set once, by its last thread */

/* Exception classes of stm._errors, set at installation, immortal by that. */
extern PyObject *stmpy_abort_error; /* private BaseException: the attempt lost */
extern PyObject *stmpy_timeout_error;
extern PyObject *stmpy_not_in_transaction_error;
extern PyObject *stmpy_irrevocable_error;
extern PyObject *stmpy_open_block_error;
extern PyObject *stmpy_read_only_error;

/* NULL with MemoryError set. */
stmpy_thread *stmpy_thread_new(void);

static inline stmpy_thread *stmpy_thread_get(void)
{
    stmpy_thread *th = stmpy_tls;
    return stm_likely(th != NULL && th->txn != NULL) ? th : stmpy_thread_new();
}

static inline bool stmpy_in_block(void)
{
    return stmpy_tls != NULL && stmpy_tls->depth > 0;
}

/* Sets the exception for a status other than STM_OK; always returns NULL. */
PyObject *stmpy_raise(stm_status status);
static inline int stmpy_fail(stm_status status)
{
    stmpy_raise(status);
    return -1;
}

/* A handle from the core as a borrowed object, and back. */
static inline PyObject *stmpy_object(stm_value v)
{
    return (PyObject *)v;
}
static inline stm_value stmpy_handle(PyObject *o)
{
    return (stm_value)o;
}

/* Sets the current block aside, so that what runs next is not part of it; and
 * takes it up again.  Both in the thread that runs. */
void stmpy_set_aside(stmpy_thread *th, stmpy_aside *room, bool waiting);
void stmpy_take_up(stmpy_thread *th, stmpy_aside *room);

/* Runs body(th, arg) as one block, again after each lost attempt, joined to the
 * open block if there is one.  A new reference, or NULL with an exception. */
typedef PyObject *(*stmpy_body)(stmpy_thread *th, void *arg);
PyObject *stmpy_run_block(stmpy_thread *th, uint32_t flags, uint32_t label, stmpy_body body,
                          void *arg);
/* The pieces of it that `with` needs. */
int stmpy_enter(stmpy_thread *th, uint32_t flags, uint32_t label);
int stmpy_leave(stmpy_thread *th, bool failed);
/* OpenBlockError: a block ends elsewhere than it began.  Returns NULL. */
PyObject *stmpy_raise_open_block(void);

/* Counts by the collector only from now on (free-threaded build). */
static inline void stmpy_defer_counts(PyObject *o)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    PyUnstable_Object_EnableDeferredRefcount(o);
#else
    (void)o;
#endif
}

/* An object that threads other than its maker keep using: its shared count would
 * be the hottest line of the program (DESIGN 4.9), so it is deferred.  Not at the
 * first use, as a deferred object lives until the next collection: one that is
 * just handed over ends when it is dropped. */
enum { STMPY_SHARED_USES = 1000 };

static inline void stmpy_note_use(PyObject *o, _Atomic uint32_t *uses)
{
#if defined(Py_GIL_DISABLED)
    if (stm_unlikely(o->ob_tid != _Py_ThreadId())) {
        uint32_t n = stm_load_rlx(uses); /* racy: it is a rough count */
        if (stm_unlikely(n < STMPY_SHARED_USES)) {
            stm_store_rlx(uses, n + 1);
            if (n + 1 == STMPY_SHARED_USES) {
                stmpy_defer_counts(o);
            }
        }
    }
#else
    (void)o;
    (void)uses;
#endif
}

/* Parts of the module, each in a file of its name. */
int stmpy_state_install(PyObject *module);
int stmpy_ref_install(PyObject *module);
int stmpy_block_install(PyObject *module);
int stmpy_dict_install(PyObject *module);
int stmpy_dictview_install(PyObject *module);

#endif
