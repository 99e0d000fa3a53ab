/* Transactions that sleep until something that they read changes.
 *
 * Terms.  Parked: registered with its read set, asleep or about to be.  To grant:
 * to say, under the park mutex, that a parked record may go on.
 *
 * INV-PARK-1  No wake-up is lost: the parker registers, raises `count`, looks at
 *             the commit lock, then at the heads.  A committer takes the lock,
 *             looks at `count`, and pushes.  In the one order of these (seq_cst)
 *             accesses either the parker sees the lock held, waits for the end of
 *             that section and then meets its nodes, or the committer sees the
 *             count, and with it `interest` and the queue, and grants.
 * INV-PARK-2  A record sleeps only if every head of its read set was at or below
 *             rv after it had registered, and everything it read is recorded: a
 *             snapshot, or a declared reader that does not record, goes on at
 *             once (the reader records from then on).
 * INV-PARK-3  Its read set does not change while it is listed, so others read it
 *             under the mutex, and leaving takes back the interest it added.
 * INV-PARK-4  Asleep it announces IDLE and keeps no version alive.  Its cells may
 *             be gone: they are compared as addresses.  Memory that is used again
 *             may wake it for nothing, and it finds out by running.
 * INV-PARK-5  Otherwise a commit wakes only those whose reads it overwrote, all
 *             of them, in the order in which they came.
 * INV-PARK-6  Parking gives up the protected slot.  Its holder reads the heads:
 *             rv is set to the clock before, while nobody may overwrite them.
 *
 * Lock order: the park mutex is a leaf; never taken in a commit section.
 * Guarded by tests/core/test_park.py, tests/core/test_retry.py,
 * tests/core/test_model.py, tests/c.
 */
#include "stm_park.h"

#include "stm_nest.h"
#include "stm_validate.h"

/* Up to FEW reads are scanned, more are indexed; more than MANY count as everything. */
enum { FEW_READS = 16, MANY_READS = 256, INTEREST_SHIFT = 32 - 10 };

_Static_assert(STM_INTEREST == 1 << (32 - INTEREST_SHIFT), "a hash has 32 bits");

void stm_parking_setup(stm_parking *p)
{
    pthread_mutex_init(&p->mutex, NULL);
    p->first = NULL;
    p->last = NULL;
    stm_store(&p->count, 0);
    stm_store(&p->everything, 0);
    for (uint32_t i = 0; i < STM_INTEREST; i++) {
        stm_store_rlx(&p->interest[i], 0); /* published by the next raise of count */
    }
}

void stm_parking_teardown(stm_parking *p)
{
    pthread_mutex_destroy(&p->mutex);
}

static _Atomic uint32_t *interest_in(stm_parking *p, const stm_cell *c)
{
    return &p->interest[stm_hash_pointer(c) >> INTEREST_SHIFT];
}

static void add_interest(stm_parking *p, const stm_txn *t, uint32_t by)
{
    if (t->read_count > MANY_READS) {
        stm_fetch_add(&p->everything, by);
        return;
    }
    for (uint32_t i = 0; i < t->read_count; i++) {
        stm_fetch_add(interest_in(p, t->reads[i]), by);
    }
}

/* --- the queue, under the mutex ------------------------------------------------ */

static void append(stm_parking *p, stm_waiter *w)
{
    w->next = NULL;
    if (p->last != NULL) {
        p->last->next = w;
    } else {
        p->first = w;
    }
    p->last = w;
}

/* Takes out the one after `before` (NULL: the first). */
static void unlink_after(stm_parking *p, stm_waiter *before, stm_waiter *w)
{
    if (before != NULL) {
        before->next = w->next;
    } else {
        p->first = w->next;
    }
    if (p->last == w) {
        p->last = before;
    }
}

static void remove_from_queue(stm_parking *p, stm_waiter *w)
{
    stm_waiter *before = NULL;
    for (stm_waiter *x = p->first; x != NULL; x = x->next) {
        if (x == w) {
            unlink_after(p, before, w);
            return;
        }
        before = x;
    }
}

