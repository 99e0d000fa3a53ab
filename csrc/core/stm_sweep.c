/* Taking out cells that say "absent" to everybody, as a commit of its own.
 *
 * A container keeps a cell for each key that was looked up, so that absence is
 * protected like any value.  Cells that stay absent are swept: a version is
 * committed to them, so a transaction that relied on the absence conflicts, and
 * nobody finds the cell any more (the container's part).  `also` is what every
 * walk over the container reads: one that has buffered a write to a swept cell
 * must not miss it in a walk, so it has to find out that it is lost first.
 *
 * INV-SWEEP-1  A swept cell said `absent` at every version that a transaction,
 *              running or to come, can read: its head is at or below the horizon.
 * INV-SWEEP-2  The sweep is a commit like any other: under the lock, in the log,
 *              not over marks of the protected transaction.  It wakes those who
 *              sleep until a key comes: it will come in another cell.
 *
 * Guarded by tests/stm/test_dict_sweep.py, tests/c.
 */
#include "stm_access.h"
#include "stm_domain.h"
#include "stm_validate.h"

static bool is_own(stm_txn *t, const stm_cell *c)
{
    return stm_has_read(t, c) || stm_find_write(t, c) != NULL;
}

static bool is_marked(const stm_cell *c, uint64_t epoch)
{
    return (epoch & 1) != 0 && stm_protect_guards(epoch, c);
}

/* In the section. */
static bool sweepable(const stm_cell *c, stm_value absent, uint64_t horizon, uint64_t epoch)
{
    const stm_node *head = stm_load_rlx(&c->head); /* under the lock */
    return (c->flags & STM_CELL_IS_DEAD) == 0 && head->value == absent &&
           head->version <= horizon && !is_marked(c, epoch);
}

static void push(stm_cell *c, stm_node *n, uint64_t version)
{
    n->version = version;
    stm_store_rlx(&n->older, stm_load_rlx(&c->head)); /* under the lock */
    stm_store_rel(&c->head, n);                       /* as in stm_commit.c */
}

static void swap(stm_cell **cells, stm_node **nodes, uint32_t i, uint32_t j)
{
    stm_cell *c = cells[i];
    stm_node *n = nodes[i];
    cells[i] = cells[j];
    nodes[i] = nodes[j];
    cells[j] = c;
    nodes[j] = n;
}

/* Puts the cells of t's own sets behind the others; returns how many others. */
static uint32_t own_last(stm_txn *t, stm_cell **cells, stm_node **nodes, uint32_t count)
{
    for (uint32_t i = 0; i < count;) {
        if (is_own(t, cells[i])) {
            swap(cells, nodes, i, --count);
        } else {
            i++;
        }
    }
    return count;
}

static void wake(stm_parking *p, uint64_t version, stm_cell **cells, uint32_t count, stm_cell *also)
{
    stm_buffered one = {.cell = also};
    stm_parking_wake(p, version, &one, 1, NULL);
    for (uint32_t i = 0; i < count; i++) {
        one.cell = cells[i];
        stm_parking_wake(p, version, &one, 1, NULL);
    }
}

uint32_t stm_cell_sweep(stm_txn *t, stm_value absent, stm_cell **cells, stm_node **nodes,
                        uint32_t count, stm_cell *also, stm_node **also_node, uint64_t *version)
{
    stm_domain *d = t->domain;
    *version = 0;
    if (count == 0 || *also_node == NULL || !stm_index_reads(t) || is_own(t, also)) {
        return 0;
    }
    uint32_t others = own_last(t, cells, nodes, count);
    uint64_t horizon = stm_epoch_scan(&d->epoch, stm_load(&d->clock.now), NULL).horizon;
    uint32_t swept = 0;
    stm_lock_acquire(&d->clock.lock);
    uint64_t now = stm_load_rlx(&d->clock.now) + 1; /* under the lock */
    uint64_t epoch = stm_protect_epoch(&d->protect);
    bool must_wake = stm_parking_in_use(&d->parking);
    for (uint32_t i = 0; i < others && !is_marked(also, epoch); i++) {
        if (sweepable(cells[i], absent, horizon, epoch)) {
            push(cells[i], nodes[i], now);
            swap(cells, nodes, i, swept++);
        }
    }
    if (swept != 0) {
        push(also, *also_node, now);
        stm_trim_note(&t->trim, t->slot.number, also, now);
        *also_node = NULL;
        stm_log_append_unlisted(&d->log, now);
        stm_store_rel(&d->clock.now, now);
        *version = now;
    }
    stm_section_end(&d->clock);
    if (swept != 0 && must_wake) {
        wake(&d->parking, now, cells, swept, also);
    }
    return swept;
}
