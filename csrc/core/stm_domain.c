/* A whole domain: making it, retiring cells, cleaning up, fork.
 *
 * INV-DOM-1  Host code (release, destroy) runs with no lock held.
 * INV-DOM-2  Killing a cell takes it out of its trim queue and marks it dead in
 *            one section, so that no later section touches its chain.  The chain
 *            is freed with the cell: who validates without the lock may have
 *            loaded its head.
 * INV-DOM-3  A forked child starts with all locks free and all other records
 *            idle.  Other threads were stopped outside of every section, but
 *            perhaps half-way through their own record: what that points to is
 *            leaked, never used.
 *
 * Guarded by tests/core/test_reclaim.py, tests/anomalies/test_fork.py.
 */
#include "stm_domain.h"

#include <string.h>

enum { DEFAULT_LOG = 4096, BATCH = 256, LOST_LIMIT = 3, RECLAIM_EVERY = 64 };

stm_domain *stm_domain_new(const stm_hooks *hooks, uint32_t log_entries)
{
    stm_domain *d = stm_alloc_lines(sizeof(*d));
    if (d == NULL) {
        return NULL;
    }
    if (!stm_log_setup(&d->log, log_entries == 0 ? DEFAULT_LOG : log_entries)) {
        free(d);
        return NULL;
    }
    stm_clock_setup(&d->clock);
    stm_protect_setup(&d->protect);
    stm_epoch_setup(&d->epoch);
    stm_parking_setup(&d->parking);
    if (hooks != NULL) {
        d->hooks = *hooks;
    }
    stm_store(&d->lost_limit, LOST_LIMIT);
    pthread_mutex_init(&d->label_mutex, NULL);
    d->label_count = 1; /* 0 means none */
    d->first_ticks = stm_ticks();
    d->first_ns = stm_now_ns();
    return d;
}

static void free_record(stm_txn *t)
{
    stm_magazine_release(&t->magazine);
    free((void *)t->reads);
    free(t->writes);
    free(t->undos);
    stm_map_release(&t->read_index);
    stm_map_release(&t->write_index);
    pthread_cond_destroy(&t->waiter.cond);
    free(t);
}

void stm_domain_free(stm_domain *d)
{
    stm_domain_collect(d);
    stm_slot *next;
    for (stm_slot *s = stm_load(&d->epoch.slots.all); s != NULL; s = next) {
        next = s->next;
        free_record((stm_txn *)s);
    }
    for (uint32_t i = 1; i < d->label_count; i++) {
        free(stm_load(&d->labels[i]));
    }
    stm_parking_teardown(&d->parking);
    stm_epoch_teardown(&d->epoch);
    stm_protect_teardown(&d->protect);
    stm_clock_teardown(&d->clock);
    stm_log_teardown(&d->log);
    pthread_mutex_destroy(&d->label_mutex);
    free(d);
}

uint64_t stm_domain_clock(stm_domain *d)
{
    return stm_load(&d->clock.now);
}

void stm_domain_plant(stm_domain *d, uint32_t bugs)
{
    stm_store(&d->bugs, bugs);
}

void stm_domain_set_lost_limit(stm_domain *d, uint32_t lost_attempts)
{
    stm_store(&d->lost_limit, lost_attempts);
}

void stm_domain_inject_aborts(stm_domain *d, uint32_t n)
{
    stm_store(&d->inject, n);
}

uint32_t stm_label_intern(stm_domain *d, const char *text)
{
    pthread_mutex_lock(&d->label_mutex);
    uint32_t found = 0;
    for (uint32_t i = 1; i < d->label_count && found == 0; i++) {
        if (strcmp(stm_load(&d->labels[i]), text) == 0) {
            found = i;
        }
    }
    if (found == 0 && d->label_count < STM_LABELS) {
        size_t size = strlen(text) + 1;
        char *copy = stm_alloc(size);
        if (copy != NULL) {
            memcpy(copy, text, size);
            found = d->label_count++;
            stm_store(&d->labels[found], copy);
        }
    }
    pthread_mutex_unlock(&d->label_mutex);
    return found;
}

const char *stm_label_text(stm_domain *d, uint32_t label)
{
    const char *text = label < STM_LABELS ? stm_load(&d->labels[label]) : NULL;
    return text == NULL ? "" : text;
}

/* --- cells ---------------------------------------------------------------- */

