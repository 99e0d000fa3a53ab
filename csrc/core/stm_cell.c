/* Cells and their chains of versions.
 *
 * INV-CELL-1  Versions fall strictly from head to tail; the last node of a
 *             chain is at or below the horizon, so a walk with a limit that
 *             some record announces always ends at a node.
 * INV-CELL-2  A node is cut only when every running transaction stops at a
 *             newer one (stm_epoch.c), and only under the commit lock.  Heads
 *             are loaded after the read version was fixed, never before.
 * INV-CELL-3  A dead cell never gets a new version.
 *
 * Guarded by tests/core (the model walks every chain) and tests/anomalies.
 */
#include "stm_cell.h"

/* Enough for the versions that pile up while another thread of a long transaction
 * is off its processor; 64 KiB. */
enum { MAGAZINE = 2048 };

stm_node *stm_node_new_slow(stm_magazine *m)
{
    stm_node *n = stm_alloc(sizeof(*n));
    if (n != NULL) {
        stm_count(&m->made, 1);
    }
    return n;
}

void stm_node_recycle(stm_magazine *m, stm_node *n)
{
    if (m->kept < MAGAZINE) {
        stm_store_rlx(&n->older, m->free_nodes); /* own list */
        m->free_nodes = n;
        m->kept++;
    } else {
        stm_count(&m->freed, 1);
        free(n);
    }
}

void stm_magazine_release(stm_magazine *m)
{
    while (m->free_nodes != NULL) {
        stm_node *n = m->free_nodes;
        m->free_nodes = stm_load_rlx(&n->older);
        stm_count(&m->freed, 1);
        free(n);
    }
    m->kept = 0;
}

void stm_cell_setup(stm_cell *c, stm_cell_kind kind, stm_node *node, stm_value initial)
{
    node->value = initial;
    node->version = 0;
    node->born = 0;
    node->label = 0;
    node->thread = 0;
    stm_store_rlx(&node->older, NULL); /* the cell is not shared yet */
    stm_store_rlx(&c->guard, 0);
    c->trim_next = NULL;
    c->trim_prev = NULL;
    c->trim_at = 0;
    c->flags = kind == STM_CELL_RAW ? STM_CELL_IS_RAW : 0;
    c->trim_owner = 0;
    stm_store_rlx(&c->head, node);
}

uint64_t stm_cell_versions(stm_cell *c)
{
    uint64_t n = 0;
    for (stm_node *v = stm_load_acq(&c->head); v != NULL; v = stm_load_acq(&v->older)) {
        n++;
    }
    return n;
}
