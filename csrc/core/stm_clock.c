/* The version clock and the lock of the commit section.
 *
 * Terms.  Section: the time between acquire and release of the commit lock.
 *
 * INV-CLOCK-1  `now` only grows, and only inside a section.  Every node of a
 *              version <= now is published before `now` says so.
 * INV-CLOCK-2  Nobody blocks, allocates or calls the host inside a section, so
 *              whoever waits for the lock may wait attached to the interpreter:
 *              the holder needs nothing from it.
 *
 * Lock order: protect mutex, park mutex and retire lock are leaves that are never taken
 * inside a section; the commit lock is never taken inside them.
 *
 * Guarded by tests/core/test_threads.py.
 */
#include "stm_clock.h"

#include <time.h>

/* A section takes some 50-200 ns; a pause is 10-50 ns. */
enum { SPINS = 200 };

uint64_t stm_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void stm_lock_setup(stm_lock *l, pthread_mutex_t *mutex, pthread_cond_t *cond)
{
    stm_store(&l->state, 0);
    l->mutex = mutex;
    l->cond = cond;
}

void stm_clock_setup(stm_clock *c)
{
    pthread_mutex_init(&c->park_mutex, NULL);
    pthread_cond_init(&c->park_cond, NULL);
    stm_lock_setup(&c->lock, &c->park_mutex, &c->park_cond);
    stm_store(&c->now, 0);
    stm_store(&c->sections, 0);
    c->births = 0;
    c->horizon = 0;
}

void stm_clock_teardown(stm_clock *c)
{
    pthread_cond_destroy(&c->park_cond);
    pthread_mutex_destroy(&c->park_mutex);
}

void stm_lock_slow(stm_lock *l)
{
    for (int i = 0, wait = 4; i < SPINS; i += wait) {
        /* Each look takes the line away from the holder, who is about to write
         * the clock and to unlock on it. */
        for (int k = 0; k < wait; k++) {
            stm_pause();
        }
        uint32_t free_state = 0;
        if (stm_load_rlx(&l->state) == 0 && stm_cas(&l->state, &free_state, 1)) {
            return;
        }
        wait = wait < 16 ? wait * 2 : 16;
    }
    /* Whoever parks leaves 2 behind, also when it gets the lock: the others
     * that park are then woken by its release. */
    pthread_mutex_lock(l->mutex);
    while (stm_swap(&l->state, 2) != 0) {
        pthread_cond_wait(l->cond, l->mutex);
    }
    pthread_mutex_unlock(l->mutex);
}

void stm_lock_wake(stm_lock *l)
{
    /* The mutex makes sure that a thread which saw "held" is asleep by now. */
    pthread_mutex_lock(l->mutex);
    pthread_cond_signal(l->cond);
    pthread_mutex_unlock(l->mutex);
}
