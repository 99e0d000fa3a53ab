/* Layer 6: a domain, a transaction record, and the life of an attempt. */
#ifndef STM_TXN_H
#define STM_TXN_H

#include "stm_epoch.h"
#include "stm_log.h"
#include "stm_park.h"
#include "stm_protect.h"
#include "stm_vec.h"

enum { STM_LABELS = 4096 };

struct stm_domain {
    stm_clock clock;
    stm_protect protect;
    stm_epoch epoch;
    stm_parking parking;
    alignas(STM_LINE) stm_log log; /* read-mostly from here on */
    stm_hooks hooks;
    _Atomic uint32_t bugs;
    _Atomic uint32_t lost_limit; /* K: lost attempts before the protected slot */
    _Atomic uint32_t inject;     /* a fault: so many attempts of each block lose */
    uint64_t first_ticks;
    uint64_t first_ns;
    _Atomic(char *) labels[STM_LABELS]; /* append-only; written under label_mutex */
    uint32_t label_count;
    pthread_mutex_t label_mutex;
    /* Of nodes that no record made or freed. */
    _Atomic uint64_t nodes_made;
    _Atomic uint64_t nodes_freed;
};

/* Written by the record's user only, read by stm_domain_stats. */
typedef struct {
    _Atomic uint64_t commits;
    _Atomic uint64_t read_only;
    _Atomic uint64_t attempts;
    _Atomic uint64_t by_cause[STM_CAUSE_COUNT];
    _Atomic uint64_t extensions;
    _Atomic uint64_t protected_attempts;
    _Atomic uint64_t upgrades;
    _Atomic uint64_t waits;
    _Atomic uint64_t waited_ns;
    _Atomic uint64_t parks;
    _Atomic uint64_t parked_ns;
    _Atomic uint64_t wakes;
    _Atomic uint64_t lost_ticks;
} stm_counters;

/* Direct-mapped memory of recent reads: position in the read set by hash.  An
 * entry is right if the read set says so, so nothing has to be cleared. */
enum { STM_FILTER = 256 };

struct stm_txn {
    stm_slot slot; /* the line that others read */

    /* What every read needs, on one line. */
    alignas(STM_LINE) uint64_t below; /* heads older than this are read at once: rv + 1,
                                         or 0 where the slow path has to decide */
    uint64_t write_filter;            /* one bit per hash of a written cell */
    stm_cell **reads;
    uint32_t read_count;
    uint32_t read_limit; /* the slow path is due: full, or time to look around */
    stm_state state;
    uint32_t write_count;
    uint64_t rv;
    uint64_t last;  /* the newest version this record has seen */
    uint32_t nest;  /* serial of the open nested block (stm_nest.c); 0: none is */
    uint32_t nests; /* serials given out in this attempt */

    alignas(STM_LINE) stm_domain *domain;
    stm_buffered *writes;
    uint32_t write_capacity;
    uint32_t read_capacity;
    stm_undo *undos;
    uint32_t undo_count;
    uint32_t undo_capacity;
    stm_magazine magazine;
    stm_node *garbage;  /* chains to release when the block has ended, or earlier
                           by stm_nest_release */
    uint64_t started;   /* ticks */
    uint64_t next_look; /* ticks: when a long attempt extends by itself */
    uint64_t look_step;
    uint64_t deadline_ns;
    uint32_t flags;
    uint32_t label;
    uint32_t attempt;
    uint32_t lost;
    uint32_t indexed; /* reads that read_index knows */
    uint32_t quiet;   /* scans in a row that found nobody else */
    uint32_t until_scan;
    bool fresh;    /* rv was taken from the clock since the block began */
    bool has_slot; /* holds the protected slot */
    bool pinned;
    bool wants_log;   /* counted in log.wanted */
    bool records_all; /* a declared reader that waits: see stm_park.c */
    bool must_wake;   /* somebody was parked while this commit was in its section */
    stm_state before_retry;
    stm_wait_note wait;
    stm_parked parked;
    stm_trim_queue trim;
    stm_map read_index;
    stm_map write_index; /* used when write_count > STM_FEW_WRITES */
    stm_waiter waiter;
    stm_conflict conflict;
    stm_counters counters;
    uint32_t filter[STM_FILTER];
};

enum { STM_FEW_WRITES = 8 };

static inline uint64_t stm_cell_bit(const stm_cell *c)
{
    return (uint64_t)1 << (((uintptr_t)c >> 6) & 63);
}

/* The attempt is over as far as its outcome goes; returns STM_CONFLICT. */
stm_status stm_txn_doom(stm_txn *t, stm_cause cause, stm_cell *c, uint64_t version);
/* Ends the block: nobody sees the record as running, the slot is given up,
 * what became garbage is released. */
void stm_txn_finish(stm_txn *t);
void stm_txn_drop_writes(stm_txn *t);
/* Begins the next attempt of the block, at the clock. */
void stm_txn_next_attempt(stm_txn *t);
/* Forgets the reads, and what nested blocks remember. */
void stm_txn_forget_reads(stm_txn *t);
/* Nothing of a long read set has to be listed in the log any more. */
void stm_txn_unwant_log(stm_txn *t);
/* Has the block's own deadline passed?  timeout_s >= 0 stands in its place. */
bool stm_txn_expired(const stm_txn *t, double timeout_s);
stm_wait_limits stm_txn_limits(stm_txn *t);
/* In nanoseconds of the monotonic clock; negative: never. */
uint64_t stm_txn_deadline(double timeout_s);
/* Fixes rv at the clock, as a promise that holds until the attempt ends. */
void stm_txn_set_rv(stm_txn *t, uint64_t rv);

#endif
