/* Running blocks: begin, nest, end, and the next attempt.
 *
 * Terms.  Outermost block: the transaction.  Nested block: a savepoint in it.
 *
 * INV-BLOCK-1  While a body runs, depth > 0 and the record is in an attempt.
 *              depth is 0 before commit, restart or rollback are called, as
 *              they may release objects whose finalizers run blocks.
 * INV-BLOCK-2  The outcome of a lost attempt (value or exception) is dropped,
 *              whatever the body did with the abort, and the body runs again.
 *              Until then depth stays 1: finalizers of what it made belong to it.
 *              A KeyboardInterrupt is not of the attempt's making: it ends the block.
 * INV-BLOCK-3  A nested block that fails undoes its own writes and hooks only; its
 *              reads stay.  Commit and re-execution belong to the outermost block.
 *              An attempt that is lost or waits passes through nested blocks as it
 *              is: only or_else and the outermost block answer it.
 * INV-BLOCK-4  Hooks of an attempt run when depth is 0 and the record is idle or
 *              set aside.
 *
 * Guarded by tests/stm/test_block.py, tests/stm/test_nesting.py, tests/anomalies.
 */
#include "stmpy_block.h"

#include "stm_nest.h"

static const double LAST_TIMEOUT_S = 1.0;

const stmpy_options stmpy_no_options = {.timeout_s = -1};
const stmpy_options stmpy_reading = {.flags = STM_BEGIN_READ_ONLY, .timeout_s = -1};

/* --- begin ---------------------------------------------------------------------- */

/* Code that runs while its own thread waits inside the core must give up in the
 * end, as what it waits for may be that thread; and so must code that runs when
 * the other threads have ended. */
double stmpy_patience(const stmpy_thread *th)
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

double stmpy_sooner(double a, double b)
{
    return b < 0 || (a >= 0 && a < b) ? a : b;
}

int stmpy_lower_deadline(stmpy_thread *th, double seconds, PyObject *key)
{
    stmpy_running *b = &th->block;
    uint64_t now = stm_now_ns(), began = now;
    if (seconds < 0) {
        return 0;
    }
    if (b->timers == NULL && (b->timers = PyDict_New()) == NULL) {
        return -1;
    }
    PyObject *known = key == NULL ? NULL : PyDict_GetItemWithError(b->timers, key);
    if (known != NULL) {
        began = PyLong_AsUnsignedLongLong(known);
    } else if (key != NULL) {
        PyObject *number = PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(now);
        int status = number == NULL ? -1 : PyDict_SetItem(b->timers, key, number);
        Py_XDECREF(number);
        if (status < 0) {
            return -1;
        }
    }
    uint64_t deadline = seconds > 1e9 ? UINT64_MAX : began + (uint64_t)(seconds * 1e9);
    if (deadline < b->deadline_ns) {
        b->deadline_ns = deadline;
    }
    return 0;
}

static int lower_deadline_at(stmpy_thread *th, double seconds, PyObject *site)
{
    if (stm_likely(seconds < 0)) {
        return 0;
    }
    PyObject *key = site == NULL ? NULL : PyLong_FromVoidPtr(site);
    int status = key == NULL && site != NULL ? -1 : stmpy_lower_deadline(th, seconds, key);
    Py_XDECREF(key);
    return status;
}

int stmpy_upgrade(stmpy_thread *th)
{
    stm_status status = stm_make_irrevocable(th->block.txn, stmpy_patience(th));
    if (status != STM_OK) {
        return stmpy_fail_wait(th, status, NULL);
    }
    th->block.irrevocable = true;
    return 0;
}

int stmpy_push_nest(stmpy_thread *th)
{
    stmpy_running *b = &th->block;
    if (b->depth > b->nest_capacity) {
        stmpy_nest *grown = stm_grow(b->nests, &b->nest_capacity, 8, sizeof(*grown));
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        b->nests = grown;
    }
    stmpy_nest *n = &b->nests[b->depth - 1];
    stm_status status = stm_nest_begin(b->txn, &n->place);
    if (status != STM_OK) {
        return stmpy_fail(status);
    }
    n->hooks = b->hooks.count;
    n->deadline_ns = b->deadline_ns;
    b->depth++;
    return 0;
}

const stmpy_nest *stmpy_pop_nest(stmpy_thread *th)
{
    return &th->block.nests[--th->block.depth - 1];
}

