/* Dict: views and iterators.
 *
 * INV-VIEW-1  An iterator walks a list that was gathered when it was made, so it
 *             sees one version.
 * INV-VIEW-2  In the block in which it was made it raises RuntimeError when keys
 *             were inserted or deleted since, as a dict's does.  Outside, others
 *             may change the Dict at any time, and it goes on with its version.
 *
 * Guarded by tests/stm/test_dict_views.py.
 */
#include "stmpy_dict.h"

typedef struct {
    PyObject_HEAD
    stmpy_dict *dict;
    stmpy_part part;
} view_object;

typedef struct {
    PyObject_HEAD
    stmpy_dict *dict;
    PyObject *list;          /* private */
    _Atomic Py_ssize_t next; /* several threads may share an iterator */
    Py_ssize_t step;         /* -1: reversed */
    stm_txn *txn;            /* the record of the block it was made in, or NULL */
    uint32_t births;         /* what that block had inserted and deleted */
} iterator_object;

static const Py_ssize_t ENDED = PY_SSIZE_T_MIN;

static PyTypeObject *view_types[3];
static PyTypeObject *iterator_type;

/* --- iterators -------------------------------------------------------------------------- */

static PyObject *new_iterator(stmpy_dict *d, stmpy_part part, Py_ssize_t step)
{
    PyObject *list = stmpy_dict_list(d, part);
    if (list == NULL) {
        return NULL;
    }
    iterator_object *it = PyObject_GC_New(iterator_object, iterator_type);
    if (it == NULL) {
        Py_DECREF(list);
        return NULL;
    }
    stmpy_thread *th = stmpy_tls;
    it->dict = (stmpy_dict *)Py_NewRef(d);
    it->list = list;
    it->step = step;
    it->next = step > 0 ? 0 : PyList_GET_SIZE(list) - 1;
    it->txn = th != NULL && th->block.depth > 0 ? th->block.txn : NULL;
    it->births = it->txn != NULL ? th->block.births : 0;
    PyObject_GC_Track(it);
    return (PyObject *)it;
}

/* Did the block that made it insert or delete keys of this Dict since? */
static bool was_changed(const iterator_object *it)
{
    stmpy_thread *th = stmpy_tls;
    if (it->txn == NULL || th == NULL || th->block.depth == 0 || th->block.txn != it->txn ||
        th->block.births == it->births) {
        return false;
    }
    stm_buffered *w = stm_find_write(th->block.txn, &it->dict->index->shape);
    return w != NULL && w->node->value > it->births;
}

static PyObject *iterator_next(PyObject *op)
{
    iterator_object *it = (iterator_object *)op;
    Py_ssize_t at = stm_load_rlx(&it->next), size = PyList_GET_SIZE(it->list);
    if (at == ENDED) {
        return NULL;
    }
    if (was_changed(it)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Dict changed its keys during iteration: iterate over list(d) instead");
        return NULL;
    }
    do {
        if (at < 0 || at >= size) {
            stm_store_rlx(&it->next, ENDED);
            return NULL;
        }
    } while (!stm_cas(&it->next, &at, at + it->step));
    return Py_NewRef(PyList_GET_ITEM(it->list, at)); /* private list, never changed */
}

static PyObject *iterator_length_hint(PyObject *op, PyObject *unused)
{
    iterator_object *it = (iterator_object *)op;
    Py_ssize_t at = stm_load_rlx(&it->next);
    if (at == ENDED) {
        return PyLong_FromLong(0);
    }
    Py_ssize_t left = it->step > 0 ? PyList_GET_SIZE(it->list) - at : at + 1;
    return PyLong_FromSsize_t(left < 0 ? 0 : left);
}

static int iterator_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((iterator_object *)op)->dict);
    Py_VISIT(((iterator_object *)op)->list);
    return 0;
}

static void iterator_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_XDECREF(((iterator_object *)op)->dict);
    Py_XDECREF(((iterator_object *)op)->list);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyMethodDef iterator_methods[] = {
    {"__length_hint__", iterator_length_hint, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, iterator_dealloc}, {Py_tp_traverse, iterator_traverse},
    {Py_tp_iter, PyObject_SelfIter},   {Py_tp_iternext, iterator_next},
    {Py_tp_methods, iterator_methods}, {0, NULL},
};

