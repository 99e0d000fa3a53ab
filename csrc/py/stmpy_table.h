/* The index of a Dict: from keys to entries, each with a cell. */
#ifndef STMPY_TABLE_H
#define STMPY_TABLE_H

#include "stmpy_state.h"

/* One cache line.  Its existence is not transactional; what its cell says is:
 * STMPY_ABSENT, a value, or STMPY_SWEPT. */
typedef struct {
    stm_cell cell;
    PyObject *key; /* a strong reference; the first key that was ever looked up */
    Py_hash_t hash;
} stmpy_entry;

#define STMPY_ABSENT ((stm_value)0)
/* The entry is no longer in the index: look the key up again. */
#define STMPY_SWEPT ((stm_value)1)

/* Immutable but for appending; replaced as a whole when full. */
typedef struct {
    uint64_t mask; /* slots - 1 */
    uint32_t capacity;
    _Atomic uint32_t used; /* entries in `order`, which stand there before it says so */
    _Atomic(stmpy_entry *) *slots;
    _Atomic(stmpy_entry *) *order; /* in order of creation */
} stmpy_table;

/* What a Dict owns and read sets may point into: outlives the Dict object. */
typedef struct {
    stm_cell shape;                  /* written by every insert and delete, read by iteration */
    alignas(STM_LINE) stm_cell size; /* the number of mappings; commuting adds */
    alignas(STM_LINE) _Atomic(stmpy_table *) table;
    uint64_t swept_at; /* the version of the last sweep; under lock */
    stmpy_mutex lock;  /* of inserting entries; no Python code runs under it */
} stmpy_index;

/* NULL with MemoryError set. */
stmpy_index *stmpy_index_new(void);
/* Takes all versions away and hands the memory over to reclamation. */
void stmpy_index_end(stmpy_index *x);
/* As new: forgets every entry.  Only for an index that nobody else uses. */
int stmpy_index_empty(stmpy_index *x);
int stmpy_index_traverse(stmpy_index *x, visitproc visit, void *arg);

/* Finds the entry of a key; *found is NULL if there is none.  -1: comparing
 * keys raised.  May run Python code.  The record is in an attempt. */
int stmpy_index_find(stmpy_index *x, PyObject *key, Py_hash_t hash, stmpy_entry **found);
/* The same, creating an absent entry where there is none. */
stmpy_entry *stmpy_index_get(stmpy_index *x, PyObject *key, Py_hash_t hash);
/* Without running Python code: 1 found or certainly not there (*found NULL), 0
 * undecided. */
int stmpy_index_find_simple(stmpy_index *x, PyObject *key, Py_hash_t hash, stmpy_entry **found);

/* For a Dict that is being built: the value since ever.  Steals nothing. */
int stmpy_index_preset(stmpy_index *x, PyObject *key, Py_hash_t hash, PyObject *value,
                       uint64_t born, bool *is_new);
void stmpy_index_preset_size(stmpy_index *x, Py_ssize_t size);
/* Waits until a sweep that is going on has published its table. */
void stmpy_index_settle(stmpy_index *x);

static inline stmpy_table *stmpy_index_table(stmpy_index *x)
{
    return stm_load_acq(&x->table); /* pairs with the release of publish */
}

#endif