int stmpy_enter(stmpy_thread *th, const stmpy_options *options, PyObject *site)
{
    stmpy_running *b = &th->block;
    if (b->depth > 0) {
        if ((options->flags & STM_BEGIN_PROTECTED) && stmpy_upgrade(th) < 0) {
            return -1;
        }
        if (stmpy_push_nest(th) < 0) {
            return -1;
        }
        if (lower_deadline_at(th, options->timeout_s, site) < 0) {
            stmpy_undo_nest(th, stmpy_pop_nest(th));
            return -1;
        }
        return 0;
    }
    if (stm_unlikely(b->open != NULL)) {
        stmpy_close_deeper(th, 0);
    }
    if (stm_unlikely(b->timers != NULL || b->locals != NULL)) {
        stmpy_forget(b);
    }
    uint32_t flags = options->flags | (th->is_main ? STM_INTERRUPTIBLE : 0);
    double patience = stmpy_sooner(stmpy_patience(th), options->timeout_s);
    b->options = options;
    b->site = site;
    stm_status status = stm_begin(b->txn, flags, options->label, patience);
    if (stm_unlikely(status != STM_OK)) {
        return stmpy_fail_wait(th, status, NULL);
    }
    b->births = 0;
    b->floor = 0;
    b->lost = 0;
    b->deadline_ns = UINT64_MAX;
    b->irrevocable = (flags & STM_BEGIN_PROTECTED) != 0;
    b->can_rerun = false;
    b->depth = 1;
    return 0;
}

/* --- end ------------------------------------------------------------------------- */

void stmpy_forget(stmpy_running *b)
{
    Py_CLEAR(b->timers);
    Py_CLEAR(b->locals);
}

void stmpy_roll_back(stmpy_thread *th)
{
    stmpy_error e;
    stmpy_save_error(&e);
    stmpy_hooks hooks = stmpy_hooks_take(th);
    th->block.depth = 0;
    stm_rollback(th->block.txn);
    stmpy_forget(&th->block);
    stmpy_restore_error(&e);
    stmpy_hooks_run(th, &hooks, false);
}

static bool commits_on(const stmpy_options *options, PyObject *error)
{
    return options->commit_on != NULL && PyErr_GivenExceptionMatches(error, options->commit_on);
}

/* The attempt is over but for its outcome, which nobody may see. */
static stmpy_end lose(stmpy_thread *th, PyObject *error)
{
    if (error != NULL && PyErr_GivenExceptionMatches(error, PyExc_KeyboardInterrupt)) {
        stmpy_roll_back(th);
        return STMPY_FAILED;
    }
    if (!th->block.can_rerun) {
        if (error == NULL) {
            stmpy_raise_about(stmpy_irrevocable_error,
                              "an attempt of %U was lost, and it cannot run again", th->block.site);
        }
        stmpy_roll_back(th);
        return STMPY_FAILED;
    }
    th->block.depth = 1; /* INV-BLOCK-2 */
    return STMPY_LOST;
}

stmpy_end stmpy_end_attempt(stmpy_thread *th, PyObject *error, const stmpy_options *options)
{
    stm_state state = stm_txn_state(th->block.txn);
    if (stm_unlikely(state == STM_DOOMED || state == STM_WAITING)) {
        return lose(th, error);
    }
    if (error != NULL && !commits_on(options, error)) {
        stmpy_roll_back(th);
        return STMPY_FAILED;
    }
    stmpy_error e = {NULL, NULL, NULL};
    if (stm_unlikely(error != NULL)) {
        stmpy_save_error(&e);
    }
    /* The commit releases old values: finalizers may run blocks in this thread. */
    stmpy_hooks hooks = stmpy_hooks_take(th);
    PyObject *timers = th->block.timers;
    th->block.timers = NULL;
    th->block.depth = 0;
    stm_status status = stm_commit(th->block.txn);
    if (stm_likely(status == STM_OK)) {
        if (stm_unlikely(error != NULL)) {
            stmpy_restore_error(&e);
        }
        if (stm_likely(timers == NULL && th->block.locals == NULL && hooks.items == NULL)) {
            return STMPY_DONE;
        }
        Py_XDECREF(timers);
        stmpy_forget(&th->block);
        return stmpy_hooks_run(th, &hooks, true) < 0 ? STMPY_FAILED : STMPY_DONE;
    }
    th->block.hooks = hooks;
    th->block.timers = timers;
    if (status == STM_CONFLICT) {
        stmpy_restore_error(&e);
        return lose(th, error);
    }
    stmpy_fail_wait(th, status, NULL); /* what did not commit must not look as if it had */
    stmpy_chain_error(&e);
    stmpy_roll_back(th);
    return STMPY_FAILED;
}