static PyType_Spec iterator_spec = {
    .name = "ame.DictIterator",
    .basicsize = sizeof(iterator_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = iterator_slots,
};

PyObject *stmpy_dict_iter(PyObject *d)
{
    return new_iterator((stmpy_dict *)d, STMPY_KEYS, 1);
}

PyObject *stmpy_dict_reversed(PyObject *d, PyObject *unused)
{
    return new_iterator((stmpy_dict *)d, STMPY_KEYS, -1);
}

/* --- views --------------------------------------------------------------------------------- */

static PyObject *new_view(PyObject *d, stmpy_part part)
{
    view_object *v = (view_object *)view_types[part]->tp_alloc(view_types[part], 0);
    if (v != NULL) {
        v->dict = (stmpy_dict *)Py_NewRef(d);
        v->part = part;
    }
    return (PyObject *)v;
}

PyObject *stmpy_dict_keys(PyObject *d, PyObject *unused)
{
    return new_view(d, STMPY_KEYS);
}

PyObject *stmpy_dict_values(PyObject *d, PyObject *unused)
{
    return new_view(d, STMPY_VALUES);
}

PyObject *stmpy_dict_items(PyObject *d, PyObject *unused)
{
    return new_view(d, STMPY_ITEMS);
}

static PyObject *view_iter(PyObject *op)
{
    return new_iterator(((view_object *)op)->dict, ((view_object *)op)->part, 1);
}

static PyObject *view_reversed(PyObject *op, PyObject *unused)
{
    return new_iterator(((view_object *)op)->dict, ((view_object *)op)->part, -1);
}

static Py_ssize_t view_length(PyObject *op)
{
    return stmpy_dict_length(((view_object *)op)->dict);
}

/* keys and items ask for the one key. */
static int view_contains(PyObject *op, PyObject *x)
{
    view_object *v = (view_object *)op;
    if (v->part == STMPY_KEYS) {
        return PySequence_Contains((PyObject *)v->dict, x);
    }
    if (!PyTuple_Check(x) || PyTuple_GET_SIZE(x) != 2) {
        return 0;
    }
    PyObject *value = stmpy_dict_lookup(v->dict, PyTuple_GET_ITEM(x, 0));
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int equal = PyObject_RichCompareBool(value, PyTuple_GET_ITEM(x, 1), Py_EQ);
    Py_DECREF(value);
    return equal;
}

static PyObject *view_repr(PyObject *op)
{
    static const char *const names[] = {"Dict_keys", "Dict_values", "Dict_items"};
    int recursive = Py_ReprEnter(op);
    if (recursive != 0) {
        return recursive < 0 ? NULL : PyUnicode_FromString("...");
    }
    PyObject *text = NULL;
    PyObject *list = stmpy_dict_list(((view_object *)op)->dict, ((view_object *)op)->part);
    if (list != NULL) {
        text = PyUnicode_FromFormat("%s(%R)", names[((view_object *)op)->part], list);
        Py_DECREF(list);
    }
    Py_ReprLeave(op);
    return text;
}

/* A view of keys or items as a set, anything else iterable too. */
static PyObject *as_set(PyObject *x)
{
    return PyAnySet_Check(x) ? Py_NewRef(x) : PySet_New(x);
}

static PyObject *set_operation(PyObject *a, PyObject *b, binaryfunc operation)
{
    PyObject *x = as_set(a);
    PyObject *y = x == NULL ? NULL : as_set(b);
    PyObject *result = y == NULL ? NULL : operation(x, y);
    Py_XDECREF(x);
    Py_XDECREF(y);
    return result;
}

static PyObject *view_and(PyObject *a, PyObject *b)
{
    return set_operation(a, b, PyNumber_And);
}

static PyObject *view_or(PyObject *a, PyObject *b)
{
    return set_operation(a, b, PyNumber_Or);
}

static PyObject *view_xor(PyObject *a, PyObject *b)
{
    return set_operation(a, b, PyNumber_Xor);
}

static PyObject *view_subtract(PyObject *a, PyObject *b)
{
    return set_operation(a, b, PyNumber_Subtract);
}

static bool is_set_like(PyObject *x)
{
    return PyAnySet_Check(x) || PyDictKeys_Check(x) || PyDictItems_Check(x) ||
           Py_TYPE(x) == view_types[STMPY_KEYS] || Py_TYPE(x) == view_types[STMPY_ITEMS];
}

static PyObject *view_compare(PyObject *a, PyObject *b, int op)
{
    if (!is_set_like(b)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *x = as_set(a);
    PyObject *y = x == NULL ? NULL : as_set(b);
    PyObject *answer = y == NULL ? NULL : PyObject_RichCompare(x, y, op);
    Py_XDECREF(x);
    Py_XDECREF(y);
    return answer;
}

static int view_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((view_object *)op)->dict);
    return 0;
}

static void view_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_XDECREF(((view_object *)op)->dict);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *view_isdisjoint(PyObject *op, PyObject *other)
{
    PyObject *x = as_set(op);
    PyObject *answer = x == NULL ? NULL : PyObject_CallMethod(x, "isdisjoint", "O", other);
    Py_XDECREF(x);
    return answer;
}

static PyMethodDef view_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef set_view_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, NULL},
    {"isdisjoint", view_isdisjoint, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#define VIEW_SLOTS(methods)                                                                        \
    {Py_tp_dealloc, view_dealloc}, {Py_tp_traverse, view_traverse}, {Py_tp_iter, view_iter},       \
        {Py_tp_repr, view_repr}, {Py_tp_methods, methods},                                         \
    {                                                                                              \
        Py_sq_length, view_length                                                                  \
    }

static PyType_Slot set_view_slots[] = {
    VIEW_SLOTS(set_view_methods),
    {Py_sq_contains, view_contains},
    {Py_tp_richcompare, view_compare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_nb_and, view_and},
    {Py_nb_or, view_or},
    {Py_nb_xor, view_xor},
    {Py_nb_subtract, view_subtract},
    {0, NULL},
};

static PyType_Slot values_slots[] = {VIEW_SLOTS(view_methods), {0, NULL}};

static int install_view(PyObject *module, const char *name, PyType_Slot *slots, stmpy_part part)
{
    PyType_Spec spec = {
        .name = name,
        .basicsize = sizeof(view_object),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    view_types[part] = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return view_types[part] == NULL ? -1 : PyModule_AddType(module, view_types[part]);
}

int stmpy_dictview_install(PyObject *module)
{
    iterator_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &iterator_spec, NULL);
    if (iterator_type == NULL) {
        return -1;
    }
    return install_view(module, "ame.DictKeys", set_view_slots, STMPY_KEYS) < 0 ||
                   install_view(module, "ame.DictValues", values_slots, STMPY_VALUES) < 0 ||
                   install_view(module, "ame.DictItems", set_view_slots, STMPY_ITEMS) < 0
               ? -1
               : 0;
}
