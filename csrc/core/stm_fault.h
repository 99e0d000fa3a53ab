/* Memory from the host, in a form in which a test can make it fail.
 *
 * stm_fault_countdown: the n-th allocation from now on returns NULL (0: none).
 * Only tests write it.  With STM_NO_FAULTS the check is compiled out.
 */
#ifndef STM_FAULT_H
#define STM_FAULT_H

#include <stdlib.h>

#include "stm_atomic.h"

extern _Atomic int64_t stm_fault_countdown;

static inline bool stm_fault_now(void)
{
#if defined(STM_NO_FAULTS)
    return false;
#else
    if (stm_likely(stm_load_rlx(&stm_fault_countdown) == 0)) {
        return false;
    }
    return stm_fetch_add(&stm_fault_countdown, -1) == 1;
#endif
}

static inline void *stm_alloc(size_t size)
{
    return stm_fault_now() ? NULL : malloc(size);
}

static inline void *stm_realloc(void *p, size_t size)
{
    return stm_fault_now() ? NULL : realloc(p, size);
}

/* Whole cache lines, zeroed: for what threads fight over. */
static inline void *stm_alloc_lines(size_t size)
{
    size_t whole = (size + STM_LINE - 1) / STM_LINE * STM_LINE;
    void *p = stm_fault_now() ? NULL : aligned_alloc(STM_LINE, whole);
    if (p != NULL) {
        __builtin_memset(p, 0, whole);
    }
    return p;
}

#endif
