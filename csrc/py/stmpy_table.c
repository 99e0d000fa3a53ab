/* The index of a Dict.
 *
 * Terms.  Entry: a key and its cell.  Table: slots (open addressing) and order
 * (creation order) of entries.  Sweep: leaving out entries whose key is absent.
 *
 * INV-TAB-1  Look-ups take no lock: tables and entries they meet stay valid
 *            because their record is announced (INV-EPOCH-3), and slots only
 *            change from empty to an entry.
 * INV-TAB-2  Entries are added under the index's lock, after checking that no
 *            other entry came since the look-up: so there is one entry a key.
 * INV-TAB-3  No Python code runs under that lock; keys are compared before.
 * INV-TAB-4  A sweep commits STMPY_SWEPT to each cell it takes out, so whoever
 *            relied on the absence conflicts, as with any write; a new entry of
 *            such a key starts at the version of the sweep, so a transaction
 *            that is not beyond the sweep extends, and fails, before it reads it.
 * INV-TAB-5  Who meets STMPY_SWEPT waits for the lock, then looks up again: the
 *            sweep publishes its table before it unlocks.
 *
 * Lineage: CPython's probing sequence; per-key cells as in DESIGN 5.
 * Guarded by tests/stm/test_dict.py, tests/anomalies/test_phantom.py.
 */
#include "stmpy_table.h"

enum { LEAST_SLOTS = 8, PERTURB = 5, MOST_SLOTS = 1 << 30 };

static stmpy_table *new_table(uint64_t slots)
{
    uint32_t capacity = (uint32_t)(slots - slots / 4 - slots / 16); /* 11/16 */
    size_t size = sizeof(stmpy_table) + (slots + capacity) * sizeof(void *);
    stmpy_table *t = slots > MOST_SLOTS ? NULL : calloc(1, size);
    if (t != NULL) {
        t->mask = slots - 1;
        t->capacity = capacity;
        t->slots = (_Atomic(stmpy_entry *) *)(t + 1);
        t->order = t->slots + slots;
    }
    return t;
}

static void free_table(void *object, void *context)
{
    (void)context;
    free(object);
}

static void free_entry(stmpy_entry *e)
{
    PyObject *key = e->key;
    stm_cell_free_chain(stmpy_domain, &e->cell);
    free(e);
    Py_DECREF(key);
}

/* A swept entry: its cell has versions still, none of which is an object. */
static void destroy_entry(void *object, void *context)
{
    stm_cell *c = object;
    stm_cell_kill(context, &c, 1);
    free_entry(object);
}

static void free_all(void *object, void *context)
{
    stmpy_table *t = object;
    (void)context;
    for (uint32_t i = 0; i < stm_load_rlx(&t->used); i++) { /* nobody else is left */
        free_entry(stm_load_rlx(&t->order[i]));
    }
    free(t);
}

static void free_index(void *object, void *context)
{
    stmpy_index *x = object;
    stm_cell_free_chain(context, &x->shape);
    stm_cell_free_chain(context, &x->size);
    free(x);
}

/* --- cells of the index itself ---------------------------------------------- */

static stm_node *new_node(void)
{
    stm_node *n = stm_alloc(sizeof(*n));
    if (n != NULL) {
        stm_fetch_add(&stmpy_domain->nodes_made, 1);
        n->value = 0;
        n->born = 0;
    }
    return n;
}

static void free_node(stm_node *n)
{
    if (n != NULL) {
        stm_fetch_add(&stmpy_domain->nodes_freed, 1);
        free(n);
    }
}

stmpy_index *stmpy_index_new(void)
{
    stmpy_index *x = stm_alloc_lines(sizeof(*x));
    stmpy_table *t = new_table(LEAST_SLOTS);
    stm_node *shape = new_node(), *size = new_node();
    if (x == NULL || t == NULL || shape == NULL || size == NULL) {
        free(x);
        free(t);
        free_node(shape);
        free_node(size);
        PyErr_NoMemory();
        return NULL;
    }
    stm_cell_setup(&x->shape, STM_CELL_RAW, shape, 0);
    stm_cell_setup(&x->size, STM_CELL_RAW, size, 0);
    stm_store_rel(&x->table, t);
    return x;
}

