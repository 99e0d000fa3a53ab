/* The public interface of the core: explicit domains, transactions and cells.
 *
 * This file is the C header and, with its preprocessor lines removed, the cffi
 * cdef.  Nothing here knows about Python.  Every function takes the transaction
 * it works on; none uses thread-local state, so one OS thread may drive many
 * transactions in any interleaving.  One transaction must not be used by two
 * threads at once.
 */
#ifndef STM_API_H
#define STM_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An opaque handle.  The host owns one reference per handle it passes in. */
typedef uintptr_t stm_value;

typedef struct stm_domain stm_domain;
typedef struct stm_txn stm_txn;
typedef struct stm_cell stm_cell;

typedef enum {
    STM_OK = 0,
    STM_CONFLICT = 1,    /* the attempt is doomed (stm_restart or stm_rollback) or waits */
    STM_NO_MEMORY = 2,   /* nothing was changed; the attempt goes on */
    STM_TIMEOUT = 3,     /* a wait reached its deadline; nothing was changed */
    STM_INTERRUPTED = 4, /* the host's attach hook asked to stop waiting */
    STM_READ_ONLY = 5,   /* a write in a block declared read-only */
    STM_MISUSE = 6       /* called in a state that does not allow it */
} stm_status;

/* Why an attempt ended without a commit. */
typedef enum {
    STM_CAUSE_NONE = 0,
    STM_CAUSE_READ = 1,           /* what it had read was overwritten; seen at a read */
    STM_CAUSE_COMMIT = 2,         /* the same, seen at commit */
    STM_CAUSE_STALE_START = 3,    /* began behind the clock and could not catch up */
    STM_CAUSE_SNAPSHOT_WRITE = 4, /* wrote after falling back to a snapshot */
    STM_CAUSE_UPGRADE = 5,        /* became irrevocable with a stale read set */
    STM_CAUSE_USER = 6,           /* the host rolled it back (an exception) */
    STM_CAUSE_INJECTED = 7,       /* a fault asked for by a test */
    STM_CAUSE_RETRY = 8,          /* the host asked to wait for a change (stm_retry) */
    STM_CAUSE_COUNT = 9
} stm_cause;

typedef enum {
    STM_BEGIN_READ_ONLY = 1, /* never aborts; writes are refused */
    STM_BEGIN_PROTECTED = 2, /* take the protected slot first; never aborts */
    STM_INTERRUPTIBLE = 4    /* waits wake up now and then to ask the host */
} stm_begin_flag;

typedef enum {
    STM_IDLE = 0,
    STM_ACTIVE = 1,
    STM_SNAPSHOT = 2,  /* reads at a fixed version; a write dooms it */
    STM_READER = 3,    /* declared read-only */
    STM_PROTECTED = 4, /* marks what it reads; cannot lose */
    STM_DOOMED = 5,
    STM_WAITING = 6 /* stm_retry was called: stm_nest_rollback revives, stm_park sleeps */
} stm_state;

/* What a cell holds. */
typedef enum {
    STM_CELL_HANDLE = 0, /* handles, released through the host's hook */
    STM_CELL_RAW = 1     /* plain integers (sizes, shapes), never released */
} stm_cell_kind;

/* Bugs that tests plant to see that they are caught (stm_domain_plant). */
typedef enum {
    STM_BUG_SKIP_EXTEND = 1,     /* an extension does not validate */
    STM_BUG_SKIP_COMMIT = 2,     /* the commit does not validate its tail */
    STM_BUG_OLD_HEAD = 4,        /* use the head loaded before an extension */
    STM_BUG_NO_FLOOR = 8,        /* begin ignores the trim floor */
    STM_BUG_IGNORE_GUARD = 16,   /* commit over the protected transaction's reads */
    STM_BUG_STALE_SNAPSHOT = 32, /* fall back to a snapshot older than the block */
    STM_FAULT_ABORT_COMMITS = 64 /* not a bug: every first attempt loses */
} stm_bug;

typedef struct {
    /* Gives up one reference to a handle.  Called outside every lock, with the
     * transaction idle; may run arbitrary code, also new transactions. */
    void (*release)(stm_value value);
    /* Called around every wait.  attach returns non-zero to end the wait. */
    void *(*detach)(void);
    int (*attach)(void *token);
    /* Called (attached) once per wait that lasts longer than some seconds. */
    void (*long_wait)(uint32_t holder_label, double seconds);
} stm_hooks;