static void list(stm_parking *p, stm_txn *t)
{
    add_interest(p, t, 1);
    if (!t->waiter.granted) {
        append(p, &t->waiter);
    }
    t->parked.listed = true;
    stm_fetch_add(&p->count, 1);
}

/* --- the parker's side --------------------------------------------------------- */

static void enter(stm_txn *t)
{
    stm_parking *p = &t->domain->parking;
    t->parked.filter = 0;
    for (uint32_t i = 0; i < t->read_count; i++) {
        t->parked.filter |= stm_cell_bit(t->reads[i]);
    }
    if (t->read_count > FEW_READS) {
        stm_index_reads(t); /* no memory: the committer scans them */
    }
    t->waiter.who = t;
    t->waiter.granted = false;
    pthread_mutex_lock(&p->mutex);
    list(p, t);
    pthread_mutex_unlock(&p->mutex);
}

void stm_parking_leave(stm_txn *t)
{
    stm_parking *p = &t->domain->parking;
    pthread_mutex_lock(&p->mutex);
    if (t->parked.listed) {
        t->parked.listed = false;
        remove_from_queue(p, &t->waiter); /* unless it was granted */
        add_interest(p, t, (uint32_t)-1);
        stm_fetch_add(&p->count, (uint32_t)-1);
    }
    pthread_mutex_unlock(&p->mutex);
}

void stm_parking_fork_child(stm_parking *p, stm_txn **own, size_t count)
{
    stm_parking_setup(p);
    for (size_t i = 0; i < count; i++) {
        if (own[i]->parked.listed) {
            list(p, own[i]); /* it forked in a hook of its wait */
        }
    }
}

static bool has_changed(const stm_txn *t)
{
    for (uint32_t i = 0; i < t->read_count; i++) {
        const stm_node *head = stm_load_acq(&t->reads[i]->head); /* after the settle */
        if (head->version > t->rv) {
            return true;
        }
    }
    return false;
}

static bool may_go_on(void *arg)
{
    const stm_txn *t = arg;
    return t->waiter.granted || !t->parked.listed;
}

static stm_status sleep_for_change(stm_txn *t, uint64_t deadline_ns)
{
    stm_wait_limits limits = stm_txn_limits(t);
    limits.deadline_ns = deadline_ns;
    limits.waits = &t->counters.parks;
    limits.waited_ns = &t->counters.parked_ns;
    stm_wait_for wait = {&t->domain->parking.mutex, &t->waiter.cond, may_go_on, NULL, t};
    stm_status status = stm_wait_until(&wait, &limits);
    if (status == STM_OK) {
        stm_count(&t->counters.wakes, 1);
    }
    return status;
}

static stm_status wait_for_change(stm_txn *t, uint64_t deadline_ns)
{
    stm_status status = STM_OK;
    enter(t);
    stm_protect_settle(&t->domain->clock);
    if (!has_changed(t)) {
        stm_store_rel(&t->slot.active, STM_SLOT_IDLE); /* all reads are done */
        status = sleep_for_change(t, deadline_ns);
    }
    stm_parking_leave(t);
    return status;
}

stm_status stm_retry(stm_txn *t)
{
    if (t->state == STM_IDLE) {
        return STM_MISUSE;
    }
    if (t->state != STM_DOOMED && t->state != STM_WAITING) {
        t->before_retry = t->state;
        t->state = STM_WAITING;
        t->below = 0;
    }
    return STM_CONFLICT;
}

/* Ends the attempt but for its reads.  True: they are all it has read. */
static bool give_up_attempt(stm_txn *t)
{
    stm_count(&t->counters.by_cause[STM_CAUSE_RETRY], 1);
    t->conflict =
        (stm_conflict){.cause = STM_CAUSE_RETRY, .loser_label = t->label, .attempt = t->attempt};
    stm_txn_drop_writes(t);
    stm_nest_forget(t);
    stm_txn_unwant_log(t);
    if (t->has_slot) {
        if (t->before_retry == STM_PROTECTED) {
            t->rv = stm_load(&t->domain->clock.now); /* INV-PARK-6 */
        }
        t->has_slot = false;
        stm_protect_release(&t->domain->protect);
    }
    bool is_reader = t->before_retry == STM_READER && !t->records_all;
    t->records_all = (t->flags & STM_BEGIN_READ_ONLY) != 0;
    return t->before_retry != STM_SNAPSHOT && !is_reader;
}

