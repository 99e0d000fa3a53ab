/* Commit: validate, publish, clean up; and becoming irrevocable.
 *
 * Terms.  Section: between acquire and release of the commit lock.
 *
 * INV-COM-1  A version is published only if, in the same section, everything
 *            up to clock is known not to overwrite the read set; so committed
 *            writers are serialized in the order of their versions.
 * INV-COM-2  Log entry (if wanted), nodes, clock: in this order.  A reader that meets a node
 *            newer than the clock goes before that commit.
 * INV-COM-3  An attempt that wrote nothing commits at rv without the lock.
 * INV-COM-4  Nothing in a section allocates, blocks or calls the host.
 * INV-COM-5  No section publishes over a mark of the protected transaction
 *            (INV-PROT-2): it unlocks, waits, and starts the commit over.
 * INV-COM-6  Adds take the head's value inside the section, so they need no
 *            validation and never conflict with each other.
 * INV-COM-7  Values are released after the section, with the record idle.
 *
 * Guarded by tests/core/test_model.py; planted bugs SKIP_COMMIT, IGNORE_GUARD.
 */
#include "stm_access.h"
#include "stm_domain.h"
#include "stm_validate.h"

/* How often a record looks for old versions while others run; how many looks
 * in a row must find nobody before it looks at every commit. */
enum { FEW_READS = 16 };
enum { SCAN_EVERY = 8, ALONE_AFTER = 4, OUTSIDE_ROUNDS = 4, TRIM_EXTRA = 8, RECLAIM_AT = 64 };

static uint32_t count_writes(const stm_txn *t)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < t->write_count; i++) {
        count += !stm_buffered_is_void(&t->writes[i]);
    }
    return count;
}

static bool has_bug(const stm_txn *t, uint32_t bug)
{
    return stm_unlikely((stm_load_rlx(&t->domain->bugs) & bug) != 0);
}

/* In the section: push the nodes as one version. */
static void push_nodes(stm_txn *t, uint64_t version)
{
    stm_domain *d = t->domain;
    uint64_t births = 0;
    for (uint32_t i = 0; i < t->write_count; i++) {
        stm_cell *c = t->writes[i].cell;
        stm_node *n = t->writes[i].node;
        if (stm_buffered_is_void(&t->writes[i])) {
            stm_node_recycle(&t->magazine, n);
            t->writes[i].cell = NULL; /* for stm_parking_wake: not published */
            continue;
        }
        if (stm_unlikely(c->flags & STM_CELL_IS_DEAD)) {
            t->writes[i].cell = NULL;
            stm_store_rlx(&n->older, NULL); /* never published */
            stm_garbage_push(&t->garbage, n, t->writes[i].is_raw ? STM_CELL_IS_RAW : 0);
            continue;
        }
        stm_node *head = stm_load_rlx(&c->head); /* under the lock */
        if (t->writes[i].is_add) {
            n->value += head->value;
        }
        if (n->born & STM_BORN_NOW) {
            uint64_t place = n->born & ~STM_BORN_NOW;
            births = place >= births ? place + 1 : births;
            n->born = d->clock.births + place + 1;
        }
        n->version = version;
        n->label = t->label;
        n->thread = t->slot.number;
        stm_store_rlx(&n->older, head);
        stm_store_rel(&c->head, n); /* pairs with the acquire of every read */
        stm_trim_note(&t->trim, t->slot.number, c, version);
    }
    d->clock.births += births;
}

/* In the section, after the clock: cut what nobody needs any more. */
static void trim(stm_txn *t, uint64_t version, uint64_t horizon)
{
    stm_domain *d = t->domain;
    if (t->quiet >= ALONE_AFTER) {
        stm_scan scan = stm_epoch_scan(&d->epoch, version, &t->slot);
        horizon = scan.horizon;
        if (scan.busy) {
            t->quiet = 0;
            t->until_scan = SCAN_EVERY;
        }
    }
    if (horizon > d->clock.horizon) {
        d->clock.horizon = horizon;
    }
    stm_trim_run(&t->trim, d->clock.horizon, version, 2 * t->write_count + TRIM_EXTRA, &t->garbage);
}

