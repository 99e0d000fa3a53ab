/* When two objects are the same; and a value that brings its key along. */
#ifndef STMPY_PAIR_H
#define STMPY_PAIR_H

#include "stmpy_state.h"

typedef struct {
    PyObject_HEAD
    PyObject *key;
    PyObject *value;
} stmpy_pair;

extern PyTypeObject *stmpy_pair_type;

/* Equal, exact and immutable: nobody can tell the two apart but by identity. */
bool stmpy_same_value(PyObject *a, PyObject *b);
/* The same for two keys that are known to be equal. */
bool stmpy_same_key(PyObject *a, PyObject *b);

/* A new reference to the __dict__ of an instance of a subclass, or to None; NULL: error. */
PyObject *stmpy_instance_dict(PyObject *o);

/* Steals the reference to value; NULL: no memory. */
PyObject *stmpy_pair_new(PyObject *key, PyObject *value);

static inline bool stmpy_is_pair(stm_value v)
{
    return Py_TYPE(stmpy_object(v)) == stmpy_pair_type;
}

/* What a Dict's cell says the value is: borrowed. */
static inline PyObject *stmpy_pair_value(stm_value v)
{
    return stm_unlikely(stmpy_is_pair(v)) ? ((stmpy_pair *)v)->value : stmpy_object(v);
}

/* The key it brings along: borrowed; NULL: that of the entry. */
static inline PyObject *stmpy_pair_key(stm_value v)
{
    return stm_unlikely(stmpy_is_pair(v)) ? ((stmpy_pair *)v)->key : NULL;
}

int stmpy_pair_install(PyObject *module);

#endif
