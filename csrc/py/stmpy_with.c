/* `with` blocks of rewritten functions (ame/_rewrite), and where blocks stand.
 *
 * The rewriter turns `with EXPR as t: BODY` into
 *
 *     for (x, y) in rt.block(SITE, EXPR, x, y):
 *         try:
 *             with rt.attempt() as t:
 *                 BODY
 *         except rt.Rerun:
 *             pass
 *
 * The iterator yields the saved values of what BODY assigns at each attempt and
 * ends after a commit.  It lives on the frame's stack, so the function has no
 * variable that its author did not write.
 *
 * INV-WITH-1  Between the iterator's step and `attempt()` the block stands in the
 *             thread's pending list, which other blocks (of finalizers, of signal
 *             handlers) leave as they found it.
 * INV-WITH-2  __exit__ of an outermost block whose attempt was lost swallows the
 *             exception of the body, or raises Rerun where the body ended without
 *             one, so that a `return` or `break` on its way is dropped.  The next
 *             attempt begins in __enter__.
 * INV-WITH-3  A block that is dropped before its next attempt begins, or between
 *             __enter__ and the body (an interrupt), ends the transaction.  So the
 *             lists of a thread borrow: the iterator on the frame's stack owns.
 * INV-WITH-4  A manager that is not ours is handed through as it is, once.
 *
 * Guarded by tests/stm/test_with.py, tests/ame/test_shapes.py.
 */
#include "stmpy_block.h"

struct stmpy_with {
    PyObject_HEAD
    PyObject *manager;
    PyObject *site;
    PyObject *saved;   /* a tuple */
    stmpy_with *outer; /* in the thread's pending or open list */
    stmpy_thread *thread;
    uint32_t depth;
    bool is_ours;
    bool is_pending;
    bool is_open;
    bool is_over; /* entered, and not lost */
};

PyTypeObject *stmpy_site_type;
static PyTypeObject *with_type;
static PyObject *unbound; /* says of a saved name that it had no value */

/* --- sites ---------------------------------------------------------------------- */

PyObject *stmpy_site_new(PyObject *filename, int line, PyObject *name)
{
    PyObject *label = PyUnicode_FromFormat("%U:%d", name, line);
    const char *text = label == NULL ? NULL : PyUnicode_AsUTF8(label);
    stmpy_site *self =
        text == NULL ? NULL : (stmpy_site *)stmpy_site_type->tp_alloc(stmpy_site_type, 0);
    if (self != NULL) {
        self->label = stm_label_intern(stmpy_domain, text);
        self->filename = Py_NewRef(filename);
        self->name = Py_NewRef(name);
        self->line = line;
    }
    Py_XDECREF(label);
    return (PyObject *)self;
}

static PyObject *site_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *filename, *name;
    int line;
    if (!PyArg_ParseTuple(args, "UiU:Site", &filename, &line, &name)) {
        return NULL;
    }
    return stmpy_site_new(filename, line, name);
}

