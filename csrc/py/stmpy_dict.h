/* Dict: what its files share. */
#ifndef STMPY_DICT_H
#define STMPY_DICT_H

#include "stmpy_table.h"

typedef struct {
    PyObject_HEAD
    stmpy_index *index;
    PyObject *weakrefs;
    _Atomic uint32_t foreign_uses; /* see stmpy_note_use */
    bool is_fresh;                 /* __init__ has not run: nobody else knows it */
} stmpy_dict;

extern PyTypeObject *stmpy_dict_type;

typedef enum { STMPY_KEYS, STMPY_VALUES, STMPY_ITEMS } stmpy_part;

/* A list of keys, values or (key, value) tuples at one version, in insertion
 * order.  Joins the open block, or is a read-only one of its own. */
PyObject *stmpy_dict_list(stmpy_dict *d, stmpy_part part);
/* -1: error. */
Py_ssize_t stmpy_dict_length(stmpy_dict *d);
/* A new reference; NULL without an exception: absent. */
PyObject *stmpy_dict_lookup(stmpy_dict *d, PyObject *key);
/* -1 with TypeError that names the remedy. */
Py_hash_t stmpy_dict_hash(PyObject *key);
/* Sets one key, in an attempt.  hash: of the key. */
int stmpy_dict_put(stmpy_thread *th, stmpy_dict *d, PyObject *key, Py_hash_t hash, PyObject *value);
/* Removes one key if it is there, in an attempt. */
int stmpy_dict_discard(stmpy_thread *th, stmpy_dict *d, PyObject *key);

/* stmpy_dictbulk.c: what deals with all keys. */
int stmpy_dict_init(PyObject *d, PyObject *args, PyObject *kwargs);
PyObject *stmpy_dict_update(PyObject *d, PyObject *args, PyObject *kwargs);
PyObject *stmpy_dict_clear(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_copy(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_popitem(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_repr(PyObject *d);
/* {address of a cell: (key,), or None for its size}, for messages (stm/_owners.py). */
PyObject *stmpy_dict_cells(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_compare(PyObject *a, PyObject *b, int op);
PyObject *stmpy_dict_reduce(PyObject *d, PyObject *unused);
Py_ssize_t stmpy_dict_mp_length(PyObject *d);

/* stmpy_dictview.c: views and iterators. */
PyObject *stmpy_dict_iter(PyObject *d);
PyObject *stmpy_dict_keys(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_values(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_items(PyObject *d, PyObject *unused);
PyObject *stmpy_dict_reversed(PyObject *d, PyObject *unused);

#endif