/* What doomed an attempt. */
typedef struct {
    stm_cause cause;
    /* NULL where no single cell is to blame.  May be gone once the attempt has
     * been restarted or rolled back: compare it, don't use it. */
    stm_cell *cell;
    uint64_t version;      /* the commit that overwrote it */
    uint32_t writer_label; /* 0: not known any more */
    uint32_t writer_thread;
    uint32_t loser_label;
    uint32_t attempt;
} stm_conflict;

typedef struct {
    uint64_t commits;   /* blocks that committed, read-only ones included */
    uint64_t read_only; /* of these, blocks that wrote nothing */
    uint64_t attempts;  /* executions of blocks */
    uint64_t aborts;    /* attempts that ended without a commit */
    uint64_t aborts_by_cause[9];
    uint64_t extensions;
    uint64_t protected_attempts; /* attempts that ran in the protected slot */
    uint64_t upgrades;           /* blocks made irrevocable half-way */
    uint64_t waits;              /* waits for the protected transaction or its slot */
    double seconds_waited;
    uint64_t parks;      /* sleeps of stm_park */
    uint64_t wakes;      /* of these, ended by a commit */
    uint64_t parked;     /* transactions that sleep in stm_park now */
    double seconds_lost; /* in attempts that lost a conflict */
    uint64_t clock;
    uint64_t transactions; /* transaction records that exist (free ones too) */
    uint64_t nodes;        /* versions that exist, buffered ones included */
    uint64_t retired;      /* dead objects that wait for running transactions */
} stm_stats;

/* What the last wait of a transaction was for. */
typedef struct {
    bool for_change;       /* in stm_park; else for the protected transaction */
    uint32_t holder_label; /* of the protected transaction at that time */
    double seconds;        /* all waits of this block together */
} stm_wait_info;

/* A place in the write set to go back to; kept by the host, used in LIFO order. */
typedef struct {
    uint32_t writes;
    uint32_t undos;
    uint32_t serial;
    uint32_t outer_serial;
} stm_savepoint;

/* --- domains ------------------------------------------------------------- */

/* log_entries is rounded up to a power of two (at least 4).  hooks may be NULL
 * and must outlive the domain.  NULL when there is no memory. */
stm_domain *stm_domain_new(const stm_hooks *hooks, uint32_t log_entries);
/* All transactions must be idle and all cells freed. */
void stm_domain_free(stm_domain *d);
uint64_t stm_domain_clock(stm_domain *d);
void stm_domain_plant(stm_domain *d, uint32_t bugs);
void stm_domain_set_lost_limit(stm_domain *d, uint32_t lost_attempts);
/* A fault for tests: the first n attempts of every block lose, if they can. */
void stm_domain_inject_aborts(stm_domain *d, uint32_t n);
void stm_domain_stats(stm_domain *d, stm_stats *out);
/* Cuts every version and frees every retired object that no running
 * transaction can need.  t is idle or NULL. */
void stm_domain_collect(stm_domain *d);
/* A number for a label, for ever; 0 for none (or too many, or no memory). */
uint32_t stm_label_intern(stm_domain *d, const char *text);
const char *stm_label_text(stm_domain *d, uint32_t label);
/* In the child of a fork(), first of all.  own: the records of the forking thread,
 * some of which may be in a wait; all others are made idle.  While forking, no other thread may
 * be inside the core but in a wait: the host sees to that (its global lock, or
 * by stopping its threads). */
void stm_domain_fork_child(stm_domain *d, stm_txn **own, size_t count);

/* The n-th allocation of the core from now on fails once (0: none).  For tests. */
void stm_fault_arm(int64_t n);

/* --- transactions -------------------------------------------------------- */

stm_txn *stm_txn_new(stm_domain *d);
/* Rolls back if need be and hands the record back for reuse. */
void stm_txn_free(stm_txn *t);
stm_status stm_begin(stm_txn *t, uint32_t flags, uint32_t label, double timeout_s);
stm_status stm_commit(stm_txn *t);
/* After STM_CONFLICT: drops the attempt and begins the next one, in the
 * protected slot after lost_limit lost attempts.  timeout_s >= 0 sets another
 * deadline.  Anything but STM_OK: the block has ended. */
stm_status stm_restart(stm_txn *t, double timeout_s);
void stm_rollback(stm_txn *t);
/* Makes the rest of the block run exactly once.  STM_CONFLICT: restart; the
 * slot is kept, so that it happens at most once. */