stm_status stm_park(stm_txn *t, double timeout_s)
{
    if (t->state != STM_WAITING) {
        return STM_MISUSE;
    }
    uint64_t deadline_ns = stm_txn_deadline(timeout_s);
    if (t->deadline_ns < deadline_ns) {
        deadline_ns = t->deadline_ns;
    }
    stm_status status = STM_OK;
    if (!give_up_attempt(t)) {
        status = stm_txn_expired(t, timeout_s) ? STM_TIMEOUT : STM_OK;
    } else if (t->read_count == 0 && deadline_ns == UINT64_MAX) {
        status = STM_MISUSE;
    } else {
        status = wait_for_change(t, deadline_ns);
    }
    if (t->state != STM_WAITING) {
        return STM_MISUSE; /* abandoned in its sleep: not this thread's any more */
    }
    if (status != STM_OK) {
        stm_txn_finish(t);
        return status;
    }
    stm_store_rel(&t->slot.active, STM_SLOT_IDLE);
    stm_txn_forget_reads(t);
    t->attempt++;
    stm_txn_next_attempt(t);
    return STM_OK;
}

/* --- the committer's side ------------------------------------------------------ */

static bool has_read(const stm_txn *t, const stm_cell *c)
{
    if ((t->parked.filter & stm_cell_bit(c)) == 0) {
        return false;
    }
    if (t->read_count > FEW_READS && t->indexed == t->read_count) {
        return stm_has_read(t, c);
    }
    for (uint32_t i = 0; i < t->read_count; i++) {
        if (t->reads[i] == c) {
            return true;
        }
    }
    return false;
}

/* Goes through the smaller set and looks into the other. */
static bool is_overwritten(const stm_txn *t, const stm_buffered *writes, uint32_t count,
                           const stm_map *index)
{
    if (index == NULL || count <= t->read_count) {
        for (uint32_t i = 0; i < count; i++) {
            if (writes[i].cell != NULL && has_read(t, writes[i].cell)) {
                return true;
            }
        }
        return false;
    }
    for (uint32_t i = 0; i < t->read_count; i++) {
        uint32_t at = stm_map_get(index, t->reads[i]);
        if (at < count && writes[at].cell == t->reads[i]) {
            return true;
        }
    }
    return false;
}

static bool is_interesting(stm_parking *p, const stm_buffered *writes, uint32_t count)
{
    /* Relaxed: what was added before the `count` that this commit saw is seen. */
    bool found = stm_load_rlx(&p->everything) != 0;
    for (uint32_t i = 0; i < count && !found; i++) {
        found = writes[i].cell != NULL && stm_load_rlx(interest_in(p, writes[i].cell)) != 0;
    }
    return found;
}

void stm_parking_wake(stm_parking *p, uint64_t version, const stm_buffered *writes, uint32_t count,
                      const stm_map *index)
{
    if (!is_interesting(p, writes, count)) {
        return;
    }
    pthread_mutex_lock(&p->mutex);
    stm_waiter *before = NULL;
    stm_waiter *next;
    for (stm_waiter *w = p->first; w != NULL; w = next) {
        next = w->next;
        const stm_txn *t = w->who;
        /* At rv >= version it read what this commit wrote, and waits for the next. */
        if (t->rv < version && is_overwritten(t, writes, count, index)) {
            unlink_after(p, before, w);
            w->granted = true;
            ((stm_txn *)(uintptr_t)w->who)->parked.granted_as = ++p->grants;
            pthread_cond_signal(&w->cond);
        } else {
            before = w;
        }
    }
    pthread_mutex_unlock(&p->mutex);
}
