/* When two objects are the same; and a value that brings its key along.
 *
 * INV-PAIR-1  A pair never leaves this extension: users see its value.
 * INV-PAIR-2  stmpy_same_value runs no Python code.
 */
#include "stmpy_pair.h"

PyTypeObject *stmpy_pair_type;

bool stmpy_same_value(PyObject *a, PyObject *b)
{
    if (a == b) {
        return true;
    }
    PyTypeObject *type = Py_TYPE(a);
    if (type != Py_TYPE(b)) {
        return false;
    }
    if (type == &PyFloat_Type) {
        double x = PyFloat_AS_DOUBLE(a), y = PyFloat_AS_DOUBLE(b);
        return memcmp(&x, &y, sizeof(x)) == 0; /* -0.0 is not 0.0, a NaN is itself */
    }
    if (type != &PyLong_Type && type != &PyUnicode_Type && type != &PyBytes_Type) {
        return false;
    }
    int equal = PyObject_RichCompareBool(a, b, Py_EQ);
    if (equal < 0) {
        PyErr_Clear(); /* no memory to compare: treat it as a write */
    }
    return equal > 0;
}

bool stmpy_same_key(PyObject *a, PyObject *b)
{
    if (a == b) {
        return true;
    }
    PyTypeObject *type = Py_TYPE(a);
    return type == Py_TYPE(b) &&
           (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type);
}

PyObject *stmpy_instance_dict(PyObject *o)
{
    PyObject *dict = PyObject_GetAttrString(o, "__dict__");
    if (dict == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        dict = Py_NewRef(Py_None);
    }
    return dict;
}

PyObject *stmpy_pair_new(PyObject *key, PyObject *value)
{
    stmpy_pair *p = (stmpy_pair *)stmpy_pair_type->tp_alloc(stmpy_pair_type, 0);
    if (p == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    p->key = Py_NewRef(key);
    p->value = value;
    return (PyObject *)p;
}

static int pair_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((stmpy_pair *)op)->key);
    Py_VISIT(((stmpy_pair *)op)->value);
    return 0;
}

static int pair_clear(PyObject *op)
{
    Py_CLEAR(((stmpy_pair *)op)->key);
    Py_CLEAR(((stmpy_pair *)op)->value);
    return 0;
}

static void pair_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, pair_dealloc)
    pair_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyType_Slot slots[] = {
    {Py_tp_dealloc, pair_dealloc},
    {Py_tp_traverse, pair_traverse},
    {Py_tp_clear, pair_clear},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "stm._core.Pair",
    .basicsize = sizeof(stmpy_pair),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int stmpy_pair_install(PyObject *module)
{
    stmpy_pair_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return stmpy_pair_type == NULL ? -1 : 0;
}
