/* Reads and writes inside a transaction.
 *
 * INV-ACC-1  A value is returned only if it is the newest at rv and everything
 *            read before is the newest at the same rv (opacity).  So the head
 *            is loaded again after every extension.
 * INV-ACC-2  A read is in the read set before its value is returned, unless the
 *            attempt can't commit a write any more (snapshot, reader).
 * INV-ACC-3  An attempt falls back to a snapshot only if it has not written and
 *            its rv was taken from the clock after the block began; otherwise
 *            it could miss what was committed before the block.
 * INV-ACC-4  When memory runs out, the attempt is as it was before the call.
 * INV-ACC-5  write_filter has the bit of every cell of the write set, and
 *            write_index its place where it has more than STM_FEW_WRITES.
 *
 * A mapping's `born` orders iteration of dicts by insertion.  A write that
 * creates a mapping passes STM_BORN_NOW | n, n growing within the attempt; the
 * commit turns it into a number that grows over all commits of the domain.
 *
 * Guarded by tests/core/test_model.py; planted bugs OLD_HEAD, STALE_SNAPSHOT.
 */
#include "stm_access.h"
#include "stm_nest.h"
#include "stm_validate.h"

enum { LEAST_READS = 64, LOOK_EVERY = 1024, LEAST_WRITES = 8, CATCH_UP_TRIES = 8 };

stm_buffered *stm_find_write(stm_txn *t, const stm_cell *c)
{
    if ((t->write_filter & stm_cell_bit(c)) == 0) {
        return NULL;
    }
    if (t->write_count > STM_FEW_WRITES) {
        uint32_t i = stm_map_get(&t->write_index, c); /* may be stale: INV-NEST-6 */
        return i < t->write_count && t->writes[i].cell == c ? &t->writes[i] : NULL;
    }
    for (uint32_t i = 0; i < t->write_count; i++) {
        if (t->writes[i].cell == c) {
            return &t->writes[i];
        }
    }
    return NULL;
}

/* What it read was overwritten: go on as a snapshot if that is still a right
 * answer, else the attempt is lost. */
static stm_status overtaken(stm_txn *t, const stm_overwritten *by)
{
    if (t->write_count != 0) {
        return stm_txn_doom(t, STM_CAUSE_READ, by->cell, by->version);
    }
    bool stale_is_fine = (stm_load_rlx(&t->domain->bugs) & STM_BUG_STALE_SNAPSHOT) != 0;
    if (!t->fresh && !stale_is_fine) {
        return stm_txn_doom(t, STM_CAUSE_STALE_START, by->cell, by->version);
    }
    t->state = STM_SNAPSHOT;
    t->below = 0;
    return STM_OK;
}

/* Room for one more read; now and then, look whether the attempt is doomed. */
static stm_status make_room(stm_txn *t)
{
    if (t->read_count == t->read_capacity) {
        stm_cell **grown =
            stm_grow((void *)t->reads, &t->read_capacity, LEAST_READS, sizeof(*t->reads));
        if (grown == NULL) {
            return STM_NO_MEMORY;
        }
        t->reads = grown;
    }
    if (t->read_count >= LEAST_READS && !t->wants_log && t->state == STM_ACTIVE) {
        t->wants_log = true;
        stm_fetch_add(&t->domain->log.wanted, 1);
    }
    uint32_t next = t->read_count + LOOK_EVERY;
    t->read_limit = next < t->read_capacity ? next : t->read_capacity;
    uint64_t now = stm_ticks();
    if (t->state == STM_ACTIVE && now >= t->next_look) {
        t->look_step *= 2;
        t->next_look = now + t->look_step;
        stm_overwritten by;
        if (!stm_extend(t, &by)) {
            return overtaken(t, &by);
        }
    }
    return STM_OK;
}

static void record(stm_txn *t, stm_cell *c)
{
    uint32_t slot = (uint32_t)((uintptr_t)c >> 6) & (STM_FILTER - 1);
    uint32_t seen = t->filter[slot];
    if (seen < t->read_count && t->reads[seen] == c) {
        return;
    }
    t->filter[slot] = t->read_count;
    t->reads[t->read_count++] = c;
}