/* Values go at once, memory when no transaction can hold a pointer to it. */
static void kill_entries(stmpy_table *t)
{
    enum { BATCH = 128 };
    stm_cell *cells[BATCH];
    uint32_t used = stm_load_acq(&t->used);
    for (uint32_t done = 0; done < used;) {
        size_t n = 0;
        for (; n < BATCH && done < used; n++, done++) {
            cells[n] = &stm_load_acq(&t->order[done])->cell;
        }
        stm_cell_kill(stmpy_domain, cells, n);
        for (size_t i = 0; i < n; i++) {
            stm_cell_release_values(stmpy_domain, cells[i]);
        }
    }
}

void stmpy_index_end(stmpy_index *x)
{
    enum { LARGE = 1000 }; /* entries: not left to wait for company */
    stm_cell *own[] = {&x->shape, &x->size};
    stmpy_table *t = stmpy_index_table(x);
    bool is_large = stm_load_acq(&t->used) >= LARGE;
    kill_entries(t);
    stm_cell_kill(stmpy_domain, own, 2);
    stm_domain_retire(stmpy_domain, t, free_all);
    stm_domain_retire(stmpy_domain, x, free_index);
    if (is_large) {
        stm_domain_reclaim(stmpy_domain);
    }
}

int stmpy_index_empty(stmpy_index *x)
{
    stmpy_table *old = stmpy_index_table(x);
    stmpy_table *fresh = new_table(LEAST_SLOTS);
    if (fresh == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stm_store_rel(&x->table, fresh);
    kill_entries(old);
    stm_domain_retire(stmpy_domain, old, free_all);
    return 0;
}

int stmpy_index_traverse(stmpy_index *x, visitproc visit, void *arg)
{
    stmpy_table *t = stmpy_index_table(x);
    uint32_t used = stm_load_acq(&t->used);
    for (uint32_t i = 0; i < used; i++) {
        stmpy_entry *e = stm_load_acq(&t->order[i]);
        Py_VISIT(e->key);
        for (stm_node *n = stm_load_acq(&e->cell.head); n; n = stm_load_acq(&n->older)) {
            if (n->value > STMPY_SWEPT) {
                Py_VISIT(stmpy_object(n->value));
            }
        }
    }
    return 0;
}

/* --- looking up --------------------------------------------------------------- */

/* 1 equal, 0 different, -1 only Python code can tell. */
static int simple_equal(PyObject *a, PyObject *b)
{
    if (a == b) {
        return 1;
    }
    if (PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b)) {
        return PyUnicode_Compare(a, b) == 0; /* ready strings: cannot fail */
    }
    if (PyLong_CheckExact(a) && PyLong_CheckExact(b)) {
        int equal = PyObject_RichCompareBool(a, b, Py_EQ);
        if (equal < 0) {
            PyErr_Clear();
        }
        return equal;
    }
    return -1;
}

/* The probing sequence of one hash in one table. */
typedef struct {
    const stmpy_table *table;
    uint64_t slot;
    uint64_t perturb;
} probe;

static probe probe_start(const stmpy_table *t, Py_hash_t hash)
{
    probe p = {t, (uint64_t)hash & t->mask, (uint64_t)hash};
    return p;
}

static stmpy_entry *probe_entry(const probe *p)
{
    return stm_load_acq(&p->table->slots[p->slot]); /* pairs with add_entry */
}

static void probe_next(probe *p)
{
    p->perturb >>= PERTURB;
    p->slot = (p->slot * 5 + p->perturb + 1) & p->table->mask;
}

int stmpy_index_find_simple(stmpy_index *x, PyObject *key, Py_hash_t hash, stmpy_entry **found)
{
    probe p = probe_start(stmpy_index_table(x), hash);
    for (stmpy_entry *e; (e = probe_entry(&p)) != NULL; probe_next(&p)) {
        if (e->hash == hash) {
            int equal = simple_equal(e->key, key);
            if (equal != 0) {
                *found = e;
                return equal > 0;
            }
        }
    }
    *found = NULL;
    return 1;
}

