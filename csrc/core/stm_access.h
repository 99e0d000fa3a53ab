/* Layer 8: reads and writes inside a transaction. */
#ifndef STM_ACCESS_H
#define STM_ACCESS_H

#include "stm_txn.h"

#define STM_BORN_NOW ((uint64_t)1 << 63) /* | a number that grows within the attempt */

stm_status stm_read_slow(stm_txn *t, stm_cell *c, stm_value *out);

/* stm_read, for callers in C that want it inlined. */
static inline stm_status stm_read_fast(stm_txn *t, stm_cell *c, stm_value *out)
{
    if (stm_likely((t->write_filter & stm_cell_bit(c)) == 0)) {
        /* INV-CELL-2: rv was fixed before this load.  Acquire: pairs with the
         * push of the commit, so that the node's fields are there. */
        const stm_node *n = stm_load_acq(&c->head);
        if (stm_likely(n->version < t->below)) {
            uint32_t slot = (uint32_t)((uintptr_t)c >> 6) & (STM_FILTER - 1);
            uint32_t seen = t->filter[slot];
            if (seen < t->read_count && t->reads[seen] == c) {
                *out = n->value;
                return STM_OK;
            }
            if (stm_likely(t->read_count < t->read_limit)) {
                t->filter[slot] = t->read_count;
                t->reads[t->read_count++] = c;
                *out = n->value;
                return STM_OK;
            }
        }
    }
    return stm_read_slow(t, c, out);
}

/* The entry of the write set, or NULL. */
stm_buffered *stm_find_write(stm_txn *t, const stm_cell *c);

#endif
