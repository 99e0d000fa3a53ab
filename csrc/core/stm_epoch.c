/* Which old versions and dead objects nobody can need any more.
 *
 * Terms.  Horizon m: no transaction, running or yet to come, reads at a
 * version below m.  Floor: the promise that makes m hold for those to come.
 *
 * INV-EPOCH-1  Announce, then scan: `floor` is raised to the clock before the
 *              records are scanned.  A beginner publishes `active`, then reads
 *              `floor`, and starts over at the clock if it is behind.  In the
 *              one order of these four (seq_cst) accesses either the scan sees
 *              the beginner, or the beginner sees the floor (>= m).  So m, once
 *              found, stays valid for ever.
 * INV-EPOCH-2  A chain is cut below its newest version <= m, under the commit
 *              lock, by one thread at a time.  Freed nodes were unreachable
 *              from the moment of the cut (INV-CELL-2), so they are reused at
 *              once, without a grace period.
 * INV-EPOCH-3  A retired object is destroyed after a scan that began after it
 *              was retired and found that every record which is not idle began
 *              later: `began` > stamp.  (Who begins after the scan can't reach
 *              it.)  `began` stays where it was when the attempt extends, as
 *              its read set keeps pointers to cells whose owners are gone.
 * INV-EPOCH-4  A cell with more than one version is in the trim queue of the
 *              record that wrote it last, unless it is dead or swept.
 *
 * Lock order: the retire lock is a leaf; it is not taken in a commit section.
 *
 * Guarded by tests/core/test_reclaim.py; the planted bug NO_FLOOR by the model.
 */
#include "stm_epoch.h"

void stm_epoch_setup(stm_epoch *e)
{
    stm_store(&e->floor, 0);
    stm_slots_setup(&e->slots);
    e->retired.items = NULL;
    e->retired.first = 0;
    e->retired.end = 0;
    e->retired.capacity = 0;
    pthread_mutex_init(&e->retired.park_mutex, NULL);
    pthread_cond_init(&e->retired.park_cond, NULL);
    stm_lock_setup(&e->retired.lock, &e->retired.park_mutex, &e->retired.park_cond);
    stm_store(&e->retired_count, 0);
}

void stm_epoch_teardown(stm_epoch *e)
{
    free(e->retired.items);
    pthread_cond_destroy(&e->retired.park_cond);
    pthread_mutex_destroy(&e->retired.park_mutex);
    stm_slots_teardown(&e->slots);
}

stm_scan stm_epoch_scan(stm_epoch *e, uint64_t clock, const stm_slot *self)
{
    /* seq_cst also where it is high enough already: the scan comes after it. */
    uint64_t floor = stm_load(&e->floor);
    while (floor < clock && !stm_cas(&e->floor, &floor, clock)) {
    }
    stm_scan scan = {.horizon = clock, .began = STM_SLOT_IDLE, .busy = false};
    for (stm_slot *s = stm_load(&e->slots.all); s != NULL; s = s->next) {
        if (s == self) {
            continue;
        }
        uint64_t active = stm_load(&s->active);
        if (active == STM_SLOT_IDLE) {
            continue;
        }
        scan.busy = true;
        if (active < scan.horizon) {
            scan.horizon = active;
        }
        /* After `active`: pairs with begin, which stores `began` first.  A
         * newer attempt's value is right too: the older one has ended. */
        uint64_t began = stm_load(&s->began);
        if (began < scan.began) {
            scan.began = began;
        }
    }
    return scan;
}

void stm_trim_setup(stm_trim_queue *q)
{
    q->ends.trim_next = &q->ends;
    q->ends.trim_prev = &q->ends;
}

void stm_trim_add(stm_trim_queue *q, stm_cell *c, uint64_t now)
{
    c->trim_at = now;
    c->trim_next = &q->ends;
    c->trim_prev = q->ends.trim_prev;
    c->trim_prev->trim_next = c;
    q->ends.trim_prev = c;
}

void stm_trim_remove(stm_cell *c)
{
    c->trim_prev->trim_next = c->trim_next;
    c->trim_next->trim_prev = c->trim_prev;
    c->trim_next = NULL;
    c->trim_prev = NULL;
}

