/* Ref: one transactional cell that holds one object.
 *
 * INV-REF-1  The cell and its chain are allocated apart from the object: a
 *            read set may point to the cell after the Ref is gone, so the cell
 *            is retired, not freed (INV-EPOCH-3).
 * INV-REF-2  A value is referenced before the record that keeps it alive moves
 *            on: inside a block at once, outside between pin and unpin.
 *
 * Writing the value that is already there (the same object, or an equal exact
 * int, str, float or bytes) is a read, not a write, so it conflicts less.
 *
 * Guarded by tests/stm/test_ref.py, tests/anomalies.
 */
#include "stmpy_pair.h"
#include "stmpy_strict.h"

typedef struct {
    PyObject_HEAD
    stm_cell *cell;
    PyObject *weakrefs;
    _Atomic uint32_t foreign_uses; /* see stmpy_note_use */
    bool is_fresh;                 /* __init__ has not run: nobody else knows it */
} ref_object;

static PyTypeObject *ref_type;

static void destroy_cell(void *object, void *context)
{
    stm_cell_free_chain(context, object);
    free(object);
}

static stm_cell *new_cell(PyObject *value)
{
    stm_cell *c = stm_cell_new(stmpy_domain, STM_CELL_HANDLE, stmpy_handle(value));
    if (c == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    Py_INCREF(value);
    return c;
}

/* Takes any arguments: a subclass may have an __init__ of its own. */
static PyObject *ref_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    ref_object *self = (ref_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->is_fresh = true;
    self->cell = new_cell(Py_None);
    if (self->cell == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int ref_traverse(PyObject *op, visitproc visit, void *arg)
{
    stm_cell *c = ((ref_object *)op)->cell;
    Py_VISIT(Py_TYPE(op));
    if (c != NULL) {
        for (stm_node *n = stm_load_acq(&c->head); n != NULL; n = stm_load_acq(&n->older)) {
            Py_VISIT(stmpy_object(n->value));
        }
    }
    return 0;
}

static int ref_clear(PyObject *op)
{
    ref_object *self = (ref_object *)op;
    stm_cell *c = self->cell;
    if (c != NULL) {
        /* The cell stays with the object: a finalizer may still look at it. */
        stm_cell_kill(stmpy_domain, &c, 1);
        stm_cell_release_values(stmpy_domain, c);
    }
    return 0;
}

static void ref_dealloc(PyObject *op)
{
    ref_object *self = (ref_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, ref_dealloc)
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    ref_clear(op);
    if (self->cell != NULL) {
        stm_domain_retire(stmpy_domain, self->cell, destroy_cell);
    }
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* What a killed cell answers (only finalizers of the same garbage ask). */
static PyObject *value_or_none(stm_value v)
{
    return Py_NewRef(v == 0 ? Py_None : stmpy_object(v));
}

/* `value` is found without a search through the type: half of its cost. */
static PyObject *value_name;

static PyObject *read_outside(stmpy_thread *th, ref_object *self)
{
    stm_pin(th->block.txn);
    PyObject *value = value_or_none(stm_pinned_read(th->block.txn, self->cell));
    stm_unpin(th->block.txn);
    return value;
}

static PyObject *ref_get(PyObject *op, void *closure)
{
    ref_object *self = (ref_object *)op;
    stmpy_thread *th = stmpy_tls;
    if (stm_likely(th != NULL && th->block.depth > 0)) {
        stm_value v;
        stm_status status = stm_read_fast(th->block.txn, self->cell, &v);
        if (stm_unlikely(status != STM_OK)) {
            return stmpy_raise(status);
        }
        return value_or_none(v);
    }
    th = stmpy_thread_get();
    return th == NULL ? NULL : read_outside(th, self);
}

/* Inside a block. */
static int write_inside(stmpy_thread *th, ref_object *self, PyObject *value)
{
    stm_txn *t = th->block.txn;
    stm_value now, replaced;
    if (stmpy_check_strict(value, "Ref.value") < 0) {
        return -1;
    }
    stm_status status = stm_peek(t, self->cell, &now, NULL);
    if (status == STM_OK && now != 0 && stmpy_same_value(stmpy_object(now), value)) {
        /* The outcome depends on what is there: that is a read. */
        status = stm_read_fast(t, self->cell, &now);
        if (status == STM_OK && now != 0 && stmpy_same_value(stmpy_object(now), value)) {
            return 0;
        }
    }
    if (status == STM_OK) {
        status = stm_write(t, self->cell, stmpy_handle(value), &replaced);
    }
    if (stm_unlikely(status != STM_OK)) {
        return stmpy_fail(status);
    }
    Py_INCREF(value);
    Py_XDECREF(stmpy_object(replaced)); /* may run code that goes on in this block */
    return 0;
}

typedef struct {
    ref_object *self;
    PyObject *value;
} assignment;

static PyObject *assign_body(stmpy_thread *th, void *arg)
{
    assignment *a = arg;
    return write_inside(th, a->self, a->value) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *ref_getattro(PyObject *op, PyObject *name)
{
    if (stm_likely(name == value_name && Py_TYPE(op) == ref_type)) {
        stmpy_note_use(op, &((ref_object *)op)->foreign_uses);
        return ref_get(op, NULL);
    }
    return PyObject_GenericGetAttr(op, name);
}

static int ref_set(PyObject *op, PyObject *value, void *closure)
{
    ref_object *self = (ref_object *)op;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError,
                        "a Ref always has a value: assign None instead of deleting it");
        return -1;
    }
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return -1;
    }
    if (th->block.depth > 0) {
        return write_inside(th, self, value);
    }
    assignment a = {self, value};
    PyObject *done = stmpy_run_block(th, &stmpy_no_options, NULL, assign_body, &a);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int ref_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"value", NULL};
    ref_object *self = (ref_object *)op;
    PyObject *value = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Ref", names, &value)) {
        return -1;
    }
    if (stmpy_check_strict(value, "Ref.value") < 0) {
        return -1;
    }
    stm_node *n = stm_load_acq(&self->cell->head);
    if (!self->is_fresh || n->version != 0) { /* called once more, or used before */
        return ref_set(op, value, NULL);
    }
    self->is_fresh = false; /* as if the value had been there ever since */
    n->value = stmpy_handle(Py_NewRef(value));
    Py_DECREF(Py_None);
    return 0;
}