static void site_dealloc(PyObject *op)
{
    stmpy_site *self = (stmpy_site *)op;
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(self->filename);
    Py_XDECREF(self->name);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *site_repr(PyObject *op)
{
    stmpy_site *self = (stmpy_site *)op;
    return PyUnicode_FromFormat("<block at %U:%d in %U>", self->filename, self->line, self->name);
}

static PyObject *site_entries(PyObject *op, void *unused)
{
    return PyLong_FromUnsignedLongLong(stm_load_rlx(&((stmpy_site *)op)->irrevocable));
}

static PyMemberDef site_members[] = {
    {"filename", T_OBJECT, offsetof(stmpy_site, filename), READONLY, NULL},
    {"lineno", T_INT, offsetof(stmpy_site, line), READONLY, NULL},
    {"name", T_OBJECT, offsetof(stmpy_site, name), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef site_getset[] = {
    {"irrevocable_entries", site_entries, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot site_slots[] = {
    {Py_tp_doc, "Where a `with` block stands: Site(filename, lineno, name)."},
    {Py_tp_new, site_make},
    {Py_tp_dealloc, site_dealloc},
    {Py_tp_repr, site_repr},
    {Py_tp_members, site_members},
    {Py_tp_getset, site_getset},
    {0, NULL},
};

static PyType_Spec site_spec = {
    .name = "stm._core.Site",
    .basicsize = sizeof(stmpy_site),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = site_slots,
};

/* --- the iterator ----------------------------------------------------------------- */

/* A dead one of this thread is used again: its type's reference count, which each
 * allocation and each end would touch, is shared by all threads. */
static stmpy_with *new_with(stmpy_thread *th)
{
    stmpy_with *self = th->spare;
    if (self == NULL) {
        return (stmpy_with *)with_type->tp_alloc(with_type, 0);
    }
    th->spare = NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof(*self) - sizeof(PyObject));
    _Py_NewReference((PyObject *)self);
    PyObject_GC_Track(self);
    return self;
}

void stmpy_with_free(stmpy_with *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *block(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    stmpy_thread *th = stmpy_thread_get();
    if (th == NULL) {
        return NULL;
    }
    if (count < 2 || !Py_IS_TYPE(args[0], stmpy_site_type)) {
        PyErr_SetString(PyExc_TypeError, "block(site, manager, *saved)");
        return NULL;
    }
    PyObject *saved = PyTuple_New(count - 2);
    stmpy_with *self = saved == NULL ? NULL : new_with(th);
    if (self == NULL) {
        Py_XDECREF(saved);
        return NULL;
    }
    for (Py_ssize_t i = 2; i < count; i++) {
        PyTuple_SET_ITEM(saved, i - 2, Py_NewRef(args[i]));
    }
    self->saved = saved;
    self->site = Py_NewRef(args[0]);
    self->manager = Py_NewRef(args[1]);
    self->is_ours = Py_IS_TYPE(args[1], stmpy_atomic_type);
    self->thread = th;
    return (PyObject *)self;
}

static PyObject *with_next(PyObject *op)
{
    stmpy_with *self = (stmpy_with *)op;
    if (self->is_over || self->is_pending) {
        return NULL;
    }
    if (self->thread != stmpy_tls) {
        return stmpy_raise_open_block(self->site);
    }
    self->is_pending = true;
    self->outer = self->thread->block.pending;
    self->thread->block.pending = self;
    return Py_NewRef(self->saved);
}

static void unlink_pending(stmpy_with *self)
{
    stmpy_with **p = &self->thread->block.pending;
    while (*p != NULL && *p != self) {
        p = &(*p)->outer;
    }
    if (*p == self) {
        *p = self->outer;
    }
    self->is_pending = false;
    self->outer = NULL;
}

static PyObject *attempt(PyObject *module, PyObject *unused)
{
    stmpy_thread *th = stmpy_tls;
    stmpy_with *self = th == NULL ? NULL : th->block.pending;
    if (self == NULL) {
        PyErr_SetString(PyExc_SystemError, "attempt() without block()");
        return NULL;
    }
    unlink_pending(self);
    if (self->is_ours) {
        return Py_NewRef((PyObject *)self);
    }
    self->is_over = true;
    return Py_NewRef(self->manager);
}

/* --- the context manager ------------------------------------------------------------ */

void stmpy_close_deeper(stmpy_thread *th, uint32_t depth)
{
    while (th->block.open != NULL && th->block.open->depth > depth) {
        stmpy_with *w = th->block.open;
        th->block.open = w->outer;
        w->outer = NULL;
        w->is_open = false;
    }
}

static PyObject *with_enter(PyObject *op, PyObject *unused)
{
    stmpy_with *self = (stmpy_with *)op;
    stmpy_thread *th = self->thread;
    const stmpy_atomic *manager = (const stmpy_atomic *)self->manager;
    int status;
    if (th->block.rerun == self) {
        th->block.rerun = NULL;
        status = stmpy_next_attempt(th);
    } else {
        status = stmpy_enter(th, &manager->options, self->site);
    }
    self->is_over = true;
    if (status < 0) {
        return NULL;
    }
    th->block.can_rerun |= th->block.depth == 1;
    self->depth = th->block.depth;
    self->outer = th->block.open;
    self->is_open = true;
    th->block.open = self;
    return Py_NewRef(self->manager);
}

/* Ends an open block otherwise than by the end of its body: undoes it. */
static void abandon(stmpy_with *self)
{
    stmpy_thread *th = self->thread;
    stmpy_cut_depth(th, self->depth);
    stmpy_close_deeper(th, self->depth - 1); /* itself, too */
    if (th->block.depth != self->depth) {
        return; /* ended already */
    }
    if (self->depth == 1) {
        stmpy_roll_back(th);
    } else {
        stmpy_cut_depth(th, self->depth - 1);
    }
}

static PyObject *with_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    stmpy_with *self = (stmpy_with *)op;
    stmpy_thread *th = self->thread;
    PyObject *error = count > 0 && args[0] != Py_None ? args[0] : NULL;
    if (stmpy_tls != th || !self->is_open) {
        return stmpy_raise_open_block(self->site);
    }
    bool is_left = stmpy_resume(th, self->depth); /* by unprotected(), in a generator */
    if (stm_unlikely(is_left || th->block.depth != self->depth)) {
        abandon(self);
        return error != NULL ? Py_NewRef(Py_False) : stmpy_raise_open_block(self->site);
    }
    th->block.open = self->outer;
    self->outer = NULL;
    self->is_open = false;
    const stmpy_options *options = &((const stmpy_atomic *)self->manager)->options;
    if (self->depth > 1) {
        stmpy_end_nested(th, error, options);
        Py_RETURN_FALSE;
    }
    switch (stmpy_end_attempt(th, error, options)) {
    case STMPY_DONE:
        Py_RETURN_FALSE;
    case STMPY_FAILED:
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    default:
        self->is_over = false;
        th->block.rerun = self;
        if (error != NULL) {
            Py_RETURN_TRUE;
        }
        PyErr_SetNone(stmpy_rerun_error);
        return NULL;
    }
}

static int with_traverse(PyObject *op, visitproc visit, void *arg)
{
    stmpy_with *self = (stmpy_with *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->manager);
    Py_VISIT(self->saved);
    return 0;
}

static void with_dealloc(PyObject *op)
{
    stmpy_with *self = (stmpy_with *)op;
    stmpy_thread *th = stmpy_tls;
    PyObject_GC_UnTrack(op);
    if (self->thread == th && th != NULL) {
        if (self->is_pending) {
            unlink_pending(self);
        }
        if (stm_unlikely(th->block.rerun == self)) { /* INV-WITH-3 */
            th->block.rerun = NULL;
            stmpy_roll_back(th);
        }
        if (stm_unlikely(self->is_open)) { /* an interrupt before the body: no __exit__ */
            abandon(self);
        }
    } else if (self->is_open || self->is_pending) {
        _Py_NewReference(op); /* the list of another thread still has it: leaked */
        return;
    }
    Py_XDECREF(self->saved);
    Py_XDECREF(self->manager);
    Py_XDECREF(self->site);
    if (self->thread == th && th != NULL && th->spare == NULL) {
        th->spare = self;
    } else {
        stmpy_with_free(self);
    }
}

static PyMethodDef with_methods[] = {
    {"__enter__", with_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))with_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot with_slots[] = {
    {Py_tp_dealloc, with_dealloc}, {Py_tp_traverse, with_traverse}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, with_next},   {Py_tp_methods, with_methods},   {0, NULL},
};

static PyType_Spec with_spec = {
    .name = "stm._core.Block",
    .basicsize = sizeof(stmpy_with),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = with_slots,
};

/* --- yield and await in a block ------------------------------------------------------- */

PyObject *stmpy_raise_leaving(PyObject *site)
{
    return stmpy_raise_about(
        stmpy_open_block_error,
        "a yield or await inside of %U would leave the block open while other code runs in it: "
        "end the block before, or collect the values and yield them after it",
        site);
}

static PyObject *leaving(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "leaving(site, value)");
        return NULL;
    }
    stmpy_thread *th = stmpy_tls;
    for (stmpy_with *w = th == NULL ? NULL : th->block.open; w != NULL; w = w->outer) {
        if (w->site == args[0]) {
            return stmpy_raise_leaving(args[0]);
        }
    }
    return Py_NewRef(args[1]);
}

static PyMethodDef methods[] = {
    {"_block", (PyCFunction)(void (*)(void))block, METH_FASTCALL,
     "_block($module, site, manager, /, *saved)\n--\n\n"
     "Returns the iterator over the attempts of a rewritten `with` block; it yields `saved`."},
    {"_attempt", attempt, METH_NOARGS,
     "_attempt($module)\n--\n\n"
     "Returns the context manager of the block whose iterator has just been advanced."},
    {"_leaving", (PyCFunction)(void (*)(void))leaving, METH_FASTCALL,
     "_leaving($module, site, value, /)\n--\n\n"
     "Returns value, or raises OpenBlockError if the block of that site is open."},
    {NULL, NULL, 0, NULL},
};

int stmpy_with_install(PyObject *module)
{
    stmpy_site_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &site_spec, NULL);
    with_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &with_spec, NULL);
    if (stmpy_site_type == NULL || with_type == NULL) {
        return -1;
    }
    unbound = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    if (unbound == NULL || PyModule_AddObjectRef(module, "_UNBOUND", unbound) < 0) {
        return -1;
    }
    return PyModule_AddType(module, stmpy_site_type) < 0 ? -1
                                                         : PyModule_AddFunctions(module, methods);
}
