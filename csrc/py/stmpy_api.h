/* What cffi sees of the CPython layer: installing it, and its domain. */
#ifndef STMPY_API_H
#define STMPY_API_H

#include "stm_api.h"

/* Adds the types and functions to the module object at this address, which also
 * holds the exception classes that C raises.  0: done; -1: an exception was set
 * and printed.  Call once per process, from the main interpreter. */
int stmpy_install(uintptr_t module);
/* The domain of all Python objects; NULL before stmpy_install. */
stm_domain *stmpy_get_domain(void);

#endif
