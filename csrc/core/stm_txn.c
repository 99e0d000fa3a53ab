/* The life of an attempt: begin, doom, restart, finish.
 *
 * Terms.  Block: what the host wants to run atomically.  Attempt: one
 * execution of it.  Record: the stm_txn; a thread keeps one and reuses it.
 *
 * INV-TXN-1  A record announces `active` <= rv before it reads anything, and
 *            until the attempt has ended (INV-EPOCH-1 says why that is enough).
 * INV-TXN-2  begin may start behind the clock: a head that is newer than rv is
 *            met by extending first, and a head that is not newer has not
 *            changed since.  So what was committed before the block began is
 *            always seen; the first read decides, not the begin.
 * INV-TXN-3  A doomed attempt reads, writes and commits nothing more: every
 *            function answers STM_CONFLICT until restart or rollback.  So does
 *            one that waits, until it is revived (stm_nest.c) or parks.
 * INV-TXN-4  The host's release hook runs when the record is idle and holds no
 *            slot; it may use the record for another block.  (Or when the host
 *            asks for it in the middle of one: INV-NEST-5.)
 * INV-TXN-5  The protected slot is held from begin (or upgrade) to the end of
 *            the block; a restart keeps it, only parking gives it up.
 *
 * Guarded by tests/core/test_model.py, tests/core/test_txn.py.
 */
#include "stm_txn.h"

#include "stm_domain.h"
#include "stm_nest.h"

/* Ticks are about nanoseconds, within a factor of four everywhere. */
static const uint64_t FIRST_LOOK_TICKS = 200000;
enum { FIRST_READS = 64, KEEP_READS = 1 << 16, KEEP_WRITES = 1 << 14 };

stm_txn *stm_txn_new(stm_domain *d)
{
    stm_slot *slot = stm_slot_reuse(&d->epoch.slots);
    if (slot != NULL) {
        return (stm_txn *)slot;
    }
    stm_txn *t = stm_alloc_lines(sizeof(*t));
    if (t == NULL) {
        return NULL;
    }
    t->domain = d;
    t->state = STM_IDLE;
    stm_trim_setup(&t->trim);
    stm_cond_setup(&t->waiter.cond);
    t->last = stm_load(&d->clock.now);
    stm_slot_add(&d->epoch.slots, &t->slot);
    return t;
}

void stm_txn_free(stm_txn *t)
{
    stm_domain *d = t->domain;
    if (t->state != STM_IDLE) {
        stm_rollback(t);
    }
    stm_parking_leave(t);
    stm_magazine_release(&t->magazine);
    free(t->reads);
    free(t->writes);
    free(t->undos);
    t->reads = NULL;
    t->writes = NULL;
    t->undos = NULL;
    t->undo_capacity = 0;
    t->read_capacity = 0;
    t->read_limit = 0;
    t->write_capacity = 0;
    stm_map_release(&t->read_index);
    stm_map_release(&t->write_index);
    stm_slot_hand_back(&d->epoch.slots, &t->slot);
}

void stm_txn_set_rv(stm_txn *t, uint64_t rv)
{
    t->rv = rv;
    t->last = rv;
    t->below = rv + 1;
    /* Only raises what was announced; a scan that still sees the old value
     * keeps more than it needs to. */
    stm_store_rel(&t->slot.active, rv);
}

/* INV-EPOCH-1: publish, then read the floor. */
static void announce(stm_txn *t, bool at_clock)
{
    stm_domain *d = t->domain;
    uint64_t rv = t->last;
    stm_store_rel(&t->slot.began, rv);
    stm_store(&t->slot.active, rv);
    bool ignore = (stm_load_rlx(&d->bugs) & STM_BUG_NO_FLOOR) != 0;
    t->fresh = at_clock;
    if (at_clock || (!ignore && stm_load(&d->epoch.floor) > rv)) {
        /* The first store keeps everything from `last` on, so the clock may be
         * read and published without looking at the floor again. */
        rv = stm_load(&d->clock.now);
        t->fresh = true;
        stm_store_rel(&t->slot.began, rv);
        stm_store_rel(&t->slot.active, rv);
        t->last = rv;
    }
    t->rv = rv;
    t->below = rv + 1;
}

stm_wait_limits stm_txn_limits(stm_txn *t)
{
    stm_wait_limits limits = {
        .hooks = &t->domain->hooks,
        .deadline_ns = t->deadline_ns,
        .interruptible = (t->flags & STM_INTERRUPTIBLE) != 0,
        .waits = &t->counters.waits,
        .waited_ns = &t->counters.waited_ns,
        .note = &t->wait,
    };
    return limits;
}

