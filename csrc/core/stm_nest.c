/* Nested blocks: what one of them wrote can be undone, its reads stay.
 *
 * Terms.  Savepoint: where the write set and the undo log stood when a nested
 * block began; the host keeps it.  Serial: the number of a nested block within
 * its attempt; 0 stands for the outermost block.  Undo: what an entry of the
 * write set was before a nested block wrote it again.
 *
 * INV-NEST-1  An entry's `nest` is the serial of the block in which its node was
 *             made.  A write of the block `nest` to an older entry (a smaller
 *             serial) puts the old node into the undo log and makes a new one.
 * INV-NEST-2  So undoing in reverse down to the savepoint, then cutting the write
 *             set to its length there, gives back exactly what was there then.
 * INV-NEST-3  When a block is merged, an undo is kept only if its node is older
 *             than the block around: else that one drops the entry or has an
 *             older undo of it.  So the log is never longer than the number of
 *             open blocks times that of the entries.
 * INV-NEST-4  A node is owned by exactly one of: its entry, its undo, the garbage.
 * INV-NEST-5  Nothing here calls the host but stm_nest_release, which touches
 *             the record no more once it has taken the garbage; so a release may
 *             begin nested blocks, write, undo, and call it again.
 * INV-NEST-6  write_index may name places that were cut off; stm_find_write
 *             checks what it finds, and a write of the same cell overwrites it.
 *
 * Guarded by tests/core/test_nest.py, tests/core/test_model.py.
 */
#include "stm_nest.h"

#include "stm_domain.h"

/* How many serials a block gives out before they are numbered anew. */
enum { RENUMBER = 1 << 20, LEAST_UNDOS = 16, KEEP_UNDOS = 1 << 14 };

static void give_up(stm_txn *t, stm_node *n, bool is_raw)
{
    if (is_raw) {
        stm_node_recycle(&t->magazine, n);
    } else {
        stm_store_rlx(&n->older, NULL); /* never published: ours alone */
        stm_garbage_push(&t->garbage, n, 0);
    }
}

bool stm_nest_save(stm_txn *t, stm_buffered *w)
{
    if (t->undo_count == t->undo_capacity) {
        stm_undo *grown = stm_grow(t->undos, &t->undo_capacity, LEAST_UNDOS, sizeof(*t->undos));
        if (grown == NULL) {
            return false;
        }
        t->undos = grown;
    }
    stm_node *n = stm_node_new(&t->magazine);
    if (n == NULL) {
        return false;
    }
    n->value = w->node->value;
    n->born = w->node->born;
    stm_undo *u = &t->undos[t->undo_count++];
    u->node = w->node;
    u->index = (uint32_t)(w - t->writes);
    u->nest = w->nest;
    u->is_raw = w->is_raw;
    u->is_add = w->is_add;
    w->node = n;
    w->nest = t->nest;
    return true;
}

void stm_nest_forget(stm_txn *t)
{
    for (uint32_t i = 0; i < t->undo_count; i++) {
        give_up(t, t->undos[i].node, t->undos[i].is_raw);
    }
    t->undo_count = 0;
    t->nest = 0;
    t->nests = 0;
    if (t->undo_capacity > KEEP_UNDOS) {
        free(t->undos);
        t->undos = NULL;
        t->undo_capacity = 0;
    }
}

/* No serial above that of the open block matters: what was made in it and in
 * blocks that were merged into it is all the same.  Keeps the order. */
static void renumber(stm_txn *t)
{
    for (uint32_t i = 0; i < t->write_count; i++) {
        if (t->writes[i].nest > t->nest) {
            t->writes[i].nest = t->nest;
        }
    }
    t->nests = t->nest;
}

stm_status stm_nest_begin(stm_txn *t, stm_savepoint *s)
{
    *s = (stm_savepoint){0};
    if (stm_unlikely(t->state == STM_IDLE)) {
        return STM_MISUSE;
    }
    if (stm_unlikely(t->state == STM_DOOMED || t->state == STM_WAITING)) {
        return STM_CONFLICT;
    }
    if (stm_unlikely(t->nests - t->nest >= RENUMBER)) {
        renumber(t);
    }
    if (stm_unlikely(t->nests == UINT32_MAX)) {
        return STM_NO_MEMORY; /* thousands of blocks deep, each after a million others */
    }
    s->writes = t->write_count;
    s->undos = t->undo_count;
    s->outer_serial = t->nest;
    s->serial = ++t->nests;
    t->nest = s->serial;
    return STM_OK;
}

/* Not one of an attempt that has ended, or of a block that has. */
static bool is_open(const stm_txn *t, const stm_savepoint *s)
{
    return s->serial != 0 && s->serial <= t->nest && s->undos <= t->undo_count &&
           s->writes <= t->write_count;
}

void stm_nest_commit(stm_txn *t, const stm_savepoint *s)
{
    if (stm_unlikely(!is_open(t, s))) {
        return;
    }
    uint32_t kept = s->undos;
    for (uint32_t i = s->undos; i < t->undo_count; i++) {
        stm_undo u = t->undos[i];
        if (u.nest < s->outer_serial) {
            t->undos[kept++] = u;
        } else {
            give_up(t, u.node, u.is_raw); /* INV-NEST-3 */
        }
    }
    t->undo_count = kept;
    t->nest = s->outer_serial;
}

/* After a cut: few bits are found again at once, too many cost a look-up each. */
static void refilter(stm_txn *t)
{
    if (t->write_count <= STM_FEW_WRITES) {
        t->write_filter = 0;
        for (uint32_t i = 0; i < t->write_count; i++) {
            t->write_filter |= stm_cell_bit(t->writes[i].cell);
        }
    }
}

void stm_nest_rollback(stm_txn *t, const stm_savepoint *s)
{
    if (stm_unlikely(!is_open(t, s))) {
        return;
    }
    while (t->undo_count > s->undos) {
        const stm_undo *u = &t->undos[--t->undo_count];
        stm_buffered *w = &t->writes[u->index];
        give_up(t, w->node, w->is_raw);
        w->node = u->node;
        w->nest = u->nest;
        w->is_add = u->is_add;
    }
    for (uint32_t i = s->writes; i < t->write_count; i++) {
        give_up(t, t->writes[i].node, t->writes[i].is_raw);
    }
    if (t->write_count != s->writes) {
        t->write_count = s->writes;
        refilter(t);
    }
    t->nest = s->outer_serial;
    if (t->state == STM_WAITING) {
        t->state = t->before_retry;
        t->below = t->state == STM_ACTIVE ? t->rv + 1 : 0;
    }
}

void stm_nest_release(stm_txn *t)
{
    stm_node *garbage = t->garbage;
    t->garbage = NULL;
    stm_garbage_release(t->domain, t, garbage);
}
