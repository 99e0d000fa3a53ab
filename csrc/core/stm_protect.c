/* The one protected transaction, which cannot lose.
 *
 * Terms.  P: the transaction that holds the slot.  Mark: cell.guard = P's epoch.
 * Epoch: odd while the slot is held; each holder has another one.
 *
 * INV-PROT-1  At most one holder; the slot is granted in order of arrival.
 * INV-PROT-2  No commit but P's publishes a version of a marked cell: P stores
 *             the mark, then looks at the commit lock; a committer takes the
 *             lock, then looks at the mark.  In the one order of these four
 *             (seq_cst) accesses either P sees the lock held, and waits for the
 *             end of that section, or the committer sees the mark.
 * INV-PROT-3  Hence the head of a marked cell, loaded after that, is the latest
 *             value until P ends, and P needs no validation.
 * INV-PROT-4  The end of P (or of its attempt, if that is lost) changes the epoch,
 *             which invalidates all marks.  An
 *             even epoch equals no mark, and epochs never repeat (64 bits).
 * INV-PROT-5  P waits for nobody but the end of one commit section, so those
 *             who wait for P wait for its body only.
 *
 * Lineage: Spear et al.'s OrecFair, CCSTM's barging.
 * Lock order: the mutex here is a leaf; never taken in a commit section.
 * Guarded by tests/core/test_protect.py, tests/anomalies (starvation), and the
 * planted bug IGNORE_GUARD in the model test.
 */
#include "stm_protect.h"

void stm_protect_setup(stm_protect *p)
{
    stm_store(&p->epoch, 0);
    stm_store(&p->holder, NULL);
    stm_store(&p->holder_label, 0);
    stm_store(&p->wanted, 0);
    p->first = NULL;
    p->last = NULL;
    pthread_mutex_init(&p->mutex, NULL);
    stm_cond_setup(&p->ended);
}

void stm_protect_teardown(stm_protect *p)
{
    pthread_cond_destroy(&p->ended);
    pthread_mutex_destroy(&p->mutex);
}

/* Under the mutex, the slot being free. */
static void grant(stm_protect *p, const void *who, uint32_t label)
{
    stm_store(&p->holder, who);
    stm_store(&p->holder_label, label);
    stm_store(&p->epoch, stm_load(&p->epoch) + 1);
}

static bool granted(void *arg)
{
    return ((stm_waiter *)arg)->granted;
}

/* The mutex is held by the caller of stm_wait_until's callbacks only; a label
 * that is a moment old is good enough for a notice. */
typedef struct {
    stm_waiter *waiter;
    stm_protect *protect;
    uint64_t epoch;
} awaited;

static bool slot_granted(void *arg)
{
    return granted(((awaited *)arg)->waiter);
}

static bool epoch_over(void *arg)
{
    awaited *a = arg;
    return stm_load(&a->protect->epoch) != a->epoch;
}

static uint32_t holder_label(void *arg)
{
    return stm_load(&((awaited *)arg)->protect->holder_label);
}

static void enqueue(stm_protect *p, stm_waiter *w)
{
    w->next = NULL;
    if (p->last != NULL) {
        p->last->next = w;
    } else {
        p->first = w;
    }
    p->last = w;
    stm_fetch_add(&p->wanted, 1);
}

static void dequeue(stm_protect *p, stm_waiter *w)
{
    stm_waiter *before = NULL;
    for (stm_waiter *x = p->first; x != w; x = x->next) {
        before = x;
    }
    if (before != NULL) {
        before->next = w->next;
    } else {
        p->first = w->next;
    }
    if (p->last == w) {
        p->last = before;
    }
    stm_fetch_add(&p->wanted, (uint32_t)-1);
}

stm_status stm_protect_acquire(stm_protect *p, const void *who, uint32_t label, stm_waiter *waiter,
                               const stm_wait_limits *limits)
{
    pthread_mutex_lock(&p->mutex);
    bool now = stm_load(&p->holder) == NULL && p->first == NULL;
    if (now) {
        grant(p, who, label);
    } else {
        waiter->who = who;
        waiter->label = label;
        waiter->granted = false;
        enqueue(p, waiter);
    }
    pthread_mutex_unlock(&p->mutex);
    if (now) {
        return STM_OK;
    }
    awaited a = {waiter, p, 0};
    stm_wait_for wait = {&p->mutex, &waiter->cond, slot_granted, holder_label, &a};
    stm_status status = stm_wait_until(&wait, limits);
    if (status != STM_OK) {
        pthread_mutex_lock(&p->mutex);
        bool late = waiter->granted;
        if (!late) {
            dequeue(p, waiter);
        }
        pthread_mutex_unlock(&p->mutex);
        if (late) {
            stm_protect_release(p);
        }
    }
    return status;
}

void stm_protect_release(stm_protect *p)
{
    pthread_mutex_lock(&p->mutex);
    stm_store(&p->holder, NULL);
    stm_store(&p->holder_label, 0);
    stm_store(&p->epoch, stm_load(&p->epoch) + 1);
    stm_waiter *next = p->first;
    if (next != NULL) {
        dequeue(p, next);
        next->granted = true;
        grant(p, next->who, next->label);
        pthread_cond_signal(&next->cond);
    }
    pthread_cond_broadcast(&p->ended);
    pthread_mutex_unlock(&p->mutex);
}

void stm_protect_unmark(stm_protect *p)
{
    pthread_mutex_lock(&p->mutex);
    stm_store(&p->epoch, stm_load(&p->epoch) + 2); /* INV-PROT-4 */
    pthread_cond_broadcast(&p->ended);
    pthread_mutex_unlock(&p->mutex);
}

void stm_protect_fork_child(stm_protect *p, struct stm_txn **own, size_t count)
{
    stm_waiter *all = p->first;
    pthread_mutex_init(&p->mutex, NULL);
    stm_cond_setup(&p->ended);
    p->first = NULL;
    p->last = NULL;
    stm_store(&p->wanted, 0);
    for (stm_waiter *w = all, *next; w != NULL; w = next) {
        next = w->next;
        for (size_t i = 0; i < count; i++) {
            if (w->who == own[i]) {
                enqueue(p, w); /* it forked in a hook of its wait */
                break;
            }
        }
    }
}

stm_status stm_protect_wait(stm_protect *p, uint64_t epoch, stm_waiter *waiter,
                            const stm_wait_limits *limits)
{
    awaited a = {waiter, p, epoch};
    stm_wait_for wait = {&p->mutex, &p->ended, epoch_over, holder_label, &a};
    return stm_wait_until(&wait, limits);
}

void stm_protect_mark_only(stm_protect *p, stm_cell *c)
{
    stm_store(&c->guard, stm_load_rlx(&p->epoch)); /* own epoch: fixed while held */
}

void stm_protect_settle(stm_clock *clock)
{
    if (stm_load(&clock->lock.state) == 0) {
        return;
    }
    uint64_t section = stm_load(&clock->sections);
    for (int i = 0; i < 1000; i++) {
        if (stm_load(&clock->lock.state) == 0 || stm_load(&clock->sections) != section) {
            return;
        }
        stm_pause();
    }
    stm_lock_acquire(&clock->lock); /* its holder was descheduled: park */
    stm_lock_release(&clock->lock);
}

void stm_protect_mark(stm_protect *p, stm_clock *clock, stm_cell *c)
{
    stm_protect_mark_only(p, c);
    stm_protect_settle(clock);
}
