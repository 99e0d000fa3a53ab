/* `atomic`: decorator and context manager in one, and the functions it makes.
 *
 * INV-ATOMIC-1  `atomic()` without options hands out an object of the calling
 *               thread: no object shared by threads is counted on the path of
 *               a transaction.
 * INV-ATOMIC-2  A `with` of a function that was not rewritten (ame/_rewrite) and
 *               that begins a transaction runs in the protected slot from its
 *               start: it can't be executed again, so it must not lose.
 *
 * Guarded by tests/stm/test_block.py.
 */
#include "stmpy_block.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *fn;
    PyObject *dict;
    PyObject *weakrefs;
    stmpy_options options;
} function_object;

PyTypeObject *stmpy_atomic_type;
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
    return stmpy_run_block(th, &self->options, op, stmpy_call_body, &call);
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

static PyObject *new_function(PyObject *fn, const stmpy_options *options)
{
    uint32_t label = options->label;
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
    self->options = *options;
    self->options.label = label;
    Py_XINCREF(self->options.commit_on);
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
    Py_VISIT(self->options.commit_on);
    return 0;
}

static int function_clear(PyObject *op)
{
    function_object *self = (function_object *)op;
    Py_CLEAR(self->dict);
    Py_CLEAR(self->fn);
    Py_CLEAR(self->options.commit_on);
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

static int set_flag(PyObject *value, uint32_t flag, uint32_t *flags)
{
    int on = PyObject_IsTrue(value);
    if (on > 0) {
        *flags |= flag;
    }
    return on < 0 ? -1 : 0;
}

static int set_attempts(PyObject *value, uint32_t *count)
{
    if (value == Py_None) {
        return 0;
    }
    long n = PyLong_Check(value) && !PyBool_Check(value) ? PyLong_AsLong(value) : 0;
    if (n < 1 || n > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "max_attempts must be an int of at least 1 or None, got %R",
                     value);
        return -1;
    }
    *count = (uint32_t)n;
    return 0;
}

static bool is_exception_class(PyObject *o)
{
    return PyExceptionClass_Check(o);
}

/* Keeps a reference. */
static int set_commit_on(PyObject *value, PyObject **classes)
{
    bool good = is_exception_class(value);
    if (PyTuple_Check(value)) {
        good = true;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
            good = good && is_exception_class(PyTuple_GET_ITEM(value, i));
        }
    }
    if (!good && value != Py_None) {
        PyErr_Format(PyExc_TypeError,
                     "commit_on must be an exception class or a tuple of them, got %R", value);
        return -1;
    }
    Py_XSETREF(*classes, value == Py_None ? NULL : Py_NewRef(value));
    return 0;
}

static int set_option(PyObject *name, PyObject *value, stmpy_options *o)
{
    if (PyUnicode_CompareWithASCIIString(name, "label") == 0) {
        return stmpy_label(value, &o->label);
    }
    if (PyUnicode_CompareWithASCIIString(name, "read_only") == 0) {
        return set_flag(value, STM_BEGIN_READ_ONLY, &o->flags);
    }
    if (PyUnicode_CompareWithASCIIString(name, "irrevocable") == 0) {
        return set_flag(value, STM_BEGIN_PROTECTED, &o->flags);
    }
    if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
        return stmpy_seconds(value, "timeout", -1, &o->timeout_s);
    }
    if (PyUnicode_CompareWithASCIIString(name, "max_attempts") == 0) {
        return set_attempts(value, &o->max_attempts);
    }
    if (PyUnicode_CompareWithASCIIString(name, "commit_on") == 0) {
        return set_commit_on(value, &o->commit_on);
    }
    PyErr_Format(PyExc_TypeError,
                 "atomic() has no option %R: the options are label, timeout, max_attempts, "
                 "commit_on, read_only, irrevocable",
                 name);
    return -1;
}

static PyObject *new_atomic(const stmpy_options *options)
{
    stmpy_atomic *self = (stmpy_atomic *)stmpy_atomic_type->tp_alloc(stmpy_atomic_type, 0);
    if (self != NULL) {
        self->options = *options;
        Py_XINCREF(self->options.commit_on);
    }
    return (PyObject *)self;
}