static void publish(stm_txn *t, uint64_t version, uint32_t count, uint64_t horizon)
{
    stm_domain *d = t->domain;
    t->must_wake = stm_parking_in_use(&d->parking); /* in the section: INV-PARK-1 */
    if (stm_log_is_wanted(&d->log)) {
        stm_log_append(&d->log, version, t->writes, t->write_count, count);
    }
    push_nodes(t, version);
    stm_store_rel(&d->clock.now, version); /* pairs with loads of the clock */
    trim(t, version, horizon);
}

/* In the section: is some cell that I write marked by another transaction? */
static bool guarded(const stm_txn *t, uint64_t *epoch)
{
    *epoch = stm_protect_epoch(&t->domain->protect);
    if ((*epoch & 1) == 0 || t->has_slot || has_bug(t, STM_BUG_IGNORE_GUARD)) {
        return false;
    }
    for (uint32_t i = 0; i < t->write_count; i++) {
        if (stm_protect_guards(*epoch, t->writes[i].cell) && !stm_buffered_is_void(&t->writes[i])) {
            return true;
        }
    }
    return false;
}

typedef enum { DONE, LOST, GUARDED, AGAIN } outcome;

/* One section.  AGAIN: the tail is long, validate it outside first. */
static outcome section(stm_txn *t, uint32_t count, bool insist, uint64_t horizon,
                       stm_overwritten *by, uint64_t *epoch)
{
    stm_clock *clock = &t->domain->clock;
    outcome result = DONE;
    stm_lock_acquire(&clock->lock);
    uint64_t now = stm_load_rlx(&clock->now); /* under the lock */
    if (t->state == STM_ACTIVE && now != t->rv && !has_bug(t, STM_BUG_SKIP_COMMIT)) {
        if (!insist && !stm_validate_is_short(t, now)) {
            result = AGAIN;
        } else if (!stm_validate_locked(t, now, by)) {
            result = LOST;
        }
    }
    if (result == DONE && guarded(t, epoch)) {
        result = GUARDED;
    }
    if (result == DONE) {
        publish(t, now + 1, count, horizon);
        t->last = now + 1;
    }
    stm_section_end(clock);
    return result;
}

/* The bulk of the validation, outside the section.  A few reads are checked in
 * it: looking at the clock before would fetch its line once more. */
static bool validate_outside(stm_txn *t, stm_overwritten *by)
{
    if (t->state != STM_ACTIVE || t->read_count <= FEW_READS || has_bug(t, STM_BUG_SKIP_COMMIT)) {
        return true;
    }
    return stm_extend(t, by);
}

/* Every few commits: how far may be cut?  While alone, trim() scans instead. */
static uint64_t look_for_horizon(stm_txn *t)
{
    if (t->quiet >= ALONE_AFTER || t->until_scan-- != 0) {
        return 0;
    }
    t->until_scan = SCAN_EVERY - 1;
    stm_domain *d = t->domain;
    /* Up to rv, not to the clock: a floor above what others have seen last makes
     * each of their begins fetch the clock. */
    stm_scan scan = stm_epoch_scan(&d->epoch, t->rv, &t->slot);
    t->quiet = scan.busy ? 0 : t->quiet + 1;
    return scan.horizon;
}

static void wrote(stm_txn *t)
{
    if (stm_unlikely(t->must_wake)) {
        stm_parking_wake(&t->domain->parking, t->last, t->writes, t->write_count,
                         t->write_count > STM_FEW_WRITES ? &t->write_index : NULL);
    }
    t->write_count = 0; /* published: the chains own the nodes now */
    t->write_filter = 0;
    if (t->write_index.used != 0) {
        stm_map_clear(&t->write_index);
    }
}