/* The head is newer than rv: extend until it is not. */
static stm_status catch_up(stm_txn *t, stm_cell *c, stm_node *head, stm_node **out)
{
    for (int tries = 0; head->version > t->rv; tries++) {
        stm_overwritten by;
        if (!stm_extend(t, &by)) {
            stm_status status = overtaken(t, &by);
            *out = status == STM_OK ? stm_cell_at(stm_load_acq(&c->head), t->rv) : NULL;
            return status;
        }
        if ((stm_load_rlx(&t->domain->bugs) & STM_BUG_OLD_HEAD) == 0) {
            head = stm_load_acq(&c->head);
        }
        if (stm_load(&t->domain->clock.now) == t->rv || tries == CATCH_UP_TRIES) {
            /* Newer than the clock: that commit is not over, we come before it. */
            head = stm_cell_at(head, t->rv);
        }
    }
    *out = head;
    return STM_OK;
}

/* The committed value that this attempt sees, recorded as it has to be. */
static stm_status read_committed(stm_txn *t, stm_cell *c, stm_value *out)
{
    stm_node *n = NULL;
    bool records = t->state == STM_READER && t->records_all;
    if (t->state == STM_ACTIVE || t->state == STM_PROTECTED || records) {
        if (t->read_count >= t->read_limit) {
            stm_status status = make_room(t);
            if (status != STM_OK) {
                return status;
            }
        }
    }
    switch (t->state) {
    case STM_ACTIVE: {
        stm_status status = catch_up(t, c, stm_load_acq(&c->head), &n);
        if (status != STM_OK) {
            return status;
        }
        if (t->state == STM_ACTIVE) {
            record(t, c);
        }
        break;
    }
    case STM_PROTECTED:
        if (!stm_protect_guards(stm_protect_epoch(&t->domain->protect), c)) {
            stm_protect_mark(&t->domain->protect, &t->domain->clock, c);
        }
        record(t, c);
        n = stm_load_acq(&c->head); /* INV-PROT-3 */
        break;
    case STM_READER:
        if (records) {
            record(t, c); /* to wait for it */
        }
        n = stm_cell_at(stm_load_acq(&c->head), t->rv);
        break;
    case STM_SNAPSHOT:
        n = stm_cell_at(stm_load_acq(&c->head), t->rv);
        break;
    case STM_DOOMED:
    case STM_WAITING:
        return STM_CONFLICT;
    default:
        return STM_MISUSE;
    }
    *out = n->value;
    return STM_OK;
}

stm_status stm_read_slow(stm_txn *t, stm_cell *c, stm_value *out)
{
    if (t->state == STM_DOOMED || t->state == STM_WAITING) {
        return STM_CONFLICT;
    }
    stm_buffered *own = stm_find_write(t, c);
    if (own != NULL && !own->is_add) {
        *out = own->node->value;
        return STM_OK;
    }
    stm_status status = read_committed(t, c, out);
    if (status == STM_OK && own != NULL) {
        *out += own->node->value;
    }
    return status;
}

stm_status stm_read(stm_txn *t, stm_cell *c, stm_value *out)
{
    return stm_read_fast(t, c, out);
}

stm_status stm_peek(stm_txn *t, stm_cell *c, stm_value *out, uint64_t *born)
{
    if (t->state == STM_DOOMED || t->state == STM_WAITING) {
        return STM_CONFLICT;
    }
    if (t->state == STM_IDLE) {
        return STM_MISUSE;
    }
    stm_buffered *own = stm_find_write(t, c);
    const stm_node *n;
    if (own != NULL && !own->is_add) {
        n = own->node;
    } else {
        n = stm_load_acq(&c->head);
        if (t->state != STM_PROTECTED) {
            n = stm_cell_at((stm_node *)(uintptr_t)n, t->rv);
        }
    }
    *out = n->value + (own != NULL && own->is_add ? own->node->value : 0);
    if (born != NULL) {
        *born = n->born;
    }
    return STM_OK;
}

/* May this attempt write? */
static stm_status writable(stm_txn *t)
{
    switch (t->state) {
    case STM_ACTIVE:
        return STM_OK;
    case STM_PROTECTED:
        return t->flags & STM_BEGIN_READ_ONLY ? STM_READ_ONLY : STM_OK;
    case STM_READER:
        return STM_READ_ONLY;
    case STM_SNAPSHOT:
        return stm_txn_doom(t, STM_CAUSE_SNAPSHOT_WRITE, NULL, 0);
    case STM_DOOMED:
    case STM_WAITING:
        return STM_CONFLICT;
    default:
        return STM_MISUSE;
    }
}

