/* Dict: what deals with all keys: gathering, filling, comparing.
 *
 * INV-BULK-1  Gathering runs no Python code between the first cell and the last,
 *             and takes references before it returns: one version, no surprises.
 * INV-BULK-2  A Dict that is being built is nobody else's: its first mappings are
 *             put in as if they had been there ever since, without a transaction.
 *
 * Guarded by tests/stm/test_dict.py.
 */
#include "stmpy_dict.h"
#include "stmpy_pair.h"
#include "stmpy_strict.h"

/* --- gathering ----------------------------------------------------------------------- */

typedef struct {
    uint64_t born;
    PyObject *key;
    PyObject *value; /* NULL where only keys were asked for */
} found;

typedef struct {
    found *items;
    Py_ssize_t count;
    bool ordered;
} harvest;

static int by_birth(const void *a, const void *b)
{
    uint64_t x = ((const found *)a)->born, y = ((const found *)b)->born;
    return x < y ? -1 : x > y;
}

/* One entry: 1 present, 0 absent, -1 error. */
static int look(stmpy_thread *th, stmpy_entry *e, bool with_values, found *f)
{
    stm_value v;
    stm_status status = stm_peek(th->block.txn, &e->cell, &v, &f->born);
    if (status == STM_OK && v > STMPY_SWEPT && with_values) {
        status = stm_read_fast(th->block.txn, &e->cell, &v);
        if (status == STM_OK) { /* it may have moved on to a newer version */
            status = stm_peek(th->block.txn, &e->cell, &v, &f->born);
        }
    }
    if (status != STM_OK) {
        return stmpy_fail(status);
    }
    if (v <= STMPY_SWEPT) {
        return 0;
    }
    PyObject *key = stmpy_pair_key(v);
    f->key = key != NULL ? key : e->key;
    f->value = with_values ? stmpy_pair_value(v) : NULL;
    return 1;
}

/* Borrowed objects, valid until Python code runs.  Inside. */
static int gather(stmpy_thread *th, stmpy_dict *d, bool with_values, harvest *h)
{
    stm_value shape;
    stm_status status = stm_read_fast(th->block.txn, &d->index->shape, &shape);
    if (status != STM_OK) {
        return stmpy_fail(status);
    }
    stmpy_table *t = stmpy_index_table(d->index);
    uint32_t used = stm_load_acq(&t->used);
    h->count = 0;
    h->ordered = true;
    h->items = PyMem_New(found, used == 0 ? 1 : used);
    if (h->items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    uint64_t last = 0;
    for (uint32_t i = 0; i < used; i++) {
        found *f = &h->items[h->count];
        int present = look(th, stm_load_acq(&t->order[i]), with_values, f);
        if (present < 0) {
            PyMem_Free(h->items);
            return -1;
        }
        if (present) {
            h->ordered = h->ordered && f->born >= last;
            last = f->born;
            h->count++;
        }
    }
    if (!h->ordered) {
        qsort(h->items, (size_t)h->count, sizeof(found), by_birth);
    }
    return 0;
}

static PyObject *part_of(const found *f, stmpy_part part)
{
    switch (part) {
    case STMPY_KEYS:
        return Py_NewRef(f->key);
    case STMPY_VALUES:
        return Py_NewRef(f->value);
    default:
        return PyTuple_Pack(2, f->key, f->value);
    }
}

typedef struct {
    stmpy_dict *dict;
    stmpy_part part;
} listing;

static PyObject *list_body(stmpy_thread *th, void *arg)
{
    listing *what = arg;
    harvest h;
    if (gather(th, what->dict, what->part != STMPY_KEYS, &h) < 0) {
        return NULL;
    }
    /* The list exists before anything in it is referenced, and nothing here
     * runs Python code: on 3.11 a collection may start when a tuple is made, so
     * references are taken first. */
    for (Py_ssize_t i = 0; i < h.count; i++) {
        Py_INCREF(h.items[i].key);
        Py_XINCREF(h.items[i].value);
    }
    PyObject *list = PyList_New(h.count);
    for (Py_ssize_t i = 0; i < h.count; i++) {
        PyObject *item = list == NULL ? NULL : part_of(&h.items[i], what->part);
        Py_DECREF(h.items[i].key);
        Py_XDECREF(h.items[i].value);
        if (item != NULL) {
            PyList_SET_ITEM(list, i, item);
        } else {
            Py_CLEAR(list);
        }
    }
    PyMem_Free(h.items);
    return list;
}

PyObject *stmpy_dict_list(stmpy_dict *d, stmpy_part part)
{
    stmpy_thread *th = stmpy_thread_get();
    listing what = {d, part};
    if (th == NULL) {
        return NULL;
    }
    return stmpy_run_block(th, &stmpy_reading, NULL, list_body, &what);
}

static int add_cell(PyObject *cells, const stm_cell *c, PyObject *key)
{
    PyObject *number = PyLong_FromVoidPtr((void *)(uintptr_t)c);
    int status = number == NULL ? -1 : PyDict_SetItem(cells, number, key);
    Py_XDECREF(number);
    return status;
}

static PyObject *cells_body(stmpy_thread *th, void *arg)
{
    stmpy_index *x = ((stmpy_dict *)arg)->index;
    stmpy_table *t = stmpy_index_table(x);
    uint32_t used = stm_load_acq(&t->used);
    PyObject *cells = PyDict_New();
    int status = cells == NULL ? -1 : add_cell(cells, &x->shape, Py_None);
    status = status < 0 ? -1 : add_cell(cells, &x->size, Py_None);
    for (uint32_t i = 0; status == 0 && i < used; i++) {
        stmpy_entry *e = stm_load_acq(&t->order[i]); /* alive as long as this block runs */
        PyObject *key = PyTuple_Pack(1, e->key);
        status = key == NULL ? -1 : add_cell(cells, &e->cell, key);
        Py_XDECREF(key);
    }
    if (status < 0) {
        Py_CLEAR(cells);
    }
    return cells;
}

PyObject *stmpy_dict_cells(PyObject *d, PyObject *unused)
{
    stmpy_thread *th = stmpy_thread_get();
    return th == NULL ? NULL : stmpy_run_block(th, &stmpy_reading, NULL, cells_body, d);
}

Py_ssize_t stmpy_dict_length(stmpy_dict *d)
{
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return -1;
    }
    stm_value size;
    if (th->block.depth > 0) {
        stm_status status = stm_read_fast(th->block.txn, &d->index->size, &size);
        return status == STM_OK ? (Py_ssize_t)size : stmpy_fail(status);
    }
    stm_pin(th->block.txn);
    size = stm_pinned_read(th->block.txn, &d->index->size);
    stm_unpin(th->block.txn);
    return (Py_ssize_t)size;
}

