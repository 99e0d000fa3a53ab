/* Sleeping until another thread says so.
 *
 * INV-WAIT-1  The mutex is never held while detaching from or attaching to the
 *             host: attaching may wait for a thread that wants the mutex.
 * INV-WAIT-2  Conditions are checked under the mutex under which they change,
 *             so no wake-up is lost.
 * INV-WAIT-3  An interruptible sleeper asks the host every SLICE; the others
 *             sleep until they are woken, the deadline, or the long-wait notice.
 *
 * Guarded by tests/core/test_protect.py, tests/core/test_park.py.
 */
#include "stm_wait.h"

static const uint64_t SLICE_NS = 50000000u;       /* Ctrl-C is answered in 0.05 s */
static const uint64_t LONG_WAIT_NS = 5000000000u; /* worth a notice */

/* How long to sleep now. */
static uint64_t nap(const stm_wait_limits *limits, uint64_t now, uint64_t start, bool told)
{
    uint64_t ns = limits->interruptible ? SLICE_NS : 3600000000000u;
    if (limits->deadline_ns - now < ns) {
        ns = limits->deadline_ns - now;
    }
    if (!told && start + LONG_WAIT_NS > now && start + LONG_WAIT_NS - now < ns) {
        ns = start + LONG_WAIT_NS - now;
    }
    return ns;
}

/* One stretch of sleep.  True: done. */
static bool sleep_once(const stm_wait_for *w, const stm_wait_limits *limits, uint64_t start,
                       bool told)
{
    pthread_mutex_lock(w->mutex);
    bool done;
    while (!(done = w->done(w->arg))) {
        uint64_t now = stm_now_ns();
        if (now >= limits->deadline_ns || (!told && now >= start + LONG_WAIT_NS)) {
            break;
        }
        uint64_t ns = nap(limits, now, start, told);
        stm_cond_wait_ns(w->cond, w->mutex, ns);
        if (limits->interruptible) {
            done = w->done(w->arg);
            break;
        }
    }
    pthread_mutex_unlock(w->mutex);
    return done;
}

/* The last one that was seen: it may be gone by now. */
static void note_holder(const stm_wait_for *w, stm_wait_note *note)
{
    uint32_t label = w->who_blocks == NULL ? 0 : w->who_blocks(w->arg);
    if (label != 0) {
        note->holder_label = label;
    }
}

stm_status stm_wait_until(const stm_wait_for *w, const stm_wait_limits *limits)
{
    const stm_hooks *hooks = limits->hooks;
    uint64_t start = stm_now_ns();
    bool told = w->who_blocks == NULL;
    stm_status status = STM_TIMEOUT;
    stm_count(limits->waits, 1);
    limits->note->for_change = w->who_blocks == NULL;
    limits->note->holder_label = 0;
    for (;;) {
        note_holder(w, limits->note);
        void *token = hooks != NULL && hooks->detach != NULL ? hooks->detach() : NULL;
        bool done = sleep_once(w, limits, start, told);
        int stop = hooks != NULL && hooks->attach != NULL ? hooks->attach(token) : 0;
        uint64_t now = stm_now_ns();
        if (stop != 0) { /* also when done: the host has an interrupt to handle */
            status = STM_INTERRUPTED;
            break;
        }
        if (done) {
            status = STM_OK;
            break;
        }
        if (now >= limits->deadline_ns) {
            break;
        }
        if (!told && now >= start + LONG_WAIT_NS) {
            told = true;
            if (hooks != NULL && hooks->long_wait != NULL) {
                hooks->long_wait(w->who_blocks(w->arg), (double)(now - start) / 1e9);
            }
        }
    }
    uint64_t spent = stm_now_ns() - start;
    stm_count(limits->waited_ns, spent);
    limits->note->ns += spent;
    return status;
}