static PyObject *shared_by_thread(void)
{
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    if (th->context == NULL && (th->context = new_atomic(&stmpy_no_options)) == NULL) {
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
    stmpy_options options = stmpy_no_options;
    int status = 0;
    for (Py_ssize_t i = 0; status == 0 && i < named; i++) {
        status = set_option(PyTuple_GET_ITEM(kwnames, i), args[count + i], &options);
    }
    PyObject *made = NULL;
    if (status == 0) {
        made = count == 1 ? new_function(args[0], &options) : new_atomic(&options);
    }
    Py_XDECREF(options.commit_on);
    return made;
}

static PyObject *atomic_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    stmpy_atomic *self = (stmpy_atomic *)op;
    PyObject *fn;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) ||
        !PyArg_UnpackTuple(args, "atomic", 1, 1, &fn)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "atomic(...) decorates one function");
        }
        return NULL;
    }
    return new_function(fn, &self->options);
}

static PyObject *atomic_enter(PyObject *op, PyObject *unused)
{
    stmpy_atomic *self = (stmpy_atomic *)op;
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    int status;
    if (th->block.depth > 0 || (self->options.flags & STM_BEGIN_READ_ONLY)) {
        status = stmpy_enter(th, &self->options, NULL); /* a reader cannot lose */
    } else {
        PyObject *site = stmpy_first_entry();
        if (site == NULL) {
            return NULL;
        }
        stmpy_options options = self->options; /* INV-ATOMIC-2 */
        options.flags |= STM_BEGIN_PROTECTED;
        status = stmpy_enter(th, &options, site == Py_None ? NULL : site);
    }
    if (th->block.depth == 1) { /* op may be gone before the block ends */
        th->block.own_options = self->options;
        th->block.options = &th->block.own_options;
    }
    return status < 0 ? NULL : Py_NewRef(op);
}

static PyObject *atomic_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    stmpy_thread *th = stmpy_tls;
    if (th != NULL && stmpy_resume(th, 1)) {
        PyObject *site = th->block.site;
        stmpy_roll_back(th);
        return stmpy_raise_open_block(site);
    }
    if (th == NULL || th->block.depth <= th->block.floor) {
        return stmpy_raise_open_block(NULL);
    }
    PyObject *error = count > 0 && args[0] != Py_None ? args[0] : NULL;
    const stmpy_options *options = &((stmpy_atomic *)op)->options;
    if (th->block.depth > 1) {
        stmpy_end_nested(th, error, options);
    } else if (stmpy_end_attempt(th, error, options) == STMPY_FAILED && PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_FALSE;
}

static void atomic_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_XDECREF(((stmpy_atomic *)op)->options.commit_on);
    type->tp_free(op);
    Py_DECREF(type);
}

static int atomic_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((stmpy_atomic *)op)->options.commit_on);
    return 0;
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
    "    label: a name for statistics; blocks have the name of their function without it.\n"
    "    timeout: seconds from its begin; a wait (for others, for a change) that would last\n"
    "        longer ends the block with TransactionTimeout.  None: no limit.  In a nested block\n"
    "        it counts for the waits of that block.\n"
    "    max_attempts: attempts that it may lose before it ends with AttemptLimit (without it\n"
    "        no block loses more than a few); None: no limit.\n"
    "    commit_on: an exception class or a tuple of them; such an exception commits the block,\n"
    "        then goes on.\n"
    "    read_only: the block only reads; it then never loses an attempt.\n"
    "    irrevocable: the block runs exactly once, one such block at a time.\n"
    "Raises:\n"
    "    TypeError: a function that cannot be a block (generator, coroutine, class), or an\n"
    "        option that does not exist.\n"
    "    ValueError: a negative timeout, or max_attempts below 1.\n\n"
    "In a transaction: nests.  An exception that leaves the block undoes what the block wrote,\n"
    "and propagates.  What lost a conflict runs again, from the start of the outermost block:\n"
    "a function with the same arguments, a `with` block with the same local variables.  A `with`\n"
    "block whose function cannot be compiled again (ame.doctor() says why) is irrevocable.";

static PyType_Slot atomic_slots[] = {
    {Py_tp_doc, (void *)atomic_doc},   {Py_tp_dealloc, atomic_dealloc},
    {Py_tp_traverse, atomic_traverse}, {Py_tp_call, atomic_call},
    {Py_tp_methods, atomic_methods},   {0, NULL},
};

static PyType_Spec atomic_spec = {
    .name = "ame.atomic",
    .basicsize = sizeof(stmpy_atomic),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
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
    stmpy_atomic_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &atomic_spec, NULL);
    if (function_type == NULL || stmpy_atomic_type == NULL) {
        return -1;
    }
    stmpy_atomic_type->tp_vectorcall = atomic_vectorcall; /* also the way through type.__call__ */
    return PyModule_AddType(module, function_type) < 0
               ? -1
               : PyModule_AddType(module, stmpy_atomic_type);
}