Py_ssize_t stmpy_dict_mp_length(PyObject *d)
{
    return stmpy_dict_length((stmpy_dict *)d);
}

/* --- filling ------------------------------------------------------------------------- */

/* An argument of dict() as a list of (key, value) pairs. */
static PyObject *pairs_of(PyObject *source)
{
    if (PyObject_TypeCheck(source, stmpy_dict_type)) {
        return stmpy_dict_list((stmpy_dict *)source, STMPY_ITEMS);
    }
    if (PyDict_CheckExact(source)) {
        return PyDict_Items(source);
    }
    /* dict() knows every other form, and its error messages. */
    PyObject *plain = PyObject_CallOneArg((PyObject *)&PyDict_Type, source);
    PyObject *pairs = plain == NULL ? NULL : PyDict_Items(plain);
    Py_XDECREF(plain);
    return pairs;
}

/* All that a call of Dict or update gives, as one list; NULL: error. */
static PyObject *arguments(const char *name, PyObject *args, PyObject *kwargs)
{
    PyObject *source = NULL;
    if (!PyArg_UnpackTuple(args, name, 0, 1, &source)) {
        return NULL;
    }
    PyObject *pairs = source == NULL ? PyList_New(0) : pairs_of(source);
    if (pairs != NULL && kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyObject *more = PyDict_Items(kwargs);
        PyObject *both = more == NULL ? NULL : PySequence_InPlaceConcat(pairs, more);
        Py_XDECREF(more);
        Py_DECREF(pairs);
        pairs = both;
    }
    return pairs;
}

static int preset(stmpy_dict *d, PyObject *pairs)
{
    Py_ssize_t count = PyList_GET_SIZE(pairs), size = 0;
    uint64_t born = stm_domain_births(stmpy_domain, (uint64_t)count);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GET_ITEM(pairs, i); /* our own list */
        Py_hash_t hash = stmpy_dict_hash(PyTuple_GET_ITEM(pair, 0));
        bool is_new;
        if (hash == -1 || stmpy_check_strict(PyTuple_GET_ITEM(pair, 1), "a value of a Dict") < 0 ||
            stmpy_index_preset(d->index, PyTuple_GET_ITEM(pair, 0), hash, PyTuple_GET_ITEM(pair, 1),
                               born + (uint64_t)i, &is_new) < 0) {
            return -1;
        }
        size += is_new;
    }
    stmpy_index_preset_size(d->index, size);
    return 0;
}