void stm_trim_note(stm_trim_queue *q, uint32_t owner, stm_cell *c, uint64_t now)
{
    if (c->trim_next == NULL) {
        stm_trim_add(q, c, now);
    } else if (c->trim_owner != owner) {
        /* Its last writer may never commit again: take it over.  In front and
         * with its old time, or a cell that threads take turns to write would
         * stay behind the horizon for ever. */
        stm_trim_remove(c);
        c->trim_prev = &q->ends;
        c->trim_next = q->ends.trim_next;
        c->trim_next->trim_prev = c;
        q->ends.trim_next = c;
    }
    c->trim_owner = owner;
}

bool stm_trim_cell(stm_cell *c, uint64_t horizon, stm_node **garbage)
{
    stm_node *head = stm_load_rlx(&c->head); /* under the commit lock */
    stm_node *keep = stm_cell_at(head, horizon);
    stm_node *cut = stm_load_rlx(&keep->older);
    if (cut != NULL) {
        stm_store_rlx(&keep->older, NULL); /* nobody follows it: INV-CELL-2 */
        stm_garbage_push(garbage, cut, c->flags);
    }
    return keep == head;
}

void stm_trim_run(stm_trim_queue *q, uint64_t horizon, uint64_t now, uint32_t budget,
                  stm_node **garbage)
{
    while (budget-- > 0) {
        stm_cell *c = q->ends.trim_next;
        if (c == &q->ends || c->trim_at > horizon) {
            return;
        }
        stm_trim_remove(c);
        if (!stm_trim_cell(c, horizon, garbage)) {
            stm_trim_add(q, c, now);
        }
    }
}

void stm_garbage_push(stm_node **garbage, stm_node *chain, uint32_t cell_flags)
{
    chain->born = (uint64_t)(uintptr_t)*garbage;
    chain->version = cell_flags;
    *garbage = chain;
}

stm_node *stm_garbage_pop(stm_node **garbage, bool *raw)
{
    stm_node *chain = *garbage;
    if (chain != NULL) {
        *garbage = (stm_node *)(uintptr_t)chain->born;
        *raw = (chain->version & STM_CELL_IS_RAW) != 0;
    }
    return chain;
}

static bool grow(stm_retire_list *l)
{
    uint64_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
    stm_retired *items = stm_alloc(capacity * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    for (uint64_t i = l->first; i < l->end; i++) {
        items[i & (capacity - 1)] = l->items[i & (l->capacity - 1)];
    }
    free(l->items);
    l->items = items;
    l->capacity = capacity;
    return true;
}

bool stm_epoch_retire(stm_epoch *e, const stm_clock *clock, void *object,
                      void (*destroy)(void *, void *), uint64_t *waiting)
{
    stm_retire_list *l = &e->retired;
    stm_lock_acquire(&l->lock);
    bool room = l->end - l->first < l->capacity || grow(l);
    if (room) {
        /* Under the lock, so that stamps never fall along the list. */
        stm_retired item = {object, destroy, stm_load(&clock->now)};
        l->items[l->end++ & (l->capacity - 1)] = item;
    }
    *waiting = l->end - l->first;
    stm_store_rlx(&e->retired_count, *waiting);
    stm_lock_release(&l->lock);
    return room;
}

uint64_t stm_epoch_retired_end(stm_epoch *e)
{
    stm_lock_acquire(&e->retired.lock);
    uint64_t end = e->retired.end;
    stm_lock_release(&e->retired.lock);
    return end;
}

uint32_t stm_epoch_reclaim(stm_epoch *e, uint64_t end, uint64_t began, stm_retired *out,
                           uint32_t most)
{
    stm_retire_list *l = &e->retired;
    uint32_t n = 0;
    stm_lock_acquire(&l->lock);
    while (n < most && l->first < end) {
        stm_retired item = l->items[l->first & (l->capacity - 1)];
        if (item.stamp >= began) {
            break;
        }
        l->first++;
        out[n++] = item;
    }
    stm_store_rlx(&e->retired_count, l->end - l->first);
    stm_lock_release(&l->lock);
    return n;
}