/* One attempt.  The protected slot is held already if it is to be used. */
static void start_attempt(stm_txn *t, bool at_clock)
{
    t->read_count = 0;
    t->write_filter = 0;
    announce(t, at_clock || (t->flags & STM_BEGIN_READ_ONLY) != 0);
    t->state = STM_ACTIVE;
    if (t->has_slot) {
        t->state = STM_PROTECTED;
        t->below = 0;
        stm_count(&t->counters.protected_attempts, 1);
    } else if (t->flags & STM_BEGIN_READ_ONLY) {
        t->state = STM_READER;
        t->below = 0;
    }
    t->started = stm_ticks();
    t->look_step = FIRST_LOOK_TICKS;
    t->next_look = t->started + FIRST_LOOK_TICKS;
}

void stm_txn_next_attempt(stm_txn *t)
{
    start_attempt(t, true);
    stm_count(&t->counters.attempts, 1);
}

static stm_status take_slot(stm_txn *t)
{
    stm_wait_limits limits = stm_txn_limits(t);
    stm_status status = stm_protect_acquire(&t->domain->protect, t, t->label, &t->waiter, &limits);
    t->has_slot = status == STM_OK;
    return status;
}

uint64_t stm_txn_deadline(double timeout_s)
{
    if (!(timeout_s >= 0) || timeout_s > 1e9) {
        return UINT64_MAX;
    }
    return stm_now_ns() + (uint64_t)(timeout_s * 1e9);
}

bool stm_txn_expired(const stm_txn *t, double timeout_s)
{
    return !(timeout_s >= 0) && t->deadline_ns != UINT64_MAX && stm_now_ns() >= t->deadline_ns;
}

stm_status stm_begin(stm_txn *t, uint32_t flags, uint32_t label, double timeout_s)
{
    if (stm_unlikely(t->state != STM_IDLE || t->pinned)) {
        return STM_MISUSE;
    }
    t->flags = flags;
    t->label = label;
    t->attempt = 0;
    t->lost = 0;
    t->records_all = false;
    t->wait = (stm_wait_note){0};
    t->conflict.cause = STM_CAUSE_NONE;
    t->deadline_ns = stm_txn_deadline(timeout_s);
    if (stm_unlikely(flags & STM_BEGIN_PROTECTED)) {
        stm_status status = take_slot(t);
        if (status != STM_OK) {
            return status;
        }
    }
    start_attempt(t, t->has_slot);
    stm_count(&t->counters.attempts, 1);
    return STM_OK;
}

void stm_pin(stm_txn *t)
{
    if (t->state != STM_IDLE) {
        return; /* misuse: the block's own announcement does */
    }
    t->pinned = true;
    announce(t, false);
    t->below = 0; /* not a block: only stm_pinned_read may read */
}

stm_status stm_txn_doom(stm_txn *t, stm_cause cause, stm_cell *c, uint64_t version)
{
    t->state = STM_DOOMED;
    t->below = 0;
    t->conflict.cause = cause;
    t->conflict.cell = c;
    t->conflict.version = version;
    t->conflict.loser_label = t->label;
    t->conflict.attempt = t->attempt;
    t->conflict.writer_label = 0;
    t->conflict.writer_thread = 0;
    if (c != NULL) {
        /* The read set may hold it, so it is there; its chain is walked as by a
         * read at `version`, which is above what this record announces. */
        const stm_node *n = stm_cell_at(stm_load_acq(&c->head), version);
        t->conflict.writer_label = n->version == version ? n->label : 0;
        t->conflict.writer_thread = n->version == version ? n->thread : 0;
    }
    return STM_CONFLICT;
}

void stm_doom(stm_txn *t, stm_cause cause)
{
    if (t->state != STM_IDLE && t->state != STM_DOOMED) {
        stm_txn_doom(t, cause, NULL, 0);
    }
}

void stm_txn_drop_writes(stm_txn *t)
{
    for (uint32_t i = 0; i < t->write_count; i++) {
        stm_buffered *w = &t->writes[i];
        if (w->is_raw) {
            stm_node_recycle(&t->magazine, w->node);
        } else {
            stm_store_rlx(&w->node->older, NULL); /* buffered: ours alone */
            stm_garbage_push(&t->garbage, w->node, 0);
        }
    }
    t->write_count = 0;
    t->write_filter = 0;
    stm_map_clear(&t->write_index);
}