stm_status stm_make_irrevocable(stm_txn *t, double timeout_s);
/* After STM_CONFLICT: a protected attempt that is lost gives up the marks of what it
 * has read, not the slot. */
void stm_unmark(stm_txn *t);
/* Dooms the attempt from outside the algorithm. */
void stm_doom(stm_txn *t, stm_cause cause);
stm_state stm_txn_state(stm_txn *t);
uint32_t stm_txn_attempt(stm_txn *t); /* 0: the first */
uint64_t stm_txn_read_version(stm_txn *t);
size_t stm_txn_reads(stm_txn *t);
/* For messages: compare it, don't use it.  i < stm_txn_reads(t). */
stm_cell *stm_txn_read_cell(stm_txn *t, size_t i);
/* Which wake-up of the domain ended its last sleep, counted from 1; 0: none. */
uint64_t stm_txn_woken(stm_txn *t);
void stm_txn_wait_info(stm_txn *t, stm_wait_info *out);
size_t stm_txn_writes(stm_txn *t);
void stm_txn_conflict(stm_txn *t, stm_conflict *out);

/* --- nesting and waiting ---------------------------------------------------- */

/* Begins a nested block: remembers the write set as it is.  The end of the attempt
 * ends all nested blocks; ending one ends those in it. */
stm_status stm_nest_begin(stm_txn *t, stm_savepoint *s);
/* Ends it: what it wrote is now the outer block's. */
void stm_nest_commit(stm_txn *t, const stm_savepoint *s);
/* Ends it and undoes what it wrote; its reads stay in the read set.  After
 * stm_retry the attempt goes on; one that is doomed stays so. */
void stm_nest_rollback(stm_txn *t, const stm_savepoint *s);
/* Releases the values that nested blocks and lost attempts gave up (else the end of
 * the block does).  Not inside a wait; while an attempt runs, the release hook may
 * use the transaction. */
void stm_nest_release(stm_txn *t);
/* Gives the attempt up until something that it has read changes.  STM_CONFLICT, as
 * from everything until then: the host unwinds to stm_nest_rollback or stm_park (if
 * the state is STM_WAITING; an attempt that was doomed stays so). */
stm_status stm_retry(stm_txn *t);
/* After stm_retry: drops the attempt, sleeps until a commit overwrites something
 * that it has read, and begins the next one (at once, if not all it read is known).
 * Gives up the protected slot.  timeout_s >= 0: a deadline for this sleep besides
 * the block's own.  STM_MISUSE: it had read nothing, so that nothing could wake it,
 * and has no deadline.  Anything but STM_OK: the block has ended, unless the state
 * was not STM_WAITING. */
stm_status stm_park(stm_txn *t, double timeout_s);

/* --- cells --------------------------------------------------------------- */

stm_cell *stm_cell_new(stm_domain *d, stm_cell_kind kind, stm_value initial);
/* Nobody can reach the cell any more but read and write sets. */
void stm_cell_free(stm_domain *d, stm_cell *c);
/* The value stays valid until the transaction ends or writes the cell, or until a
 * nested block that wrote it is undone and the value released. */
stm_status stm_read(stm_txn *t, stm_cell *c, stm_value *out);
/* The same without recording it: the caller is protected by another read. */
stm_status stm_peek(stm_txn *t, stm_cell *c, stm_value *out, uint64_t *born);
/* On STM_OK the core owns value, and *replaced is the handle that this
 * transaction had buffered before and the caller now owns (0: none, or one that
 * the end of a nested block may bring back). */
stm_status stm_write(stm_txn *t, stm_cell *c, stm_value value, stm_value *replaced);
/* A write that also says when the mapping was born: see stm_access.c. */
stm_status stm_write_born(stm_txn *t, stm_cell *c, stm_value value, uint64_t born,
                          stm_value *replaced);
/* Adds to a STM_CELL_RAW cell without reading it: commutes with other adds. */
stm_status stm_add(stm_txn *t, stm_cell *c, int64_t delta);
/* The latest committed value outside of any block.  Between pin and unpin no
 * version that can be returned is freed; each read is the newest for itself. */
void stm_pin(stm_txn *t);
stm_value stm_pinned_read(stm_txn *t, stm_cell *c);
void stm_unpin(stm_txn *t);
uint64_t stm_cell_versions(stm_cell *c);

#endif
