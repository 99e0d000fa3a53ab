/* Layer 7: is what was read still what is there? */
#ifndef STM_VALIDATE_H
#define STM_VALIDATE_H

#include "stm_txn.h"

typedef struct {
    stm_cell *cell;
    uint64_t version;
} stm_overwritten;

/* Did nothing committed in (t->rv, to] overwrite what t has read? */
bool stm_validate(stm_txn *t, uint64_t to, stm_overwritten *by);
/* The same inside the commit section: allocates nothing. */
bool stm_validate_locked(stm_txn *t, uint64_t to, stm_overwritten *by);
/* Would that be little work?  If not, stm_validate outside first. */
bool stm_validate_is_short(stm_txn *t, uint64_t to);
/* Validates up to the clock and moves rv there; false: overwritten, rv as it was. */
bool stm_extend(stm_txn *t, stm_overwritten *by);

/* Makes stm_has_read exact; false: no memory. */
bool stm_index_reads(stm_txn *t);
bool stm_has_read(const stm_txn *t, const stm_cell *c);

#endif