void stmpy_undo_nest(stmpy_thread *th, const stmpy_nest *nest)
{
    uint32_t hooks = nest->hooks;
    stm_nest_rollback(th->block.txn, &nest->place);
    stmpy_hooks_undo(th, hooks);
    stm_nest_release(th->block.txn);
}

void stmpy_cut_depth(stmpy_thread *th, uint32_t depth)
{
    if (stm_likely(th->block.depth <= depth)) {
        return;
    }
    stmpy_error e;
    stmpy_save_error(&e);
    while (th->block.depth > depth && th->block.depth > 1) {
        const stmpy_nest *nest = stmpy_pop_nest(th);
        stm_state state = stm_txn_state(th->block.txn);
        if (state != STM_DOOMED && state != STM_WAITING) {
            stmpy_undo_nest(th, nest);
        }
    }
    stmpy_close_deeper(th, depth);
    stmpy_restore_error(&e);
}

void stmpy_end_nested(stmpy_thread *th, PyObject *error, const stmpy_options *options)
{
    const stmpy_nest *nest = stmpy_pop_nest(th);
    stm_txn *t = th->block.txn;
    stm_state state = stm_txn_state(t);
    if (stm_unlikely(state == STM_DOOMED || state == STM_WAITING)) {
        return; /* INV-BLOCK-3; its deadline is that of the wait */
    }
    th->block.deadline_ns = nest->deadline_ns;
    if (stm_likely(error == NULL || commits_on(options, error))) {
        stm_nest_commit(t, &nest->place);
        if (stm_unlikely(t->garbage != NULL)) {
            stmpy_error e;
            stmpy_save_error(&e);
            stm_nest_release(t);
            stmpy_restore_error(&e);
        }
        return;
    }
    stmpy_error e;
    stmpy_save_error(&e);
    stmpy_undo_nest(th, nest);
    stmpy_restore_error(&e);
}

/* --- the next attempt -------------------------------------------------------------- */

enum { CELLS_SHOWN = 64 };

/* What it waits for, as numbers: stm/_errors.py looks them up when asked. */
static PyObject *waited_cells(stm_txn *t)
{
    size_t count = stm_txn_reads(t) < CELLS_SHOWN ? stm_txn_reads(t) : CELLS_SHOWN;
    PyObject *cells = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; cells != NULL && i < count; i++) {
        PyObject *number = PyLong_FromVoidPtr(stm_txn_read_cell(t, i));
        if (number == NULL) {
            Py_CLEAR(cells);
            break;
        }
        PyTuple_SET_ITEM(cells, (Py_ssize_t)i, number);
    }
    return cells;
}

/* How long retry may sleep. */
static double park_patience(const stmpy_thread *th)
{
    double seconds = -1;
    if (th->block.deadline_ns != UINT64_MAX) {
        uint64_t now = stm_now_ns();
        seconds = now < th->block.deadline_ns ? (double)(th->block.deadline_ns - now) / 1e9 : 0;
    }
    return stmpy_sooner(stmpy_patience(th), seconds);
}

/* Sleeps until something that the attempt has read changes. */
static int park(stmpy_thread *th)
{
    stm_txn *t = th->block.txn;
    PyObject *cells = waited_cells(t);
    double patience = park_patience(th);
    bool is_late = patience == 0 && stm_txn_attempt(t) > 0; /* whatever has changed since */
    if (cells == NULL || is_late) {
        if (is_late) {
            stmpy_raise_limit(th, true, cells);
        }
        Py_XDECREF(cells);
        stmpy_roll_back(th);
        return -1;
    }
    th->block.depth = 0;
    stm_status status = stm_park(t, patience);
    if (status == STM_MISUSE) {
        stmpy_raise_about(stmpy_transaction_error,
                          "retry() in %U, which has read no transactional state: nothing could "
                          "wake it; read what it waits for inside the block, or give a timeout",
                          th->block.site);
    } else if (status != STM_OK) {
        stmpy_fail_wait(th, status, cells);
    }
    Py_DECREF(cells);
    return status == STM_OK ? 0 : -1;
}

