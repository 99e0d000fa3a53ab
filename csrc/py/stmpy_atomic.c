/* `atomic`: decorator and context manager in one, and the functions it makes.
 *
 * INV-ATOMIC-1  `atomic()` without options hands out an object of the calling
 *               thread: no object shared by threads is counted on the path of
 *               a transaction.
 * INV-ATOMIC-2  A `with` block that begins a transaction runs in the protected
 *               slot from its start: it can't be executed again, so it must not
 *               lose.  (Re-execution of `with` comes with the rewriter.)
 *
 * Guarded by tests/stm/test_block.py.
 */
#include "stmpy_block.h"

typedef struct {
    PyObject_HEAD
    uint32_t flags;
    uint32_t label;
} atomic_object;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *fn;
    PyObject *dict;
    PyObject *weakrefs;
    uint32_t flags;
    uint32_t label;
} function_object;

static PyTypeObject *atomic_type;
static PyTypeObject *function_type;
static PyObject *update_wrapper; /* functools.update_wrapper, kept for ever */

/* --- functions ------------------------------------------------------------------ */

static PyObject *function_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf,
                                     PyObject *kwnames)
{
    function_object *self = (function_object *)op;
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    stmpy_call call = {self->fn, args, nargsf, kwnames};
    return stmpy_run_block(th, self->flags, self->label, stmpy_call_body, &call);
}

static int default_label(PyObject *fn, uint32_t *label)
{
    PyObject *name = PyObject_GetAttrString(fn, "__qualname__");
    if (name == NULL) {
        PyErr_Clear();
        return 0;
    }
    int status = PyUnicode_Check(name) ? stmpy_label(name, label) : 0;
    Py_DECREF(name);
    return status;
}

/* Functions that live as long as their module need no count in each thread. */
static bool is_nested(PyObject *fn)
{
    return !PyFunction_Check(fn) ||
           (((PyCodeObject *)PyFunction_GET_CODE(fn))->co_flags & CO_NESTED) != 0;
}

