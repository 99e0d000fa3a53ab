/* Is what was read still what is there?
 *
 * Terms.  Tail: the versions committed after rv.  Index: a map of the cells
 * read so far, built when it first pays.
 *
 * INV-VAL-1  "Clean" up to `to` means: no version in (rv, to] was published on
 *            a cell of the read set.  A head newer than rv is a conflict even
 *            when it is newer than `to`: it will be one at commit.
 * INV-VAL-2  The two ways (compare heads, probe the log) agree on versions up
 *            to `to`; where the log no longer tells, heads are compared.
 * INV-VAL-3  Extending moves rv to a clock value loaded before validating, so
 *            all reads are then exact at the new rv.
 *
 * Lineage: Kung and Robinson's backward validation; probing write sets as in
 * FoundationDB's resolver and RingSTM; the choice by cost is ours.
 * Guarded by tests/core/test_model.py; planted bugs SKIP_EXTEND, SKIP_COMMIT.
 */
#include "stm_validate.h"

/* Up to here comparing heads is cheaper than looking anything up. */
enum { FEW_READS = 64, MANY_READS = 2048 };

static bool heads_unchanged(const stm_txn *t, stm_overwritten *by)
{
    for (uint32_t i = 0; i < t->read_count; i++) {
        const stm_node *head = stm_load_acq(&t->reads[i]->head); /* pairs with the push */
        if (head->version > t->rv) {
            by->cell = t->reads[i];
            by->version = head->version;
            return false;
        }
    }
    return true;
}

bool stm_index_reads(stm_txn *t)
{
    if (!stm_map_reserve(&t->read_index, t->read_count)) {
        return false;
    }
    for (; t->indexed < t->read_count; t->indexed++) {
        stm_map_put(&t->read_index, t->reads[t->indexed], t->indexed);
    }
    return true;
}

bool stm_has_read(const stm_txn *t, const stm_cell *c)
{
    return stm_map_get(&t->read_index, c) != STM_MAP_NONE;
}

/* Probing pays when the tail is short against the read set. */
static bool probe_pays(const stm_txn *t, uint64_t to, bool may_index)
{
    if (t->read_count <= FEW_READS) {
        return false;
    }
    if (t->indexed != t->read_count && !may_index) {
        return false;
    }
    return stm_log_size(&t->domain->log, t->rv, to, t->read_count / 4) != UINT64_MAX;
}

static bool validate(stm_txn *t, uint64_t to, stm_overwritten *by, bool may_index)
{
    if (probe_pays(t, to, may_index) && (t->indexed == t->read_count || stm_index_reads(t))) {
        stm_log_answer answer =
            stm_log_probe(&t->domain->log, t->rv, to, &t->read_index, &by->cell, &by->version);
        if (answer != STM_LOG_LOST) {
            return answer == STM_LOG_CLEAN;
        }
    }
    return heads_unchanged(t, by);
}

bool stm_validate(stm_txn *t, uint64_t to, stm_overwritten *by)
{
    return validate(t, to, by, true);
}

bool stm_validate_locked(stm_txn *t, uint64_t to, stm_overwritten *by)
{
    return validate(t, to, by, false);
}

bool stm_validate_is_short(stm_txn *t, uint64_t to)
{
    return t->read_count <= MANY_READS || probe_pays(t, to, false);
}

bool stm_extend(stm_txn *t, stm_overwritten *by)
{
    uint64_t to = stm_load(&t->domain->clock.now);
    if (to != t->rv) {
        stm_count(&t->counters.extensions, 1);
        bool skip = (stm_load_rlx(&t->domain->bugs) & STM_BUG_SKIP_EXTEND) != 0;
        if (!skip && !stm_validate(t, to, by)) {
            return false;
        }
        stm_txn_set_rv(t, to);
    }
    t->fresh = true;
    return true;
}