static int find_in(const stmpy_table *t, PyObject *key, Py_hash_t hash, stmpy_entry **found)
{
    *found = NULL;
    probe p = probe_start(t, hash);
    for (stmpy_entry *e; (e = probe_entry(&p)) != NULL; probe_next(&p)) {
        if (e->hash != hash) {
            continue;
        }
        int equal = simple_equal(e->key, key);
        if (equal < 0) {
            equal = PyObject_RichCompareBool(e->key, key, Py_EQ);
            if (equal < 0) {
                return -1;
            }
        }
        if (equal) {
            *found = e;
            break;
        }
    }
    return 0;
}

int stmpy_index_find(stmpy_index *x, PyObject *key, Py_hash_t hash, stmpy_entry **found)
{
    return find_in(stmpy_index_table(x), key, hash, found);
}

/* --- adding ------------------------------------------------------------------- */

/* Puts an entry into the slots: under the lock, or into a table of our own. */
static void place(stmpy_table *t, stmpy_entry *e)
{
    probe p = probe_start(t, e->hash);
    while (probe_entry(&p) != NULL) {
        probe_next(&p);
    }
    uint32_t used = stm_load_rlx(&t->used); /* own: under the lock */
    stm_store_rel(&t->order[used], e);
    stm_store_rel(&t->used, used + 1);
    stm_store_rel(&t->slots[p.slot], e); /* publishes the entry's fields */
}

/* An absent entry, not yet in a table. */
static stmpy_entry *new_entry(PyObject *key, Py_hash_t hash)
{
    stmpy_entry *e = stm_alloc_lines(sizeof(*e));
    stm_node *n = new_node();
    if (e == NULL || n == NULL) {
        free(e);
        free_node(n);
        PyErr_NoMemory();
        return NULL;
    }
    stm_cell_setup(&e->cell, STM_CELL_HANDLE, n, STMPY_ABSENT);
    e->key = Py_NewRef(key);
    e->hash = hash;
    return e;
}

/* INV-TAB-4: not before the last sweep. */
static bool start_after_sweep(stmpy_index *x, stmpy_entry *e)
{
    if (x->swept_at == 0) {
        return true;
    }
    stm_node *n = new_node();
    if (n == NULL) {
        return false;
    }
    n->value = STMPY_ABSENT;
    n->version = x->swept_at;
    stm_store_rlx(&n->older, stm_load_rlx(&e->cell.head)); /* not published yet */
    stm_store_rlx(&e->cell.head, n);
    return true;
}

typedef struct {
    stm_cell **cells;
    stm_node **nodes;
    uint32_t count;
} candidates;

/* Entries that look absent for good; the core decides (stm_cell_sweep). */
static void choose(stmpy_table *t, candidates *c)
{
    uint32_t used = stm_load_rlx(&t->used);
    c->count = 0;
    c->cells = malloc(used * sizeof(*c->cells));
    c->nodes = malloc(used * sizeof(*c->nodes));
    for (uint32_t i = 0; c->cells != NULL && c->nodes != NULL && i < used; i++) {
        stmpy_entry *e = stm_load_rlx(&t->order[i]);
        const stm_node *head = stm_load_acq(&e->cell.head);
        if (head->value == STMPY_ABSENT) {
            stm_node *n = new_node();
            if (n == NULL) {
                return;
            }
            n->value = STMPY_SWEPT;
            c->cells[c->count] = &e->cell;
            c->nodes[c->count++] = n;
        }
    }
}

/* Slots for `kept` entries and as many to come. */
static uint64_t slots_for(uint32_t kept)
{
    uint64_t slots = LEAST_SLOTS;
    while ((slots - slots / 4 - slots / 16) / 2 < kept) {
        slots *= 2;
    }
    return slots;
}

/* Moves what was not swept to a new table and publishes it. */
static void move(stmpy_index *x, stmpy_table *old, stmpy_table *fresh)
{
    uint32_t used = stm_load_rlx(&old->used); /* own: under the lock */
    for (uint32_t i = 0; i < used; i++) {
        stmpy_entry *e = stm_load_rlx(&old->order[i]);
        if (stm_load_acq(&e->cell.head)->value != STMPY_SWEPT) {
            place(fresh, e);
        }
    }
    stm_store_rel(&x->table, fresh);
}