stm_cell *stm_cell_new(stm_domain *d, stm_cell_kind kind, stm_value initial)
{
    stm_cell *c = stm_alloc_lines(sizeof(*c));
    stm_node *n = stm_alloc(sizeof(*n));
    if (c == NULL || n == NULL) {
        free(c);
        free(n);
        return NULL;
    }
    stm_fetch_add(&d->nodes_made, 1);
    stm_cell_setup(c, kind, n, initial);
    return c;
}

void stm_cell_kill(stm_domain *d, stm_cell *const *cells, size_t count)
{
    for (size_t done = 0; done < count;) {
        size_t end = count - done < BATCH ? count : done + BATCH;
        stm_lock_acquire(&d->clock.lock);
        for (; done < end; done++) {
            stm_cell *c = cells[done];
            c->flags |= STM_CELL_IS_DEAD;
            if (c->trim_next != NULL) {
                stm_trim_remove(c);
            }
        }
        stm_section_end(&d->clock);
    }
}

void stm_cell_release_values(stm_domain *d, stm_cell *c)
{
    if ((c->flags & STM_CELL_IS_RAW) != 0 || d->hooks.release == NULL) {
        return;
    }
    for (stm_node *n = stm_load_acq(&c->head); n != NULL; n = stm_load_acq(&n->older)) {
        stm_value value = n->value;
        n->value = 0;
        if (value != 0) {
            d->hooks.release(value);
        }
    }
}

void stm_cell_free_chain(stm_domain *d, stm_cell *c)
{
    stm_node *older;
    for (stm_node *n = stm_load_acq(&c->head); n != NULL; n = older) {
        older = stm_load_acq(&n->older);
        stm_fetch_add(&d->nodes_freed, 1);
        free(n);
    }
}

void stm_garbage_release(stm_domain *d, stm_txn *t, stm_node *garbage)
{
    bool raw;
    stm_node *n;
    while ((n = stm_garbage_pop(&garbage, &raw)) != NULL) {
        while (n != NULL) {
            stm_node *older = stm_load_rlx(&n->older); /* cut: ours alone */
            stm_value value = n->value;
            if (t != NULL) {
                stm_node_recycle(&t->magazine, n);
            } else {
                stm_fetch_add(&d->nodes_freed, 1);
                free(n);
            }
            if (!raw && d->hooks.release != NULL && value != 0) {
                d->hooks.release(value);
            }
            n = older;
        }
    }
}

static void destroy_cell(void *object, void *context)
{
    stm_cell_free_chain(context, object);
    free(object);
}

void stm_cell_free(stm_domain *d, stm_cell *c)
{
    stm_cell_kill(d, &c, 1);
    stm_cell_release_values(d, c);
    stm_domain_retire(d, c, destroy_cell);
}

/* --- cleaning up ----------------------------------------------------------- */

void stm_domain_retire_quietly(stm_domain *d, void *object, void (*destroy)(void *, void *))
{
    uint64_t waiting;
    stm_epoch_retire(&d->epoch, &d->clock, object, destroy, &waiting);
}

uint64_t stm_domain_births(stm_domain *d, uint64_t count)
{
    stm_lock_acquire(&d->clock.lock);
    uint64_t first = d->clock.births + 1;
    d->clock.births += count;
    stm_lock_release(&d->clock.lock);
    return first;
}

void stm_domain_retire(stm_domain *d, void *object, void (*destroy)(void *, void *))
{
    uint64_t waiting;
    if (!stm_epoch_retire(&d->epoch, &d->clock, object, destroy, &waiting)) {
        return; /* no memory to remember it: leaked, never freed too early */
    }
    if (waiting % RECLAIM_EVERY == 0) {
        stm_domain_reclaim(d);
    }
}

/* An empty commit: whoever begins after it began after what was retired. */
static void tick(stm_domain *d)
{
    stm_lock_acquire(&d->clock.lock);
    uint64_t version = stm_load_rlx(&d->clock.now) + 1; /* under the lock */
    stm_log_append(&d->log, version, NULL, 0, 0);
    stm_store_rel(&d->clock.now, version);
    stm_section_end(&d->clock);
}

void stm_domain_reclaim(stm_domain *d)
{
    stm_retired batch[BATCH];
    uint64_t end = stm_epoch_retired_end(&d->epoch);
    stm_scan scan = stm_epoch_scan(&d->epoch, stm_load(&d->clock.now), NULL);
    if (scan.busy && scan.began == stm_load(&d->clock.now)) {
        tick(d); /* else those who begin behind us would look as old as we are */
    }
    uint32_t n;
    do {
        n = stm_epoch_reclaim(&d->epoch, end, scan.began, batch, BATCH);
        for (uint32_t i = 0; i < n; i++) {
            batch[i].destroy(batch[i].object, d);
        }
    } while (n == BATCH);
}

