/* Layer 9: a whole domain: making it, cleaning it, counting, fork. */
#ifndef STM_DOMAIN_H
#define STM_DOMAIN_H

#include "stm_txn.h"

/* Nobody but read and write sets can reach these cells any more: no commit
 * publishes to them from now on.  Then, outside locks: release the values at
 * once, retire the memory, and free the chain with it. */
void stm_cell_kill(stm_domain *d, stm_cell *const *cells, size_t count);
void stm_cell_release_values(stm_domain *d, stm_cell *c);
void stm_cell_free_chain(stm_domain *d, stm_cell *c);
/* Releases chains that were cut or never published; t keeps the nodes (NULL: nobody). */
void stm_garbage_release(stm_domain *d, stm_txn *t, stm_node *garbage);
/* Hands memory over until no running transaction can hold a pointer to it.
 * destroy(object, context) is called outside locks, context being the domain. */
void stm_domain_retire(stm_domain *d, void *object, void (*destroy)(void *, void *));
/* The same where destroy must not be called now, as a lock is held. */
void stm_domain_retire_quietly(stm_domain *d, void *object, void (*destroy)(void *, void *));
/* Destroys the retired objects that can be by now. */
void stm_domain_reclaim(stm_domain *d);

/* Takes `count` numbers for mappings that are born outside of a commit. */
uint64_t stm_domain_births(stm_domain *d, uint64_t count);

/* Commits nodes[i] to cells[i] wherever the value is `absent` for every running
 * and coming transaction, no protected transaction has read it, and t has
 * neither read nor written it; and, if there was such a cell, *also_node to
 * `also` (a raw cell; the node is used up and set to NULL), to which the same
 * conditions apply.  Reorders both arrays: what was done stands in front.
 * Returns how many, and at which version. */
uint32_t stm_cell_sweep(stm_txn *t, stm_value absent, stm_cell **cells, stm_node **nodes,
                        uint32_t count, stm_cell *also, stm_node **also_node, uint64_t *version);

/* Makes a record idle whose thread can't do it any more.  What it had buffered
 * is leaked: releasing needs the host. */
void stm_txn_abandon(stm_txn *t);

#endif
