/* Strict mode: what may be put into transactional state. */
#ifndef STMPY_STRICT_H
#define STMPY_STRICT_H

#include "stmpy_state.h"

extern _Atomic bool stmpy_is_strict;

int stmpy_check_tracked(PyObject *value, const char *where);

/* -1 with UntrackedMutable: strict mode is on and value is a plain mutable. */
static inline int stmpy_check_strict(PyObject *value, const char *where)
{
    return stm_unlikely(stm_load_rlx(&stmpy_is_strict)) ? stmpy_check_tracked(value, where) : 0;
}

#endif
