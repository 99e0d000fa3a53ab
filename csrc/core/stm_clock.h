/* Layer 1: the version clock and the lock of the commit section. */
#ifndef STM_CLOCK_H
#define STM_CLOCK_H

#include <pthread.h>

#include "stm_atomic.h"

/* Spins briefly, then parks.  `state` is 0 free, 1 held, 2 held and somebody parks. */
typedef struct {
    _Atomic uint32_t state;
    /* Only touched by those who park or wake: off the hot line. */
    pthread_mutex_t *mutex;
    pthread_cond_t *cond;
} stm_lock;

/* One line, touched once per commit: lock, clock, and what only the holder of
 * the lock writes. */
typedef struct {
    alignas(STM_LINE) stm_lock lock;
    _Atomic uint64_t now;      /* the newest published version; written under lock */
    _Atomic uint64_t sections; /* commit sections ended; written under lock */
    uint64_t births;           /* mappings born so far; under lock */
    uint64_t horizon;          /* m of DESIGN 4.4: no transaction reads below; under lock */
    alignas(STM_LINE) pthread_mutex_t park_mutex;
    pthread_cond_t park_cond;
} stm_clock;

void stm_clock_setup(stm_clock *c);
void stm_clock_teardown(stm_clock *c);
void stm_lock_setup(stm_lock *l, pthread_mutex_t *mutex, pthread_cond_t *cond);
void stm_lock_slow(stm_lock *l);
void stm_lock_wake(stm_lock *l);

/* What the owner did before unlocking is visible after locking (acquire by the
 * exchange); seq_cst because stm_protect.c relies on one order with its marks. */
static inline void stm_lock_acquire(stm_lock *l)
{
    uint32_t free_state = 0;
    /* A look before the exchange: one that fails takes the line from the holder. */
    if (stm_unlikely(stm_load_rlx(&l->state) != 0 || !stm_cas(&l->state, &free_state, 1))) {
        stm_lock_slow(l);
    }
}

static inline void stm_lock_release(stm_lock *l)
{
    if (stm_unlikely(stm_swap(&l->state, 0) == 2)) {
        stm_lock_wake(l);
    }
}

/* Ends a section: a new count tells that all it published is there (release,
 * pairs with the load of stm_protect_settle). */
static inline void stm_section_end(stm_clock *c)
{
    stm_store_rel(&c->sections, stm_load_rlx(&c->sections) + 1);
    stm_lock_release(&c->lock);
}

#endif