static stm_status commit_writes(stm_txn *t, uint32_t count)
{
    stm_overwritten by = {NULL, 0};
    uint64_t horizon = look_for_horizon(t);
    for (int round = 0;; round++) {
        uint64_t epoch;
        if (!validate_outside(t, &by)) {
            return stm_txn_doom(t, STM_CAUSE_COMMIT, by.cell, by.version);
        }
        switch (section(t, count, round >= OUTSIDE_ROUNDS, horizon, &by, &epoch)) {
        case DONE:
            wrote(t);
            return STM_OK;
        case LOST:
            return stm_txn_doom(t, STM_CAUSE_COMMIT, by.cell, by.version);
        case GUARDED: {
            stm_wait_limits limits = stm_txn_limits(t);
            stm_status status = stm_protect_wait(&t->domain->protect, epoch, &t->waiter, &limits);
            if (status != STM_OK) {
                return status;
            }
            break;
        }
        case AGAIN:
            break;
        }
    }
}

/* A fault for tests. */
static bool is_to_lose(const stm_txn *t)
{
    uint32_t n = stm_load_rlx(&t->domain->inject);
    if (n == 0 && has_bug(t, STM_FAULT_ABORT_COMMITS)) {
        n = 1;
    }
    return stm_unlikely(n != 0) && t->attempt < n && !t->has_slot &&
           (t->flags & STM_BEGIN_READ_ONLY) == 0;
}

stm_status stm_commit(stm_txn *t)
{
    if (stm_unlikely(t->state == STM_DOOMED || t->state == STM_WAITING)) {
        return STM_CONFLICT;
    }
    if (stm_unlikely(t->state == STM_IDLE)) {
        return STM_MISUSE;
    }
    if (is_to_lose(t)) {
        return stm_txn_doom(t, STM_CAUSE_INJECTED, NULL, 0);
    }
    uint32_t count = count_writes(t);
    if (count == 0) {
        stm_txn_drop_writes(t);
        stm_count(&t->counters.read_only, 1);
    } else {
        stm_status status = commit_writes(t, count);
        if (status != STM_OK) {
            return status;
        }
    }
    stm_count(&t->counters.commits, 1);
    stm_txn_finish(t);
    if (stm_unlikely(stm_load_rlx(&t->domain->epoch.retired_count) >= RECLAIM_AT) &&
        t->until_scan == SCAN_EVERY - 1) {
        stm_domain_reclaim(t->domain);
    }
    return STM_OK;
}

/* Marks the whole read set, then: is it still what is there? */
static bool mark_reads(stm_txn *t, stm_overwritten *by)
{
    stm_domain *d = t->domain;
    for (uint32_t i = 0; i < t->read_count; i++) {
        stm_protect_mark_only(&d->protect, t->reads[i]);
    }
    stm_protect_settle(&d->clock);
    for (uint32_t i = 0; i < t->read_count; i++) {
        const stm_node *head = stm_load_acq(&t->reads[i]->head); /* INV-PROT-3 */
        if (head->version > t->rv) {
            by->cell = t->reads[i];
            by->version = head->version;
            return false;
        }
    }
    return true;
}

stm_status stm_make_irrevocable(stm_txn *t, double timeout_s)
{
    if (t->state == STM_PROTECTED || (t->state == STM_READER && t->has_slot)) {
        return STM_OK;
    }
    if (t->state == STM_DOOMED || t->state == STM_WAITING) {
        return STM_CONFLICT;
    }
    if (t->state == STM_IDLE) {
        return STM_MISUSE;
    }
    stm_wait_limits limits = stm_txn_limits(t);
    if (timeout_s >= 0) {
        limits.deadline_ns = stm_txn_deadline(timeout_s);
    }
    stm_status status = stm_protect_acquire(&t->domain->protect, t, t->label, &t->waiter, &limits);
    if (status != STM_OK) {
        return status;
    }
    t->has_slot = true;
    stm_count(&t->counters.upgrades, 1);
    if (t->state == STM_READER) {
        return STM_OK; /* one version, no writes: it cannot lose; the slot keeps others out */
    }
    stm_overwritten by = {NULL, 0};
    /* A snapshot has not recorded what it read: once more, as P. */
    if (t->state != STM_ACTIVE || !mark_reads(t, &by)) {
        return stm_txn_doom(t, STM_CAUSE_UPGRADE, by.cell, by.version);
    }
    t->state = STM_PROTECTED;
    t->below = 0;
    stm_count(&t->counters.protected_attempts, 1);
    return STM_OK;
}