/* Keeps write_index complete from the first write that does not fit a scan.  What
 * nested blocks that were undone left in it is thrown out when it is most of it,
 * instead of growing. */
static bool index_write(stm_txn *t)
{
    uint32_t count = t->write_count + 1;
    if (count <= STM_FEW_WRITES) {
        return true;
    }
    stm_map *index = &t->write_index;
    bool fill = count == STM_FEW_WRITES + 1;
    uint32_t needed = index->used + (fill ? count : 1);
    if (needed > index->capacity / 2 && index->used / 2 > count) {
        stm_map_empty(index);
        fill = true;
    } else if (!stm_map_reserve(index, needed)) {
        return false;
    }
    if (fill) {
        for (uint32_t i = 0; i < t->write_count; i++) {
            stm_map_put(&t->write_index, t->writes[i].cell, i);
        }
    }
    return true;
}

/* A new entry of the write set, its node not filled in; NULL: no memory. */
static stm_buffered *add_write(stm_txn *t, stm_cell *c)
{
    if (t->write_count == t->write_capacity) {
        stm_buffered *grown =
            stm_grow(t->writes, &t->write_capacity, LEAST_WRITES, sizeof(*t->writes));
        if (grown == NULL) {
            return NULL;
        }
        t->writes = grown;
    }
    if (!index_write(t)) {
        return NULL;
    }
    stm_node *n = stm_node_new(&t->magazine);
    if (n == NULL) {
        return NULL;
    }
    stm_buffered *w = &t->writes[t->write_count];
    w->cell = c;
    w->node = n;
    w->is_raw = (c->flags & STM_CELL_IS_RAW) != 0;
    w->is_add = false;
    w->nest = t->nest;
    n->born = 0;
    if (t->write_count >= STM_FEW_WRITES) {
        stm_map_put(&t->write_index, c, t->write_count);
    }
    t->write_count++;
    t->write_filter |= stm_cell_bit(c);
    return w;
}

stm_status stm_write_born(stm_txn *t, stm_cell *c, stm_value value, uint64_t born,
                          stm_value *replaced)
{
    *replaced = 0;
    stm_status status = writable(t);
    if (stm_unlikely(status != STM_OK)) {
        return status;
    }
    stm_buffered *w = stm_find_write(t, c);
    if (w == NULL) {
        w = add_write(t, c);
        if (w == NULL) {
            return STM_NO_MEMORY;
        }
    } else if (stm_nest_is_older(t, w)) {
        if (!stm_nest_save(t, w)) {
            return STM_NO_MEMORY;
        }
    } else if (!w->is_raw) {
        *replaced = w->node->value;
    }
    w->is_add = false;
    w->node->value = value;
    w->node->born = born;
    return STM_OK;
}

stm_status stm_write(stm_txn *t, stm_cell *c, stm_value value, stm_value *replaced)
{
    return stm_write_born(t, c, value, 0, replaced);
}

stm_status stm_add(stm_txn *t, stm_cell *c, int64_t delta)
{
    stm_status status = writable(t);
    if (status != STM_OK) {
        return status;
    }
    if ((c->flags & STM_CELL_IS_RAW) == 0) {
        return STM_MISUSE;
    }
    stm_buffered *w = stm_find_write(t, c);
    if (w == NULL) {
        w = add_write(t, c);
        if (w == NULL) {
            return STM_NO_MEMORY;
        }
        w->is_add = true;
        w->node->value = 0;
    } else if (stm_nest_is_older(t, w) && !stm_nest_save(t, w)) {
        return STM_NO_MEMORY;
    }
    w->node->value += (stm_value)delta;
    return STM_OK;
}

void stm_unpin(stm_txn *t)
{
    if (t->pinned) {
        t->pinned = false;
        stm_store_rel(&t->slot.active, STM_SLOT_IDLE);
    }
}

stm_value stm_pinned_read(stm_txn *t, stm_cell *c)
{
    stm_node *n = stm_load_acq(&c->head);
    if (n->version > t->rv && !t->pinned) {
        return stm_cell_at(n, t->rv)->value; /* misuse, inside a block: its version */
    }
    if (n->version > t->rv) {
        stm_txn_set_rv(t, stm_load(&t->domain->clock.now));
        t->below = 0;
        n = stm_cell_at(stm_load_acq(&c->head), t->rv);
    }
    return n->value;
}