static PyObject *new_function(PyObject *fn, uint32_t flags, uint32_t label)
{
    if (stmpy_check_function(fn, "@ame.atomic") < 0 ||
        (label == 0 && default_label(fn, &label) < 0)) {
        return NULL;
    }
    function_object *self = (function_object *)function_type->tp_alloc(function_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = function_vectorcall;
    self->fn = Py_NewRef(fn);
    self->flags = flags;
    self->label = label;
    PyObject *done = PyObject_CallFunctionObjArgs(update_wrapper, (PyObject *)self, fn, NULL);
    if (done == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    Py_DECREF(done);
    if (!is_nested(fn)) {
        stmpy_defer_counts((PyObject *)self);
    }
    return (PyObject *)self;
}

static int function_traverse(PyObject *op, visitproc visit, void *arg)
{
    function_object *self = (function_object *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->fn);
    Py_VISIT(self->dict);
    return 0;
}

static int function_clear(PyObject *op)
{
    function_object *self = (function_object *)op;
    Py_CLEAR(self->dict);
    Py_CLEAR(self->fn);
    return 0;
}

static void function_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (((function_object *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    function_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *function_get(PyObject *op, PyObject *instance, PyObject *owner)
{
    return instance == NULL || instance == Py_None ? Py_NewRef(op) : PyMethod_New(op, instance);
}

static PyObject *function_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<atomic %R>", ((function_object *)op)->fn);
}

/* Pickled by name, as functions are. */
static PyObject *function_reduce(PyObject *op, PyObject *unused)
{
    return PyObject_GetAttrString(op, "__qualname__");
}

static PyMethodDef function_methods[] = {
    {"__reduce__", function_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef function_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(function_object, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(function_object, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(function_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef function_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot function_slots[] = {
    {Py_tp_doc, "A function each call of which runs as one transaction."},
    {Py_tp_dealloc, function_dealloc},
    {Py_tp_traverse, function_traverse},
    {Py_tp_clear, function_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, function_get},
    {Py_tp_repr, function_repr},
    {Py_tp_methods, function_methods},
    {Py_tp_members, function_members},
    {Py_tp_getset, function_getset},
    {0, NULL},
};

static PyType_Spec function_spec = {
    .name = "ame.AtomicFunction",
    .basicsize = sizeof(function_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = function_slots,
};

/* --- atomic ----------------------------------------------------------------------- */

static int set_option(PyObject *name, PyObject *value, uint32_t *flags, uint32_t *label)
{
    uint32_t flag = 0;
    if (PyUnicode_CompareWithASCIIString(name, "label") == 0) {
        return stmpy_label(value, label);
    }
    if (PyUnicode_CompareWithASCIIString(name, "read_only") == 0) {
        flag = STM_BEGIN_READ_ONLY;
    } else if (PyUnicode_CompareWithASCIIString(name, "irrevocable") == 0) {
        flag = STM_BEGIN_PROTECTED;
    } else {
        PyErr_Format(PyExc_TypeError,
                     "atomic() has no option %R: the options are label, read_only, irrevocable",
                     name);
        return -1;
    }
    int on = PyObject_IsTrue(value);
    if (on > 0) {
        *flags |= flag;
    }
    return on < 0 ? -1 : 0;
}

static PyObject *new_atomic(uint32_t flags, uint32_t label)
{
    atomic_object *self = (atomic_object *)atomic_type->tp_alloc(atomic_type, 0);
    if (self != NULL) {
        self->flags = flags;
        self->label = label;
    }
    return (PyObject *)self;
}

static PyObject *shared_by_thread(void)
{
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    if (th->context == NULL && (th->context = new_atomic(0, 0)) == NULL) {
        return NULL;
    }
    return Py_NewRef(th->context);
}

static PyObject *atomic_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf,
                                   PyObject *kwnames)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (stm_likely(count == 0 && named == 0)) {
        return shared_by_thread();
    }
    if (count > 1 || (count == 1 && PyUnicode_Check(args[0]))) {
        PyErr_SetString(PyExc_TypeError, "atomic takes one function, or options by keyword: "
                                         "@atomic, @atomic(label=\"name\"), with atomic():");
        return NULL;
    }
    uint32_t flags = 0, label = 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        if (set_option(PyTuple_GET_ITEM(kwnames, i), args[count + i], &flags, &label) < 0) {
            return NULL;
        }
    }
    return count == 1 ? new_function(args[0], flags, label) : new_atomic(flags, label);
}

static PyObject *atomic_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    atomic_object *self = (atomic_object *)op;
    PyObject *fn;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) ||
        !PyArg_UnpackTuple(args, "atomic", 1, 1, &fn)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "atomic(...) decorates one function");
        }
        return NULL;
    }
    return new_function(fn, self->flags, self->label);
}

static PyObject *atomic_enter(PyObject *op, PyObject *unused)
{
    atomic_object *self = (atomic_object *)op;
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    uint32_t flags = self->flags;
    if (th->depth == 0 && (flags & STM_BEGIN_READ_ONLY) == 0) {
        flags |= STM_BEGIN_PROTECTED; /* INV-ATOMIC-2; a reader cannot lose anyway */
    }
    return stmpy_enter(th, flags, self->label) < 0 ? NULL : Py_NewRef(op);
}

static PyObject *atomic_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    stmpy_thread *th = stmpy_tls;
    if (th == NULL || th->depth <= th->floor) {
        return stmpy_raise_open_block();
    }
    bool failed = count > 0 && args[0] != Py_None;
    if (stmpy_leave(th, failed) < 0) {
        return NULL;
    }
    Py_RETURN_FALSE;
}

static void atomic_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef atomic_methods[] = {
    {"__enter__", atomic_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))atomic_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static const char atomic_doc[] =
    "Makes a function or a block one transaction.\n\n"
    "    @atomic                     each call is one transaction\n"
    "    @atomic(label=\"transfer\")   the same with options\n"
    "    with atomic(): ...          the block is one transaction\n\n"
    "Args:\n"
    "    label: a name for statistics; functions have their qualified name.\n"
    "    read_only: the block only reads; it then never loses an attempt.\n"
    "    irrevocable: the block runs exactly once, one such block at a time.\n"
    "Raises:\n"
    "    TypeError: a function that cannot be a block (generator, coroutine, class), or an\n"
    "        option that does not exist.\n\n"
    "In a transaction: joins it.  An exception that leaves the outermost block undoes\n"
    "everything the block wrote, and propagates.  A function that lost a conflict runs again\n"
    "with the same arguments; a `with` block that begins a transaction is irrevocable.";

static PyType_Slot atomic_slots[] = {
    {Py_tp_doc, (void *)atomic_doc},
    {Py_tp_dealloc, atomic_dealloc},
    {Py_tp_call, atomic_call},
    {Py_tp_methods, atomic_methods},
    {0, NULL},
};

static PyType_Spec atomic_spec = {
    .name = "ame.atomic",
    .basicsize = sizeof(atomic_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = atomic_slots,
};

int stmpy_atomic_install(PyObject *module)
{
    PyObject *functools = PyImport_ImportModule("functools");
    if (functools == NULL) {
        return -1;
    }
    update_wrapper = PyObject_GetAttrString(functools, "update_wrapper");
    Py_DECREF(functools);
    if (update_wrapper == NULL) {
        return -1;
    }
    function_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &function_spec, NULL);
    atomic_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &atomic_spec, NULL);
    if (function_type == NULL || atomic_type == NULL) {
        return -1;
    }
    atomic_type->tp_vectorcall = atomic_vectorcall; /* also the way through type.__call__ */
    return PyModule_AddType(module, function_type) < 0 ? -1 : PyModule_AddType(module, atomic_type);
}
