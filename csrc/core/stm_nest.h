/* Layer 7: nested blocks, which can be undone by themselves. */
#ifndef STM_NEST_H
#define STM_NEST_H

#include "stm_txn.h"

/* Before an open nested block writes w: remembers what it is, and gives it a node
 * of its own with the same value.  False: no memory, nothing was changed. */
bool stm_nest_save(stm_txn *t, stm_buffered *w);
/* The attempt has ended: nothing is nested any more. */
void stm_nest_forget(stm_txn *t);

/* Was the entry made before the open nested block began? */
static inline bool stm_nest_is_older(const stm_txn *t, const stm_buffered *w)
{
    return w->nest < t->nest;
}

#endif
