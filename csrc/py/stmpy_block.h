/* Running blocks: what the files about blocks share. */
#ifndef STMPY_BLOCK_H
#define STMPY_BLOCK_H

#include "stmpy_state.h"

/* --- attempts (stmpy_block.c) --------------------------------------------------- */

/* What the end of an outermost attempt came to. */
typedef enum {
    STMPY_FAILED = -1, /* the block has ended, with an exception */
    STMPY_DONE = 0,    /* committed; an exception that was on its way goes on */
    STMPY_LOST = 1     /* drop the outcome, then stmpy_next_attempt */
} stmpy_end;

/* Begins a block, nested if one is open. */
int stmpy_enter(stmpy_thread *th, const stmpy_options *options, PyObject *site);
/* Ends the outermost one.  error: the class of the exception that leaves it, or
 * NULL; the exception itself may be set or not.  A new one is set on FAILED if
 * error is NULL. */
stmpy_end stmpy_end_attempt(stmpy_thread *th, PyObject *error, const stmpy_options *options);
/* Ends a nested one. */
void stmpy_end_nested(stmpy_thread *th, PyObject *error, const stmpy_options *options);
/* After STMPY_LOST.  -1: the block has ended, with an exception. */
int stmpy_next_attempt(stmpy_thread *th);
/* Drops the attempt and ends the block; keeps the exception that is set. */
void stmpy_roll_back(stmpy_thread *th);
int stmpy_upgrade(stmpy_thread *th);
/* A retry() of this attempt waits no longer than that, counted from the first time
 * that this block came here with the same key (NULL: from now).  -1: no memory. */
int stmpy_lower_deadline(stmpy_thread *th, double seconds, PyObject *key);
/* Undoes the nested blocks that are open below this depth. */
void stmpy_cut_depth(stmpy_thread *th, uint32_t depth);
/* Drops what a block that has ended does not need; may run any code. */
void stmpy_forget(stmpy_running *b);
/* How long to wait in seconds; negative: for ever. */
double stmpy_patience(const stmpy_thread *th);
/* Of two such times. */
double stmpy_sooner(double a, double b);
/* A block ends (its depth is given) while unprotected() is still open in it: takes the
 * block up again, without a transaction, so that it can end.  False: it is not so. */
bool stmpy_resume(stmpy_thread *th, uint32_t depth);

int stmpy_push_nest(stmpy_thread *th);
/* The place of the innermost nested block, which is taken off. */
const stmpy_nest *stmpy_pop_nest(stmpy_thread *th);
void stmpy_undo_nest(stmpy_thread *th, const stmpy_nest *nest);

/* --- errors (stmpy_error.c) -------------------------------------------------------- */

/* An exception put away while other code runs. */
typedef struct {
    PyObject *type; /* unused from 3.12 on */
    PyObject *value;
    PyObject *traceback; /* unused from 3.12 on */
} stmpy_error;

static inline bool stmpy_error_is_set(const stmpy_error *e)
{
    return e->type != NULL || e->value != NULL;
}

/* Puts the exception that is set, if any, away; and back, dropping any other. */
void stmpy_save_error(stmpy_error *e);
void stmpy_restore_error(stmpy_error *e);

/* The exception that is set gets e as its context; e is used up. */
void stmpy_chain_error(stmpy_error *e);

/* "the block at FILE:LINE in NAME": a new str, or NULL. */
PyObject *stmpy_describe_block(const stmpy_thread *th);
PyObject *stmpy_describe_site(PyObject *site);
/* Sets `error` with a text in which %U is the description; returns NULL. */
PyObject *stmpy_raise_about(PyObject *error, const char *text, PyObject *site);
/* AttemptLimit, or TransactionTimeout: what ended the block, with data.  cells: of
 * what it waited for, or NULL. */
void stmpy_raise_limit(const stmpy_thread *th, bool timeout, PyObject *cells);
/* The exception for a status that ended a wait; returns -1. */
int stmpy_fail_wait(const stmpy_thread *th, stm_status status, PyObject *cells);
/* OpenBlockError: a block ends elsewhere than it began.  Returns NULL. */
PyObject *stmpy_raise_open_block(PyObject *site);

/* --- hooks (stmpy_hooks.c) ------------------------------------------------------- */

/* Forgets what was registered after the first `keep` ones, but for on_abort. */
void stmpy_hooks_undo(stmpy_thread *th, uint32_t keep);
/* Takes all hooks off the block. */
stmpy_hooks stmpy_hooks_take(stmpy_thread *th);
/* Runs what is to run now and frees the list, outside of any block.  -1: one was
 * interrupted (KeyboardInterrupt, SystemExit). */
int stmpy_hooks_run(stmpy_thread *th, stmpy_hooks *hooks, bool committed);

/* --- calls ----------------------------------------------------------------------- */

/* A Python call as the body of a block. */
typedef struct {
    PyObject *fn;
    PyObject *const *args;
    size_t nargsf;
    PyObject *kwnames;
} stmpy_call;

PyObject *stmpy_call_body(stmpy_thread *th, void *call);

/* The number of a label: NULL and None have none.  -1: not a str. */
int stmpy_label(PyObject *label, uint32_t *number);

/* -1 with TypeError: not callable, or a body that would run outside of the block. */
int stmpy_check_function(PyObject *fn, const char *who);

/* The state of this thread, or NULL with NotInTransaction. */
stmpy_thread *stmpy_require_block(const char *what);

/* Seconds from an argument: None is `none`.  -1 with an exception. */
int stmpy_seconds(PyObject *value, const char *what, double none, double *seconds);

/* --- `with` (stmpy_with.c, stmpy_watch.c) ------------------------------------------ */

typedef struct {
    PyObject_HEAD
    stmpy_options options;
} stmpy_atomic;

extern PyTypeObject *stmpy_atomic_type;

/* Where a `with` block stands in the source. */
typedef struct {
    PyObject_HEAD
    PyObject *filename;
    PyObject *name; /* of the function */
    int line;
    uint32_t label;
    bool suspends;                /* a yield or await inside: such a block cannot run */
    _Atomic uint64_t irrevocable; /* entries that had to be irrevocable */
} stmpy_site;

extern PyTypeObject *stmpy_site_type;
/* Forgets the rewritten `with` blocks that were left open below this depth. */
void stmpy_close_deeper(stmpy_thread *th, uint32_t depth);
/* OpenBlockError: a yield or await inside of a block.  Returns NULL. */
PyObject *stmpy_raise_leaving(PyObject *site);
PyObject *stmpy_site_new(PyObject *filename, int line, PyObject *name);
/* The site of the `with` that the calling frame executes now, and a chance to have
 * its function rewritten.  Borrowed (kept for ever); NULL with an exception. */
PyObject *stmpy_first_entry(void);

#endif