static int ref_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    if (stm_likely(name == value_name && Py_TYPE(op) == ref_type)) {
        return ref_set(op, value, NULL);
    }
    return PyObject_GenericSetAttr(op, name, value);
}

typedef struct {
    ref_object *self;
    PyObject *const *args; /* fn, then what follows the value */
    Py_ssize_t count;
} update;

static PyObject *update_body(stmpy_thread *th, void *arg)
{
    update *u = arg;
    PyObject *small[8];
    PyObject **stack = small;
    if (u->count > 7 && (stack = PyMem_New(PyObject *, (size_t)u->count + 1)) == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *result = NULL;
    stack[1] = ref_get((PyObject *)u->self, NULL);
    if (stack[1] != NULL) {
        for (Py_ssize_t i = 1; i < u->count; i++) {
            stack[i + 1] = u->args[i];
        }
        result = PyObject_Vectorcall(u->args[0], stack + 1,
                                     (size_t)u->count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(stack[1]);
    }
    if (result != NULL && write_inside(th, u->self, result) < 0) {
        Py_CLEAR(result);
    }
    if (stack != small) {
        PyMem_Free(stack);
    }
    return result;
}

static PyObject *ref_update(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || !PyCallable_Check(args[0])) {
        PyErr_Format(PyExc_TypeError,
                     "Ref.update(fn, *args) needs a callable that takes the value, got %s",
                     count < 1 ? "nothing" : Py_TYPE(args[0])->tp_name);
        return NULL;
    }
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    update u = {(ref_object *)op, args, count};
    return stmpy_run_block(th, &stmpy_no_options, NULL, update_body, &u);
}

/* {address of its cell: None}, for messages (stm/_owners.py). */
static PyObject *ref_cells(PyObject *op, PyObject *unused)
{
    PyObject *number = PyLong_FromVoidPtr(((ref_object *)op)->cell);
    PyObject *cells = number == NULL ? NULL : PyDict_New();
    if (cells != NULL && PyDict_SetItem(cells, number, Py_None) < 0) {
        Py_CLEAR(cells);
    }
    Py_XDECREF(number);
    return cells;
}

static PyObject *ref_repr(PyObject *op)
{
    int recursive = Py_ReprEnter(op);
    if (recursive != 0) {
        return recursive < 0 ? NULL : PyUnicode_FromString("Ref(...)");
    }
    PyObject *text = NULL;
    PyObject *value = ref_get(op, NULL);
    if (value != NULL) {
        text = PyUnicode_FromFormat("Ref(%R)", value);
        Py_DECREF(value);
    }
    Py_ReprLeave(op);
    return text;
}

/* (type, (), (instance dict or None, {"value": value})): the value comes after the
 * object, so that a Ref may hold itself. */
static PyObject *ref_reduce(PyObject *op, PyObject *unused)
{
    PyObject *dict = stmpy_instance_dict(op);
    PyObject *value = dict == NULL ? NULL : ref_get(op, NULL);
    if (value == NULL) {
        Py_XDECREF(dict);
        return NULL;
    }
    return Py_BuildValue("O()(N{sN})", Py_TYPE(op), dict, "value", value);
}

static PyMethodDef ref_methods[] = {
    {"update", (PyCFunction)(void (*)(void))ref_update, METH_FASTCALL,
     "update($self, fn, /, *args)\n--\n\n"
     "Replaces the value by fn(value, *args) and returns the new value.\n\n"
     "Args:\n    fn: called with the current value and args; may run more than once.\n"
     "Returns:\n    What fn returned.\n"
     "Raises:\n    Whatever fn raises; the value is then as it was.\n\n"
     "In a transaction: part of it.  Outside: a transaction of its own."},
    {"_cells", ref_cells, METH_NOARGS, NULL},
    {"__reduce__", ref_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ref_getset[] = {
    {"value", ref_get, ref_set,
     "The object it holds.\n\n"
     "In a transaction: reading conflicts with others' writes of this Ref; writing does not\n"
     "conflict with their writes.  Writing the value already there counts as a read.\n"
     "Outside: reading gives the latest committed value; writing is a transaction of its own.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef ref_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ref_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot ref_slots[] = {
    {Py_tp_doc, "Ref(value=None)\n--\n\n"
                "One transactional variable: read and write it through `value`.\n\n"
                "Compared and hashed by identity."},
    {Py_tp_new, ref_new},
    {Py_tp_init, ref_init},
    {Py_tp_dealloc, ref_dealloc},
    {Py_tp_traverse, ref_traverse},
    {Py_tp_clear, ref_clear},
    {Py_tp_repr, ref_repr},
    {Py_tp_getattro, ref_getattro},
    {Py_tp_setattro, ref_setattro},
    {Py_tp_methods, ref_methods},
    {Py_tp_getset, ref_getset},
    {Py_tp_members, ref_members},
    {0, NULL},
};

static PyType_Spec ref_spec = {
    .name = "ame.Ref",
    .basicsize = sizeof(ref_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = ref_slots,
};

int stmpy_ref_install(PyObject *module)
{
    value_name = PyUnicode_InternFromString("value");
    if (value_name == NULL) {
        return -1;
    }
    ref_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ref_spec, NULL);
    return ref_type == NULL ? -1 : PyModule_AddType(module, ref_type);
}