typedef struct {
    stmpy_dict *dict;
    PyObject *pairs;
} filling;

static PyObject *fill_body(stmpy_thread *th, void *arg)
{
    filling *f = arg;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(f->pairs); i++) {
        PyObject *pair = PyList_GET_ITEM(f->pairs, i); /* our own list */
        PyObject *key = PyTuple_GET_ITEM(pair, 0);
        Py_hash_t hash = stmpy_dict_hash(key);
        if (hash == -1 || stmpy_dict_put(th, f->dict, key, hash, PyTuple_GET_ITEM(pair, 1)) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *fill(stmpy_dict *d, PyObject *pairs)
{
    stmpy_thread *th = stmpy_thread_get();
    filling f = {d, pairs};
    return th == NULL ? NULL : stmpy_run_block(th, &stmpy_no_options, NULL, fill_body, &f);
}

typedef struct {
    stmpy_dict *dict;
    PyObject *args;
    PyObject *kwargs;
} updating;

/* The arguments are read in the block too: they may be a Dict. */
static PyObject *update_body(stmpy_thread *th, void *arg)
{
    updating *u = arg;
    PyObject *pairs = arguments("update", u->args, u->kwargs);
    PyObject *done = pairs == NULL ? NULL : fill(u->dict, pairs);
    Py_XDECREF(pairs);
    return done;
}

/* Does it read a Dict of ours?  Other sources are read once, before the block. */
static bool reads_ours(PyObject *args)
{
    return PyTuple_GET_SIZE(args) == 1 &&
           PyObject_TypeCheck(PyTuple_GET_ITEM(args, 0), stmpy_dict_type);
}

int stmpy_dict_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    stmpy_dict *d = (stmpy_dict *)op;
    PyObject *pairs = arguments("Dict", args, kwargs);
    if (pairs == NULL) {
        return -1;
    }
    int status;
    bool untouched = stm_load_acq(&stmpy_index_table(d->index)->used) == 0;
    if (d->is_fresh && untouched) {
        d->is_fresh = false;
        status = preset(d, pairs);
    } else { /* called once more: an update like any other */
        PyObject *done = fill(d, pairs);
        status = done == NULL ? -1 : 0;
        Py_XDECREF(done);
    }
    Py_DECREF(pairs);
    return status;
}

PyObject *stmpy_dict_update(PyObject *d, PyObject *args, PyObject *kwargs)
{
    updating u = {(stmpy_dict *)d, args, kwargs};
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    return reads_ours(args) ? stmpy_run_block(th, &stmpy_no_options, NULL, update_body, &u)
                            : update_body(th, &u);
}

static PyObject *clear_body(stmpy_thread *th, void *arg)
{
    PyObject *keys = stmpy_dict_list(arg, STMPY_KEYS);
    if (keys == NULL) {
        return NULL;
    }
    int status = 0;
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(keys); i++) {
        status = stmpy_dict_discard(th, arg, PyList_GET_ITEM(keys, i)); /* our own list */
    }
    Py_DECREF(keys);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *stmpy_dict_clear(PyObject *d, PyObject *unused)
{
    stmpy_thread *th = stmpy_thread_get();
    return th == NULL ? NULL : stmpy_run_block(th, &stmpy_no_options, NULL, clear_body, d);
}

PyObject *stmpy_dict_copy(PyObject *d, PyObject *unused)
{
    return PyObject_CallOneArg((PyObject *)stmpy_dict_type, d);
}

/* (type, (), instance dict or None, None, iterator of pairs): the pairs come after
 * the object, so that a Dict may hold itself. */
PyObject *stmpy_dict_reduce(PyObject *d, PyObject *unused)
{
    PyObject *state = stmpy_instance_dict(d);
    PyObject *pairs = state == NULL ? NULL : stmpy_dict_list((stmpy_dict *)d, STMPY_ITEMS);
    PyObject *iterator = pairs == NULL ? NULL : PyObject_GetIter(pairs);
    Py_XDECREF(pairs);
    if (iterator == NULL) {
        Py_XDECREF(state);
        return NULL;
    }
    return Py_BuildValue("O()NON", Py_TYPE(d), state, Py_None, iterator);
}

static PyObject *popitem_body(stmpy_thread *th, void *arg)
{
    PyObject *pairs = stmpy_dict_list(arg, STMPY_ITEMS);
    if (pairs == NULL) {
        return NULL;
    }
    PyObject *last = NULL;
    Py_ssize_t count = PyList_GET_SIZE(pairs);
    if (count == 0) {
        PyErr_SetString(PyExc_KeyError, "popitem(): the Dict is empty");
    } else {
        last = Py_NewRef(PyList_GET_ITEM(pairs, count - 1)); /* our own list */
        if (stmpy_dict_discard(th, arg, PyTuple_GET_ITEM(last, 0)) < 0) {
            Py_CLEAR(last);
        }
    }
    Py_DECREF(pairs);
    return last;
}

PyObject *stmpy_dict_popitem(PyObject *d, PyObject *unused)
{
    stmpy_thread *th = stmpy_thread_get();
    return th == NULL ? NULL : stmpy_run_block(th, &stmpy_no_options, NULL, popitem_body, d);
}

/* --- showing and comparing ------------------------------------------------------------- */

static PyObject *plain_of(PyObject *pairs)
{
    PyObject *plain = PyDict_New();
    if (plain != NULL && PyDict_MergeFromSeq2(plain, pairs, 1) < 0) {
        Py_CLEAR(plain);
    }
    return plain;
}

/* A plain dict with the mappings, at one version. */
static PyObject *as_plain(PyObject *d)
{
    PyObject *pairs = stmpy_dict_list((stmpy_dict *)d, STMPY_ITEMS);
    PyObject *plain = pairs == NULL ? NULL : plain_of(pairs);
    Py_XDECREF(pairs);
    return plain;
}

PyObject *stmpy_dict_repr(PyObject *d)
{
    int recursive = Py_ReprEnter(d);
    if (recursive != 0) {
        return recursive < 0 ? NULL : PyUnicode_FromString("Dict({...})");
    }
    PyObject *text = NULL;
    PyObject *plain = as_plain(d);
    if (plain != NULL) {
        text = PyUnicode_FromFormat("Dict(%R)", plain);
        Py_DECREF(plain);
    }
    Py_ReprLeave(d);
    return text;
}

/* Lists both at one version; the objects in them are compared outside, as that
 * may run any code. */
static PyObject *both_body(stmpy_thread *th, void *arg)
{
    PyObject **pair = arg;
    PyObject *x = stmpy_dict_list((stmpy_dict *)pair[0], STMPY_ITEMS);
    PyObject *y = x == NULL ? NULL : stmpy_dict_list((stmpy_dict *)pair[1], STMPY_ITEMS);
    PyObject *both = y == NULL ? NULL : PyTuple_Pack(2, x, y);
    Py_XDECREF(x);
    Py_XDECREF(y);
    return both;
}

/* Two of ours as plain dicts of one moment. */
static int both_plain(PyObject *a, PyObject *b, PyObject **x, PyObject **y)
{
    PyObject *pair[] = {a, b};
    stmpy_thread *th = stmpy_thread_get();
    PyObject *both = th == NULL ? NULL : stmpy_run_block(th, &stmpy_reading, NULL, both_body, pair);
    if (both == NULL) {
        return -1;
    }
    *x = plain_of(PyTuple_GET_ITEM(both, 0));
    *y = *x == NULL ? NULL : plain_of(PyTuple_GET_ITEM(both, 1));
    Py_DECREF(both);
    if (*y == NULL) {
        Py_CLEAR(*x);
        return -1;
    }
    return 0;
}

PyObject *stmpy_dict_compare(PyObject *a, PyObject *b, int op)
{
    bool ours = PyObject_TypeCheck(b, stmpy_dict_type);
    if ((op != Py_EQ && op != Py_NE) || (!ours && !PyDict_Check(b))) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *x = NULL, *y = NULL;
    if (ours) {
        if (both_plain(a, b, &x, &y) < 0) {
            return NULL;
        }
    } else {
        x = as_plain(a);
        y = Py_NewRef(b);
    }
    PyObject *answer = x == NULL ? NULL : PyObject_RichCompare(x, y, op);
    Py_XDECREF(x);
    Py_XDECREF(y);
    return answer;
}
