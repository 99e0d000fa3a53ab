/* Layer 4: sleeping until another thread says so. */
#ifndef STM_WAIT_H
#define STM_WAIT_H

#include "stm_api.h"
#include "stm_atomic.h"
#include "stm_platform.h"

/* One sleeper; part of its transaction record, so that waiting allocates nothing. */
typedef struct stm_waiter {
    pthread_cond_t cond;
    struct stm_waiter *next;
    const void *who;
    uint32_t label;
    bool granted; /* under the mutex of what it waits for */
} stm_waiter;

/* What a record's last wait was, and how long all waits of its block took. */
typedef struct {
    bool for_change;
    uint32_t holder_label;
    uint64_t ns;
} stm_wait_note;

typedef struct {
    const stm_hooks *hooks;
    uint64_t deadline_ns; /* on the monotonic clock; UINT64_MAX: none */
    bool interruptible;
    _Atomic uint64_t *waits;
    _Atomic uint64_t *waited_ns;
    stm_wait_note *note;
} stm_wait_limits;

/* Sleeps, detached from the host, until done(arg) (called with the mutex held).
 * Signalled through `cond`.  who_blocks gives the label for a long wait; NULL
 * where nobody is to blame for one, so that there is no notice. */
typedef struct {
    pthread_mutex_t *mutex;
    pthread_cond_t *cond;
    bool (*done)(void *arg);
    uint32_t (*who_blocks)(void *arg);
    void *arg;
} stm_wait_for;

stm_status stm_wait_until(const stm_wait_for *w, const stm_wait_limits *limits);

#endif
