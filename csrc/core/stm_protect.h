/* Layer 5: the one protected transaction, which cannot lose. */
#ifndef STM_PROTECT_H
#define STM_PROTECT_H

#include "stm_cell.h"
#include "stm_clock.h"
#include "stm_wait.h"

typedef struct {
    /* Odd while somebody holds the slot; a cell whose guard equals an odd
     * epoch is protected.  Ending a holder clears all its marks at once. */
    alignas(STM_LINE) _Atomic uint64_t epoch;
    _Atomic(const void *) holder;
    _Atomic uint32_t holder_label;
    alignas(STM_LINE) pthread_mutex_t mutex;
    pthread_cond_t ended; /* broadcast when the epoch changes */
    stm_waiter *first;    /* FIFO of those who want the slot; under mutex */
    stm_waiter *last;
    _Atomic uint32_t wanted; /* waiters in the FIFO */
} stm_protect;

void stm_protect_setup(stm_protect *p);
void stm_protect_teardown(stm_protect *p);

/* Takes the slot, in order of arrival. */
stm_status stm_protect_acquire(stm_protect *p, const void *who, uint32_t label, stm_waiter *waiter,
                               const stm_wait_limits *limits);
void stm_protect_release(stm_protect *p);
/* Clears the marks of the holder, which keeps the slot. */
void stm_protect_unmark(stm_protect *p);
/* In a forked child: the records that still wait for the slot. */
struct stm_txn;
void stm_protect_fork_child(stm_protect *p, struct stm_txn **own, size_t count);
/* Waits until the holder of `epoch` is done. */
stm_status stm_protect_wait(stm_protect *p, uint64_t epoch, stm_waiter *waiter,
                            const stm_wait_limits *limits);
/* After this no commit publishes a version of c before the slot is released
 * but the holder's own, and none is half-way.  Only the holder calls it. */
void stm_protect_mark(stm_protect *p, stm_clock *clock, stm_cell *c);
/* The mark alone: follow a series by stm_protect_settle. */
void stm_protect_mark_only(stm_protect *p, stm_cell *c);
void stm_protect_settle(stm_clock *clock);

/* In a commit section: may cells of a write set be protected at all? */
static inline uint64_t stm_protect_epoch(stm_protect *p)
{
    return stm_load(&p->epoch);
}

static inline bool stm_protect_guards(uint64_t epoch, const stm_cell *c)
{
    return stm_load(&c->guard) == epoch;
}

#endif
