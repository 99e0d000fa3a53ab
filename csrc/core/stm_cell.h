/* Layer 2: cells and their chains of versions. */
#ifndef STM_CELL_H
#define STM_CELL_H

#include "stm_api.h"
#include "stm_fault.h"

typedef struct stm_node stm_node;

/* One version.  Immutable once published, but for `older` (cut under the
 * commit lock) and, after the cut, for the garbage list that owns it. */
struct stm_node {
    stm_value value;
    uint64_t version;
    _Atomic(stm_node *) older;
    uint64_t born;  /* when the mapping came to be: keeps insertion order */
    uint32_t label; /* of the block that wrote it, for conflict records */
    uint32_t thread;
};

enum {
    STM_CELL_IS_RAW = 1,
    STM_CELL_IS_DEAD = 2 /* its owner is gone; commits drop what they wrote to it */
};

/* Everything but head and guard is written under the commit lock only. */
struct stm_cell {
    _Atomic(stm_node *) head; /* newest first; published with release */
    _Atomic uint64_t guard;   /* the protected epoch that read it (stm_protect.c) */
    stm_cell *trim_next;      /* trim queue of the thread that wrote it (stm_epoch.c) */
    stm_cell *trim_prev;
    uint64_t trim_at; /* the clock when it was queued */
    uint32_t flags;
    uint32_t trim_owner; /* the number of that thread's record */
};

/* One entry of a write set: a version that is not published yet. */
typedef struct {
    stm_cell *cell;
    stm_node *node;
    bool is_raw;   /* as the cell's kind; the cell itself may be dead by the end */
    bool is_add;   /* node->value is a difference, see stm_add */
    uint32_t nest; /* serial of the nested block that made the node (stm_nest.c) */
} stm_buffered;

/* What an entry of the write set was before a nested block wrote it again. */
typedef struct {
    stm_node *node;
    uint32_t index; /* of the entry */
    uint32_t nest;
    bool is_raw;
    bool is_add;
} stm_undo;

/* An add of zero is no write. */
static inline bool stm_buffered_is_void(const stm_buffered *w)
{
    return w->is_add && w->node->value == 0;
}

/* Nodes that a thread keeps for its next writes. */
typedef struct {
    stm_node *free_nodes; /* linked by older */
    uint32_t kept;
    _Atomic uint64_t made; /* made - freed, over all records: nodes that exist */
    _Atomic uint64_t freed;
} stm_magazine;

stm_node *stm_node_new_slow(stm_magazine *m);

static inline stm_node *stm_node_new(stm_magazine *m)
{
    stm_node *n = m->free_nodes;
    if (stm_likely(n != NULL)) {
        m->free_nodes = stm_load_rlx(&n->older); /* own list */
        m->kept--;
        return n;
    }
    return stm_node_new_slow(m);
}

void stm_node_recycle(stm_magazine *m, stm_node *n);
void stm_magazine_release(stm_magazine *m);

/* `node` becomes the only version, valid since ever. */
void stm_cell_setup(stm_cell *c, stm_cell_kind kind, stm_node *node, stm_value initial);

/* The newest version <= limit.  Wait-free; the caller's record announces a
 * version <= limit, so what is returned is not cut (INV-CELL-2). */
static inline stm_node *stm_cell_at(stm_node *n, uint64_t limit)
{
    while (n->version > limit) {
        n = stm_load_acq(&n->older); /* pairs with the release of the push */
    }
    return n;
}

#endif