/* In the section: every queue, as the records are idle or not. */
static void trim_everything(stm_domain *d, uint64_t now, stm_node **garbage)
{
    uint64_t horizon = d->clock.horizon;
    for (stm_slot *s = stm_load(&d->epoch.slots.all); s != NULL; s = s->next) {
        stm_trim_run(&((stm_txn *)s)->trim, horizon, now, UINT32_MAX, garbage);
    }
}

void stm_domain_collect(stm_domain *d)
{
    stm_node *garbage = NULL;
    stm_scan scan = stm_epoch_scan(&d->epoch, stm_load(&d->clock.now), NULL);
    stm_lock_acquire(&d->clock.lock);
    if (scan.horizon > d->clock.horizon) {
        d->clock.horizon = scan.horizon;
    }
    trim_everything(d, stm_load_rlx(&d->clock.now), &garbage);
    stm_section_end(&d->clock);
    stm_garbage_release(d, NULL, garbage);
    stm_domain_reclaim(d);
}

/* --- fork ------------------------------------------------------------------ */

/* What it had buffered may be half-built objects of a vanished thread. */
static void forget(stm_txn *t)
{
    stm_store(&t->slot.active, STM_SLOT_IDLE);
    t->state = STM_IDLE;
    t->below = 0;
    t->write_count = 0;
    t->write_filter = 0;
    t->undo_count = 0;
    t->nest = 0;
    t->nests = 0;
    t->read_count = 0;
    t->indexed = 0;
    t->pinned = false;
    stm_txn_unwant_log(t);
    t->garbage = NULL;
    stm_map_clear(&t->read_index);
    stm_map_clear(&t->write_index);
}

void stm_txn_abandon(stm_txn *t)
{
    stm_parking_leave(t);
    forget(t);
    if (t->has_slot) {
        t->has_slot = false;
        stm_protect_release(&t->domain->protect);
    }
}

/* In the child of a fork: that thread may have been stopped half-way through any
 * change to its own record, so what the record points to is leaked. */
static void disown(stm_txn *t)
{
    t->reads = NULL;
    t->writes = NULL;
    t->undos = NULL;
    t->undo_capacity = 0;
    t->read_capacity = 0;
    t->read_limit = 0;
    t->write_capacity = 0;
    t->read_index = (stm_map){0};
    t->write_index = (stm_map){0};
    t->magazine.free_nodes = NULL;
    t->magazine.kept = 0;
    stm_cond_setup(&t->waiter.cond);
    t->parked.listed = false;
    stm_txn_abandon(t);
}

static bool is_own(const void *t, stm_txn **own, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (own[i] == t) {
            return true;
        }
    }
    return false;
}

/* Records whose threads are gone are free; those of this thread stay as they are. */
static void disown_others(stm_domain *d, stm_txn **own, size_t count)
{
    d->epoch.slots.free_slots = NULL;
    for (stm_slot *s = stm_load(&d->epoch.slots.all); s != NULL; s = s->next) {
        stm_txn *t = (stm_txn *)s;
        if (!is_own(t, own, count)) {
            disown(t);
            s->next_free = d->epoch.slots.free_slots;
            d->epoch.slots.free_slots = s;
        }
    }
}

void stm_domain_fork_child(stm_domain *d, stm_txn **own, size_t count)
{
    /* Other threads may have been parked on these: start from fresh ones. */
    pthread_mutex_init(&d->clock.park_mutex, NULL);
    pthread_cond_init(&d->clock.park_cond, NULL);
    pthread_mutex_init(&d->epoch.retired.park_mutex, NULL);
    pthread_cond_init(&d->epoch.retired.park_cond, NULL);
    stm_store(&d->clock.lock.state, 0);
    stm_store(&d->epoch.retired.lock.state, 0);
    pthread_mutex_init(&d->label_mutex, NULL);
    pthread_mutex_init(&d->epoch.slots.mutex, NULL);
    stm_parking_fork_child(&d->parking, own, count);
    stm_protect_fork_child(&d->protect, own, count);
    disown_others(d, own, count);
    const void *holder = stm_load(&d->protect.holder);
    if (holder != NULL && !is_own(holder, own, count)) {
        stm_protect_release(&d->protect); /* granted, but its thread did not know yet */
    }
}
