/* Strict mode: plain mutable objects are refused as transactional values.
 *
 * A list that a Ref holds is neither tracked nor undone: two blocks that change
 * it do not conflict.  In strict mode putting one there raises, with the place.
 *
 * INV-STRICT-1  The mode is one flag of the process; a write that misses a change
 *               of it that is under way is checked by the former mode.
 * INV-STRICT-2  Only types that are known to be mutable are refused; objects with
 *               attributes are not looked into.
 *
 * Guarded by tests/stm/test_strict.py.
 */
#include "stmpy_strict.h"

#include "stmpy_block.h"

_Atomic bool stmpy_is_strict;

enum { DEEPEST = 16 };

static PyObject *deque_type; /* kept for ever */

/* The mutable object inside of value, borrowed; NULL: none that is known. */
static PyObject *find_mutable(PyObject *value, int depth)
{
    if (PyList_Check(value) || PyDict_Check(value) || PyByteArray_Check(value) ||
        PySet_Check(value) || PyObject_TypeCheck(value, (PyTypeObject *)deque_type)) {
        return value;
    }
    if (!PyTuple_Check(value) || depth == DEEPEST) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
        PyObject *found = find_mutable(PyTuple_GET_ITEM(value, i), depth + 1);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

int stmpy_check_tracked(PyObject *value, const char *where)
{
    PyObject *found = find_mutable(value, 0);
    if (found == NULL) {
        return 0;
    }
    const char *inside = found == value ? "" : " inside of a tuple";
    PyObject *error = PyObject_CallFunction(stmpy_strict_hook, "ssO", where, inside, found);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return -1;
}

static PyObject *set_strict(PyObject *module, PyObject *on)
{
    int value = PyObject_IsTrue(on);
    if (value < 0) {
        return NULL;
    }
    bool before = stm_load(&stmpy_is_strict);
    stm_store(&stmpy_is_strict, value != 0);
    return PyBool_FromLong(before);
}

static PyMethodDef methods[] = {
    {"set_strict", set_strict, METH_O,
     "set_strict($module, on, /)\n--\n\nSwitches strict mode; returns whether it was on."},
    {NULL, NULL, 0, NULL},
};

int stmpy_strict_install(PyObject *module)
{
    PyObject *collections = PyImport_ImportModule("collections");
    deque_type = collections == NULL ? NULL : PyObject_GetAttrString(collections, "deque");
    Py_XDECREF(collections);
    return deque_type == NULL ? -1 : PyModule_AddFunctions(module, methods);
}