/* Hooks of an attempt that will be repeated, with the record set aside. */
static int hooks_between(stmpy_thread *th)
{
    stmpy_hooks hooks = stmpy_hooks_take(th);
    stmpy_aside room;
    stmpy_set_aside(th, &room, false);
    int status = stmpy_hooks_run(th, &hooks, false);
    stmpy_take_up(th, &room);
    return status;
}

/* Releases what the lost attempt wrote, now and not at the end of the block: it may
 * sleep for long, or be repeated very often. */
static void release_between(stmpy_thread *th)
{
    stm_txn *t = th->block.txn;
    stmpy_aside room;
    stmpy_set_aside(th, &room, false);
    stm_nest_release(t);
    stmpy_take_up(th, &room);
}

int stmpy_next_attempt(stmpy_thread *th)
{
    stmpy_running *b = &th->block;
    bool waits = stm_txn_state(b->txn) == STM_WAITING;
    Py_CLEAR(b->locals);
    stm_unmark(b->txn); /* hooks and finalizers may write what it has read */
    if (!waits && b->options->max_attempts != 0 && ++b->lost >= b->options->max_attempts) {
        stmpy_raise_limit(th, false, NULL);
        stmpy_roll_back(th);
        return -1;
    }
    if (stm_unlikely(b->hooks.count != 0) && hooks_between(th) < 0) {
        stmpy_roll_back(th);
        return -1;
    }
    stm_txn_drop_writes(b->txn);
    stm_nest_forget(b->txn);
    if (b->txn->garbage != NULL) {
        release_between(th);
    }
    if (waits) {
        if (park(th) < 0) {
            return -1;
        }
    } else {
        b->depth = 0;
        stm_status status = stm_restart(b->txn, -1);
        if (status != STM_OK) {
            return stmpy_fail_wait(th, status, NULL);
        }
    }
    b->births = 0;
    b->irrevocable = false;
    b->deadline_ns = UINT64_MAX;
    b->depth = 1;
    return 0;
}

/* --- function blocks ---------------------------------------------------------------- */

/* What a body returned, unless it left a `with` block open (in a generator). */
static PyObject *check_depth(stmpy_thread *th, uint32_t depth, PyObject *result)
{
    if (stm_unlikely(th->block.depth != depth)) {
        stmpy_resume(th, depth);
        stmpy_cut_depth(th, depth);
        th->block.depth = depth;
        stm_state state = stm_txn_state(th->block.txn);
        if (result != NULL && state != STM_DOOMED && state != STM_WAITING) {
            Py_DECREF(result);
            result =
                stmpy_raise_about(stmpy_open_block_error,
                                  "a function ended while an atomic block that it began is open "
                                  "(in a generator?), inside of %U: a block must end in the call "
                                  "that began it",
                                  th->block.site);
        }
    }
    return result;
}

static PyObject *run_nested(stmpy_thread *th, const stmpy_options *options, PyObject *site,
                            stmpy_body body, void *arg)
{
    if (stmpy_enter(th, options, site) < 0) {
        return NULL;
    }
    uint32_t depth = th->block.depth, floor = th->block.floor;
    th->block.floor = depth;
    PyObject *result = check_depth(th, depth, body(th, arg));
    th->block.floor = floor;
    stmpy_end_nested(th, result == NULL ? PyErr_Occurred() : NULL, options);
    return result;
}

PyObject *stmpy_run_block(stmpy_thread *th, const stmpy_options *options, PyObject *site,
                          stmpy_body body, void *arg)
{
    if (th->block.depth > 0) {
        return run_nested(th, options, site, body, arg);
    }
    if (stmpy_enter(th, options, site) < 0) {
        return NULL;
    }
    th->block.can_rerun = true;
    for (;;) {
        th->block.floor = 1;
        PyObject *result = check_depth(th, 1, body(th, arg));
        stmpy_end end = stmpy_end_attempt(th, result == NULL ? PyErr_Occurred() : NULL, options);
        if (stm_likely(end == STMPY_DONE)) {
            return result;
        }
        if (end == STMPY_FAILED) {
            Py_XDECREF(result);
            return NULL;
        }
        PyErr_Clear();
        Py_XDECREF(result);
        if (stmpy_next_attempt(th) < 0) {
            return NULL;
        }
    }
}