/* Under the lock: a table with room, without the entries that could be swept. */
static bool grow(stmpy_thread *th, stmpy_index *x)
{
    stmpy_table *old = stmpy_index_table(x);
    uint32_t used = stm_load_rlx(&old->used);
    stmpy_table *fresh = new_table((old->mask + 1) * 2);
    if (fresh == NULL) {
        return false;
    }
    candidates c = {NULL, NULL, 0};
    uint32_t swept = 0;
    if (th != NULL && th->block.depth > 0) { /* else it is being built: nothing is absent */
        choose(old, &c);
        uint64_t version;
        stm_node *shape = new_node();
        swept = stm_cell_sweep(th->block.txn, STMPY_ABSENT, c.cells, c.nodes, c.count, &x->shape,
                               &shape, &version);
        free_node(shape);
        if (swept != 0) {
            x->swept_at = version;
        }
    }
    uint64_t slots = slots_for(used - swept);
    stmpy_table *smaller = slots < fresh->mask + 1 ? new_table(slots) : NULL;
    if (smaller != NULL) {
        free(fresh);
        fresh = smaller;
    }
    move(x, old, fresh);
    for (uint32_t i = swept; i < c.count; i++) {
        free_node(c.nodes[i]);
    }
    for (uint32_t i = 0; i < swept; i++) { /* the cell is the entry's first member */
        stm_domain_retire_quietly(stmpy_domain, c.cells[i], destroy_entry);
    }
    stm_domain_retire_quietly(stmpy_domain, old, free_table);
    free(c.cells);
    free(c.nodes);
    return true;
}

stmpy_entry *stmpy_index_get(stmpy_index *x, PyObject *key, Py_hash_t hash)
{
    stmpy_entry *fresh = NULL;
    for (;;) {
        stmpy_table *t = stmpy_index_table(x);
        uint32_t seen = stm_load_acq(&t->used);
        stmpy_entry *e;
        if (find_in(t, key, hash, &e) < 0 || e != NULL) {
            if (fresh != NULL) {
                free_entry(fresh);
            }
            return e;
        }
        if (fresh == NULL && (fresh = new_entry(key, hash)) == NULL) {
            return NULL;
        }
        stmpy_mutex_lock(&x->lock);
        bool added = false, full = false;
        if (stmpy_index_table(x) == t && stm_load_rlx(&t->used) == seen) { /* INV-TAB-2 */
            if (seen == t->capacity) {
                full = !grow(stmpy_tls, x);
            } else if (start_after_sweep(x, fresh)) {
                place(t, fresh);
                added = true;
            } else {
                full = true;
            }
        }
        stmpy_mutex_unlock(&x->lock);
        if (added) {
            return fresh;
        }
        if (full) {
            free_entry(fresh);
            PyErr_NoMemory();
            return NULL;
        }
    }
}

void stmpy_index_settle(stmpy_index *x)
{
    stmpy_mutex_lock(&x->lock);
    stmpy_mutex_unlock(&x->lock);
}

/* --- a Dict that is being built -------------------------------------------------- */

int stmpy_index_preset(stmpy_index *x, PyObject *key, Py_hash_t hash, PyObject *value,
                       uint64_t born, bool *is_new)
{
    stmpy_entry *e = stmpy_index_get(x, key, hash);
    if (e == NULL) {
        return -1;
    }
    stm_node *n = stm_load_rlx(&e->cell.head); /* nobody else knows the Dict */
    PyObject *old = stmpy_object(n->value);
    *is_new = old == NULL;
    n->value = stmpy_handle(Py_NewRef(value));
    if (*is_new) {
        n->born = born;
    }
    Py_XDECREF(old);
    return 0;
}

void stmpy_index_preset_size(stmpy_index *x, Py_ssize_t size)
{
    stm_load_rlx(&x->size.head)->value = (stm_value)size; /* nobody else knows the Dict */
}
