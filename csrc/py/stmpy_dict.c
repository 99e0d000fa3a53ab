/* Dict: a transactional mapping with a cell for each key.
 *
 * Terms.  Mapping: a key that has a value.  Inside: in an attempt (of a block, or
 * of the operation itself when it stands outside of any).
 *
 * INV-DICT-1  Every operation reads the cell of each key it asks for, also where
 *             the key is absent; so absence is protected exactly, per key.
 * INV-DICT-2  An insert or delete writes `shape` and adds to `size`; replacing a
 *             value writes neither.  Two inserts don't conflict with each other.
 * INV-DICT-3  A mapping keeps its key and its place in the order while it is
 *             there, whatever happens to its value.
 * INV-DICT-4  No pointer from the core is used after Python code has run, unless
 *             a reference was taken.
 *
 * The entry keeps the first key that was ever looked up.  An insert of an equal
 * key that can be told apart from it (1 and 1.0) stores the key beside the
 * value, in a pair.
 *
 * Guarded by tests/stm/test_dict.py, tests/anomalies.
 */
#include "stmpy_dict.h"

#include "stmpy_pair.h"
#include "stmpy_strict.h"

PyTypeObject *stmpy_dict_type;

Py_hash_t stmpy_dict_hash(PyObject *key)
{
    Py_hash_t hash = PyObject_Hash(key);
    if (hash == -1 && PyErr_ExceptionMatches(PyExc_TypeError) &&
        Py_TYPE(key)->tp_hash == PyObject_HashNotImplemented) {
        PyErr_Format(PyExc_TypeError,
                     "unhashable type: '%s': a key of an ame.Dict must not change; use a tuple, "
                     "a frozenset or a str instead",
                     Py_TYPE(key)->tp_name);
    }
    return hash;
}

/* --- one key, inside ------------------------------------------------------------- */

/* An operation on one key. */
typedef struct {
    stmpy_dict *dict;
    PyObject *key;
    Py_hash_t hash;
    PyObject *value; /* the new one, or the default */
} one_key;

/* Reads the cell of the key.  NULL: error. */
static stmpy_entry *read_key(stmpy_thread *th, const one_key *op, stm_value *v)
{
    stmpy_index *x = op->dict->index;
    for (;;) {
        stmpy_entry *e = stmpy_index_get(x, op->key, op->hash);
        if (e == NULL) {
            return NULL;
        }
        stm_status status = stm_read_fast(th->block.txn, &e->cell, v);
        if (stm_unlikely(status != STM_OK)) {
            stmpy_raise(status);
            return NULL;
        }
        if (stm_likely(*v != STMPY_SWEPT)) {
            return e;
        }
        stmpy_index_settle(x);
    }
}

static int note_change(stmpy_thread *th, stmpy_dict *d, int64_t by)
{
    stm_value unused;
    stm_status status = stm_add(th->block.txn, &d->index->size, by);
    if (status == STM_OK) {
        status = stm_write(th->block.txn, &d->index->shape, (stm_value)++th->block.births, &unused);
    }
    return status == STM_OK ? 0 : stmpy_fail(status);
}

/* Writes; on success the core has taken over the reference to `stored`. */
static int write_entry(stmpy_thread *th, stmpy_entry *e, PyObject *stored, uint64_t born)
{
    stm_value replaced;
    stm_status status =
        stm_write_born(th->block.txn, &e->cell, stmpy_handle(stored), born, &replaced);
    if (stm_unlikely(status != STM_OK)) {
        Py_XDECREF(stored);
        return stmpy_fail(status);
    }
    Py_XDECREF(stmpy_object(replaced));
    return 0;
}

static int insert(stmpy_thread *th, const one_key *op, stmpy_entry *e, PyObject *value)
{
    if (stmpy_check_strict(value, "a value of a Dict") < 0) {
        return -1;
    }
    PyObject *stored = Py_NewRef(value);
    if (!stmpy_same_key(e->key, op->key)) {
        stored = stmpy_pair_new(op->key, stored);
        if (stored == NULL) {
            return -1;
        }
    }
    if (note_change(th, op->dict, 1) < 0) {
        Py_DECREF(stored);
        return -1;
    }
    return write_entry(th, e, stored, STM_BORN_NOW | th->block.births);
}

