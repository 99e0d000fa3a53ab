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

/* What a block was asked for.  Lives as long as the block runs. */
typedef struct {
    uint32_t flags; /* stm_begin_flag */
    uint32_t label;
    uint32_t max_attempts; /* lost ones; 0: no limit */
    double timeout_s;      /* negative: none */
    PyObject *commit_on;   /* a class or tuple of exception classes; NULL: none */
} stmpy_options;

extern const stmpy_options stmpy_no_options;
extern const stmpy_options stmpy_reading; /* STM_BEGIN_READ_ONLY */

/* A call that waits for the end of the attempt (stmpy_hooks.c). */
typedef struct {
    PyObject *call; /* (fn, args, kwargs) */
    bool on_abort;
    bool is_due; /* on_abort of a nested block that was undone: runs in any case */
} stmpy_hook;

typedef struct {
    stmpy_hook *items;
    uint32_t count;
    uint32_t capacity;
} stmpy_hooks;

/* What a joined block goes back to when it fails. */
typedef struct {
    stm_savepoint place;
    uint64_t deadline_ns; /* of the block around it */
    uint32_t hooks;
} stmpy_nest;

typedef struct stmpy_with stmpy_with;
void stmpy_with_free(stmpy_with *spare);

/* The block that a thread runs now. */
typedef struct {
    stm_txn *txn;
    uint32_t depth;               /* open blocks, joined ones included; 0: no transaction */
    uint32_t floor;               /* the depth that only the end of a function block goes below */
    uint32_t births;              /* mappings created in this attempt */
    uint32_t lost;                /* attempts of this block that lost a conflict */
    bool irrevocable;             /* this attempt was made so */
    bool can_rerun;               /* the block can be executed again */
    bool is_joined;               /* code runs that is not part of the block: INV-STATE-3 */
    const stmpy_options *options; /* of the outermost block */
    stmpy_options own_options;    /* for a manager that may die before its block */
    PyObject *site;               /* where it began, for messages; borrowed */
    uint64_t deadline_ns;         /* of this attempt's retry; UINT64_MAX: none */
    PyObject *timers;             /* when each timed wait of this block began, or NULL */
    PyObject *locals;             /* stm.attempt_locals(), or NULL */
    stmpy_hooks hooks;            /* of this attempt */
    stmpy_nest *nests;            /* depth - 1 of them */
    uint32_t nest_capacity;
    stmpy_with *pending; /* rewritten `with` blocks about to be entered; borrowed */
    stmpy_with *open;    /* the entered ones, innermost first; borrowed */
    stmpy_with *rerun;   /* its attempt was lost, the next one is to begin; borrowed */
} stmpy_running;

/* A block that is set aside while unrelated code of the same thread runs: the
 * finalizers that a garbage collection calls, signal handlers during a wait. */
typedef struct stmpy_aside {
    struct stmpy_aside *outer;
    stmpy_running block;
    bool by_collection; /* on the heap: between gc's "start" and "stop" */
    bool waiting;       /* it waits inside the core: who runs now must not wait for ever */
} stmpy_aside;

/* One per OS thread that has used transactions; used by that thread only. */
typedef struct stmpy_thread {
    stmpy_running block;
    bool is_main;
    stmpy_aside *aside;
    PyObject *context;                   /* this thread's `atomic()` object, owned */
    struct stmpy_unprotected *suspended; /* blocks left by unprotected(), owned */
    stmpy_with *spare; /* a dead one, for the next block (stmpy_with.c); NULL: none */
    PyObject *due;     /* a list: hooks of blocks that have ended, in order; NULL: none run */
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
extern PyObject *stmpy_transaction_error;
extern PyObject *stmpy_untracked_error;
extern PyObject *stmpy_limit_hook;  /* makes TransactionTimeout and AttemptLimit */
extern PyObject *stmpy_strict_hook; /* makes UntrackedMutable */
extern PyObject *stmpy_rerun_error; /* private BaseException: a rewritten block goes round */

/* NULL with MemoryError set. */
stmpy_thread *stmpy_thread_new(void);

static inline stmpy_thread *stmpy_thread_get(void)
{
    stmpy_thread *th = stmpy_tls;
    return stm_likely(th != NULL && th->block.txn != NULL) ? th : stmpy_thread_new();
}

static inline bool stmpy_in_block(void)
{
    return stmpy_tls != NULL && stmpy_tls->block.depth > 0;
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

/* Runs body(th, arg) as one block, again after each lost attempt; inside of a
 * block as a nested one.  A new reference, or NULL with an exception. */
typedef PyObject *(*stmpy_body)(stmpy_thread *th, void *arg);
PyObject *stmpy_run_block(stmpy_thread *th, const stmpy_options *options, PyObject *site,
                          stmpy_body body, void *arg);
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
int stmpy_hooks_install(PyObject *module);
int stmpy_control_install(PyObject *module);
int stmpy_split_install(PyObject *module);
int stmpy_with_install(PyObject *module);
int stmpy_watch_install(PyObject *module);
int stmpy_strict_install(PyObject *module);
int stmpy_atomic_install(PyObject *module);
int stmpy_dict_install(PyObject *module);
int stmpy_dictview_install(PyObject *module);

#endif