void stm_txn_unwant_log(stm_txn *t)
{
    if (t->wants_log) {
        t->wants_log = false;
        stm_fetch_add(&t->domain->log.wanted, (uint32_t)-1);
    }
}

void stm_txn_forget_reads(stm_txn *t)
{
    stm_txn_unwant_log(t);
    if (stm_unlikely(t->nests != 0)) {
        stm_nest_forget(t);
    }
    t->read_count = 0;
    t->indexed = 0;
    if (t->read_index.used != 0) {
        stm_map_clear(&t->read_index);
    }
    if (stm_unlikely(t->read_capacity > KEEP_READS)) {
        free(t->reads);
        t->reads = NULL;
        t->read_capacity = 0;
    }
    /* The slow path of the first read sets the limit (stm_access.c). */
    t->read_limit = t->read_capacity < FIRST_READS ? t->read_capacity : FIRST_READS;
    if (stm_unlikely(t->write_capacity > KEEP_WRITES)) {
        free(t->writes);
        t->writes = NULL;
        t->write_capacity = 0;
    }
}

void stm_txn_finish(stm_txn *t)
{
    t->state = STM_IDLE;
    t->below = 0;
    stm_store_rel(&t->slot.active, STM_SLOT_IDLE); /* all reads are done */
    stm_txn_forget_reads(t);
    if (stm_unlikely(t->has_slot)) {
        t->has_slot = false;
        stm_protect_release(&t->domain->protect);
    }
    if (t->garbage != NULL) {
        stm_node *garbage = t->garbage; /* a release may run another block on t */
        t->garbage = NULL;
        stm_garbage_release(t->domain, t, garbage);
    }
}

static void count_loss(stm_txn *t)
{
    stm_count(&t->counters.by_cause[t->conflict.cause], 1);
    stm_count(&t->counters.lost_ticks, stm_ticks() - t->started);
}

stm_status stm_restart(stm_txn *t, double timeout_s)
{
    if (t->state != STM_DOOMED) {
        return STM_MISUSE;
    }
    count_loss(t);
    stm_txn_drop_writes(t);
    stm_store_rel(&t->slot.active, STM_SLOT_IDLE); /* lets others cut while we wait */
    stm_txn_forget_reads(t);
    t->state = STM_IDLE;
    t->attempt++;
    t->lost++;
    if (timeout_s >= 0) {
        t->deadline_ns = stm_txn_deadline(timeout_s);
    }
    stm_status status = STM_OK;
    if (!t->has_slot && t->lost >= stm_load_rlx(&t->domain->lost_limit)) {
        status = take_slot(t);
    }
    if (status != STM_OK) {
        stm_txn_finish(t);
        return status;
    }
    stm_txn_next_attempt(t);
    return STM_OK;
}

void stm_unmark(stm_txn *t)
{
    if (t->state == STM_DOOMED && t->has_slot) {
        stm_protect_unmark(&t->domain->protect);
    }
}

void stm_rollback(stm_txn *t)
{
    if (t->state == STM_IDLE) {
        return;
    }
    if (t->state == STM_DOOMED) {
        count_loss(t);
    } else {
        stm_count(&t->counters.by_cause[STM_CAUSE_USER], 1);
    }
    stm_txn_drop_writes(t);
    stm_txn_finish(t);
}

stm_state stm_txn_state(stm_txn *t)
{
    return t->state;
}

uint32_t stm_txn_attempt(stm_txn *t)
{
    return t->attempt;
}

uint64_t stm_txn_read_version(stm_txn *t)
{
    return t->rv;
}

size_t stm_txn_reads(stm_txn *t)
{
    return t->read_count;
}

stm_cell *stm_txn_read_cell(stm_txn *t, size_t i)
{
    return i < t->read_count ? t->reads[i] : NULL;
}

uint64_t stm_txn_woken(stm_txn *t)
{
    return t->parked.granted_as; /* written before the wake-up, under the mutex */
}

void stm_txn_wait_info(stm_txn *t, stm_wait_info *out)
{
    out->for_change = t->wait.for_change;
    out->holder_label = t->wait.holder_label;
    out->seconds = (double)t->wait.ns / 1e9;
}

size_t stm_txn_writes(stm_txn *t)
{
    return t->write_count;
}

void stm_txn_conflict(stm_txn *t, stm_conflict *out)
{
    *out = t->conflict;
}