static int replace(stmpy_thread *th, stmpy_entry *e, stm_value old, PyObject *value)
{
    if (stmpy_check_strict(value, "a value of a Dict") < 0) {
        return -1;
    }
    if (stmpy_same_value(stmpy_pair_value(old), value)) {
        return 0; /* not a write; the cell has been read */
    }
    PyObject *stored = Py_NewRef(value);
    PyObject *key = Py_XNewRef(stmpy_pair_key(old));
    if (key != NULL) {
        stored = stmpy_pair_new(key, stored);
        Py_DECREF(key);
        if (stored == NULL) {
            return -1;
        }
    }
    uint64_t born;
    stm_status status = stm_peek(th->block.txn, &e->cell, &old, &born);
    if (status != STM_OK) {
        Py_DECREF(stored);
        return stmpy_fail(status);
    }
    return write_entry(th, e, stored, born);
}

static int remove_key(stmpy_thread *th, stmpy_dict *d, stmpy_entry *e)
{
    if (note_change(th, d, -1) < 0) {
        return -1;
    }
    return write_entry(th, e, NULL, 0);
}

static PyObject *set_body(stmpy_thread *th, void *arg)
{
    one_key *op = arg;
    stm_value v;
    stmpy_entry *e = read_key(th, op, &v);
    if (e == NULL) {
        return NULL;
    }
    int status = v == STMPY_ABSENT ? insert(th, op, e, op->value) : replace(th, e, v, op->value);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

int stmpy_dict_put(stmpy_thread *th, stmpy_dict *d, PyObject *key, Py_hash_t hash, PyObject *value)
{
    one_key op = {d, key, hash, value};
    PyObject *done = set_body(th, &op);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int stmpy_dict_discard(stmpy_thread *th, stmpy_dict *d, PyObject *key)
{
    one_key op = {d, key, stmpy_dict_hash(key), NULL};
    stm_value v;
    stmpy_entry *e = op.hash == -1 ? NULL : read_key(th, &op, &v);
    if (e == NULL) {
        return -1;
    }
    return v == STMPY_ABSENT ? 0 : remove_key(th, d, e);
}

/* The value, or the default (which may be NULL: then KeyError). */
static PyObject *found_or_default(const one_key *op, stm_value v)
{
    if (v != STMPY_ABSENT) {
        return Py_NewRef(stmpy_pair_value(v));
    }
    if (op->value != NULL) {
        return Py_NewRef(op->value);
    }
    PyObject *args = PyTuple_Pack(1, op->key); /* a key that is a tuple stays one */
    if (args != NULL) {
        PyErr_SetObject(PyExc_KeyError, args);
        Py_DECREF(args);
    }
    return NULL;
}

static PyObject *get_body(stmpy_thread *th, void *arg)
{
    one_key *op = arg;
    stm_value v;
    return read_key(th, op, &v) == NULL ? NULL : found_or_default(op, v);
}

static PyObject *contains_body(stmpy_thread *th, void *arg)
{
    stm_value v;
    return read_key(th, arg, &v) == NULL ? NULL : PyBool_FromLong(v != STMPY_ABSENT);
}

static PyObject *pop_body(stmpy_thread *th, void *arg)
{
    one_key *op = arg;
    stm_value v;
    stmpy_entry *e = read_key(th, op, &v);
    PyObject *result = e == NULL ? NULL : found_or_default(op, v);
    if (result != NULL && v != STMPY_ABSENT && remove_key(th, op->dict, e) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *setdefault_body(stmpy_thread *th, void *arg)
{
    one_key *op = arg;
    stm_value v;
    stmpy_entry *e = read_key(th, op, &v);
    if (e == NULL || (v == STMPY_ABSENT && insert(th, op, e, op->value) < 0)) {
        return NULL;
    }
    return found_or_default(op, v);
}

/* --- one key, from Python ----------------------------------------------------------- */

static PyObject *run_one(one_key *op, stmpy_body body)
{
    stmpy_note_use((PyObject *)op->dict, &op->dict->foreign_uses);
    op->hash = stmpy_dict_hash(op->key);
    stmpy_thread *th = op->hash == -1 ? NULL : stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    /* Joined without going through run_block: this is the hot path. */
    return stm_likely(th->block.depth > 0) ? body(th, op)
                                           : stmpy_run_block(th, &stmpy_no_options, NULL, body, op);
}

/* Outside of any block, with a key that needs no Python code to compare: one
 * look at the latest version, no transaction.  False: not decided. */
static bool glance(one_key *op, PyObject **value)
{
    stmpy_thread *th = stmpy_thread_get();
    *value = NULL;
    if (th == NULL || th->block.depth > 0) {
        PyErr_Clear();
        return false;
    }
    stmpy_entry *e;
    stm_value v = STMPY_ABSENT;
    stm_pin(th->block.txn);
    bool decided = stmpy_index_find_simple(op->dict->index, op->key, op->hash, &e) != 0;
    if (decided && e != NULL) {
        v = stm_pinned_read(th->block.txn, &e->cell);
        decided = v != STMPY_SWEPT;
    }
    if (decided && v != STMPY_ABSENT) {
        *value = Py_NewRef(stmpy_pair_value(v));
    }
    stm_unpin(th->block.txn);
    return decided;
}

static PyObject *look_up(one_key *op)
{
    PyObject *value;
    stmpy_note_use((PyObject *)op->dict, &op->dict->foreign_uses);
    op->hash = stmpy_dict_hash(op->key);
    if (op->hash == -1) {
        return NULL;
    }
    if (!stmpy_in_block() && glance(op, &value)) {
        return value != NULL ? value : found_or_default(op, STMPY_ABSENT);
    }
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    return th->block.depth > 0 ? get_body(th, op)
                               : stmpy_run_block(th, &stmpy_no_options, NULL, get_body, op);
}

static PyObject *dict_subscript(PyObject *d, PyObject *key)
{
    one_key op = {(stmpy_dict *)d, key, 0, NULL};
    return look_up(&op);
}

PyObject *stmpy_dict_lookup(stmpy_dict *d, PyObject *key)
{
    PyObject *absent = (PyObject *)stmpy_pair_type; /* no user can have it as a value */
    one_key op = {d, key, 0, absent};
    PyObject *value = look_up(&op);
    if (value == absent) {
        Py_CLEAR(value);
    }
    return value;
}

static int dict_ass_subscript(PyObject *d, PyObject *key, PyObject *value)
{
    one_key op = {(stmpy_dict *)d, key, 0, value};
    PyObject *done = run_one(&op, value == NULL ? pop_body : set_body);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int dict_contains(PyObject *d, PyObject *key)
{
    one_key op = {(stmpy_dict *)d, key, 0, NULL};
    PyObject *value;
    op.hash = stmpy_dict_hash(key);
    if (op.hash == -1) {
        return -1;
    }
    if (!stmpy_in_block() && glance(&op, &value)) {
        Py_XDECREF(value);
        return value != NULL;
    }
    PyObject *answer = run_one(&op, contains_body);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : answer == Py_True;
}

static PyObject *dict_get(PyObject *d, PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 2) {
        return PyErr_Format(PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", count);
    }
    one_key op = {(stmpy_dict *)d, args[0], 0, count == 2 ? args[1] : Py_None};
    return look_up(&op);
}

static PyObject *dict_pop(PyObject *d, PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 2) {
        return PyErr_Format(PyExc_TypeError, "pop expected 1 or 2 arguments, got %zd", count);
    }
    one_key op = {(stmpy_dict *)d, args[0], 0, count == 2 ? args[1] : NULL};
    return run_one(&op, pop_body);
}

static PyObject *dict_setdefault(PyObject *d, PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 2) {
        return PyErr_Format(PyExc_TypeError, "setdefault expected 1 or 2 arguments, got %zd",
                            count);
    }
    one_key op = {(stmpy_dict *)d, args[0], 0, count == 2 ? args[1] : Py_None};
    return run_one(&op, setdefault_body);
}

/* --- the type ------------------------------------------------------------------------- */

static void dict_dealloc(PyObject *op)
{
    stmpy_dict *self = (stmpy_dict *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, dict_dealloc)
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->index != NULL) {
        stmpy_index_end(self->index);
    }
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static int dict_traverse(PyObject *op, visitproc visit, void *arg)
{
    stmpy_index *x = ((stmpy_dict *)op)->index;
    Py_VISIT(Py_TYPE(op));
    return x == NULL ? 0 : stmpy_index_traverse(x, visit, arg);
}

static int dict_tp_clear(PyObject *op)
{
    stmpy_index *x = ((stmpy_dict *)op)->index;
    if (x != NULL && stmpy_index_empty(x) < 0) {
        PyErr_Clear(); /* no memory: the cycle stays until the next collection */
    }
    return 0;
}

static PyObject *dict_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    stmpy_dict *self = (stmpy_dict *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->is_fresh = true;
    self->index = stmpy_index_new();
    if (self->index == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

#define FAST(f) (PyCFunction)(void (*)(void))(f)

static PyMethodDef dict_methods[] = {
    {"get", FAST(dict_get), METH_FASTCALL,
     "get($self, key, default=None, /)\n--\n\n"
     "Returns the value of key, or default where it has none.\n\n"
     "In a transaction: conflicts with others' inserts, changes and deletes of this key only."},
    {"pop", FAST(dict_pop), METH_FASTCALL,
     "pop($self, key, default=<unrepresentable>, /)\n--\n\n"
     "Removes key and returns its value; where it has none, default or KeyError."},
    {"setdefault", FAST(dict_setdefault), METH_FASTCALL,
     "setdefault($self, key, default=None, /)\n--\n\n"
     "Returns the value of key, after inserting default where it had none.\n\n"
     "Outside of a block: one transaction, so exactly one of several threads inserts."},
    {"update", FAST(stmpy_dict_update), METH_VARARGS | METH_KEYWORDS,
     "update($self, mapping_or_pairs=(), /, **kwargs)\n--\n\n"
     "Sets many keys as one transaction."},
    {"popitem", stmpy_dict_popitem, METH_NOARGS,
     "popitem($self)\n--\n\nRemoves the key that was inserted last; returns it with its value."},
    {"clear", stmpy_dict_clear, METH_NOARGS,
     "clear($self)\n--\n\nRemoves every key.  In a transaction: as iterating and deleting."},
    {"copy", stmpy_dict_copy, METH_NOARGS,
     "copy($self)\n--\n\nReturns a new Dict with the same mappings, all at one version."},
    {"keys", stmpy_dict_keys, METH_NOARGS,
     "keys($self)\n--\n\nReturns a view of the keys; iterating it reads no value."},
    {"values", stmpy_dict_values, METH_NOARGS,
     "values($self)\n--\n\nReturns a view of the values."},
    {"items", stmpy_dict_items, METH_NOARGS,
     "items($self)\n--\n\nReturns a view of the (key, value) pairs."},
    {"__reversed__", stmpy_dict_reversed, METH_NOARGS, NULL},
    {"_cells", stmpy_dict_cells, METH_NOARGS, NULL},
    {"__reduce__", stmpy_dict_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef dict_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(stmpy_dict, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static const char dict_doc[] =
    "Dict(mapping_or_pairs=(), /, **kwargs)\n--\n\n"
    "A transactional dict: conflicts are per key, iteration is in insertion order.\n\n"
    "In a transaction: operations on distinct keys never conflict, equal hashes or not.  A key\n"
    "that was looked up in vain conflicts with its insertion.  len() conflicts with a net change\n"
    "of size, iteration with inserts and deletes; inserts don't conflict with each other.\n"
    "Outside: every operation is a transaction of its own; iteration sees one version.\n"
    "Writing the value that is already there counts as a read.";

static PyType_Slot dict_slots[] = {
    {Py_tp_doc, (void *)dict_doc},
    {Py_tp_new, dict_new},
    {Py_tp_init, stmpy_dict_init},
    {Py_tp_dealloc, dict_dealloc},
    {Py_tp_traverse, dict_traverse},
    {Py_tp_clear, dict_tp_clear},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_repr, stmpy_dict_repr},
    {Py_tp_richcompare, stmpy_dict_compare},
    {Py_tp_iter, stmpy_dict_iter},
    {Py_tp_methods, dict_methods},
    {Py_tp_members, dict_members},
    {Py_mp_subscript, dict_subscript},
    {Py_mp_ass_subscript, dict_ass_subscript},
    {Py_mp_length, stmpy_dict_mp_length},
    {Py_sq_contains, dict_contains},
    {0, NULL},
};

static PyType_Spec dict_spec = {
    .name = "ame.Dict",
    .basicsize = sizeof(stmpy_dict),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_MAPPING,
    .slots = dict_slots,
};

int stmpy_dict_install(PyObject *module)
{
    if (stmpy_pair_install(module) < 0) {
        return -1;
    }
    stmpy_dict_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &dict_spec, NULL);
    if (stmpy_dict_type == NULL) {
        return -1;
    }
    return PyModule_AddType(module, stmpy_dict_type);
}
