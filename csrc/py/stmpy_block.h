/* Running blocks: what the files about blocks share. */
#ifndef STMPY_BLOCK_H
#define STMPY_BLOCK_H

#include "stmpy_state.h"

/* An exception put away while other code runs. */
typedef struct {
    PyObject *type; /* unused from 3.12 on */
    PyObject *value;
    PyObject *traceback; /* unused from 3.12 on */
} stmpy_error;

void stmpy_save_error(stmpy_error *e);
void stmpy_restore_error(stmpy_error *e);

/* A Python call as the body of a block. */
typedef struct {
    PyObject *fn;
    PyObject *const *args;
    size_t nargsf;
    PyObject *kwnames;
} stmpy_call;

PyObject *stmpy_call_body(stmpy_thread *th, void *call);

/* The number of a label: NULL and None have none.  -1: not a str. */
int stmpy_label(PyObject *label, uint32_t *number);

/* -1 with TypeError: not callable, or a body that would run outside of the block. */
int stmpy_check_function(PyObject *fn, const char *who);

int stmpy_atomic_install(PyObject *module);

#endif
