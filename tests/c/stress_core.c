/* The C core under real threads, without Python: for the sanitizers (make sanitize).
 *
 * Four threads move units between cells in blocks of every kind, while others
 * read all cells: the sum is the same in every attempt, also in those that lose.
 * Cells die in read and write sets, records come and go, versions are collected.
 * Nested blocks are undone in the middle of all this.  Then producers and consumers
 * share a bounded buffer and sleep while it is full or empty.
 * In the end nothing may be left.  Exit code 1: an invariant was broken.
 */
#include <stdio.h>
#include <stdlib.h>

#include "stm_access.h"
#include "stm_domain.h"

enum { RACES = 4000, LARGE = 200, MOST_PAUSES = 120 };
enum { BUFFER = 3, PASSED = 20000, WAIT_S = 30 };
enum { CELLS = 64, THREADS = 4, EACH = 1000, ROUNDS = 40000, RENEW = 5000 };

static stm_domain *domain;
static stm_cell *cells[CELLS];
static stm_cell *counter;
static _Atomic int broken;

/* What a block does: drawn from 100. */
enum { PROTECTED = 3, READ_ONLY = 10, READ_AND_WRITE = 20, UPGRADE = 25, DYING_CELL = 30 };
enum { ADD = 40, PIN = 90, COLLECT = 98 };

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 8) % below;
}

static stm_status read_all(stm_txn *t)
{
    stm_value v;
    uint64_t sum = 0;
    for (int i = 0; i < CELLS; i++) {
        stm_status status = stm_read(t, cells[i], &v);
        if (status != STM_OK) {
            return status;
        }
        sum += v;
    }
    if (sum != CELLS * EACH) {
        stm_store(&broken, 1);
        printf("sum %llu\n", (unsigned long long)sum);
    }
    return STM_OK;
}

static stm_status change(stm_txn *t, stm_cell *c, int64_t by)
{
    stm_value v, replaced;
    stm_status status = stm_read(t, c, &v);
    return status == STM_OK ? stm_write(t, c, v + (stm_value)by, &replaced) : status;
}

/* A cell that dies while it is in the read and the write set. */
static stm_status use_dying_cell(stm_txn *t)
{
    stm_cell *c = stm_cell_new(domain, STM_CELL_HANDLE, 5);
    stm_status status = change(t, c, 1);
    stm_cell_free(domain, c);
    return status;
}

/* Moves units in a nested block (and one in it) that is undone, so that nothing of
 * it may be seen, in part or as a whole. */
static stm_status nest(stm_txn *t, uint32_t *seed)
{
    stm_savepoint outer, inner;
    stm_status status = stm_nest_begin(t, &outer);
    if (status == STM_OK) {
        status = change(t, cells[draw(seed, CELLS)], -7);
    }
    if (status == STM_OK) {
        status = stm_nest_begin(t, &inner);
        for (int i = 0; i < 12 && status == STM_OK; i++) {
            status = change(t, cells[draw(seed, CELLS)], 1);
        }
        if (draw(seed, 2) == 0) {
            stm_nest_commit(t, &inner);
        }
    }
    if (status == STM_OK && draw(seed, 8) == 0) {
        stm_retry(t); /* an alternative that did not work out */
    }
    stm_nest_rollback(t, &outer);
    stm_nest_release(t);
    return status;
}

static stm_status body(stm_txn *t, uint32_t kind, uint32_t *seed)
{
    stm_status status;
    if (kind < UPGRADE) {
        status = read_all(t);
        if (status == STM_OK && kind >= READ_ONLY && kind < READ_AND_WRITE) {
            status = change(t, cells[draw(seed, CELLS)], 0);
        }
        if (status == STM_OK && kind >= READ_AND_WRITE) {
            status = stm_make_irrevocable(t, -1);
        }
        return status;
    }
    status = change(t, cells[draw(seed, CELLS)], -1);
    if (status == STM_OK) {
        status = change(t, cells[draw(seed, CELLS)], 1);
    }
    if (status == STM_OK && (kind & 2) != 0) {
        status = nest(t, seed);
    }
    if (status == STM_OK && kind < ADD) {
        status = stm_add(t, counter, kind & 1 ? 1 : -1);
    }
    return status == STM_OK && kind < DYING_CELL ? use_dying_cell(t) : status;
}

static void run_block(stm_txn *t, uint32_t kind, uint32_t *seed)
{
    uint32_t flags = kind < PROTECTED   ? STM_BEGIN_PROTECTED
                     : kind < READ_ONLY ? STM_BEGIN_READ_ONLY
                                        : 0;
    stm_status status = stm_begin(t, flags, 0, -1);
    while (status == STM_OK) {
        status = body(t, kind, seed);
        if (status == STM_OK && (status = stm_commit(t)) == STM_OK) {
            return;
        }
        if (status == STM_CONFLICT) {
            status = stm_restart(t, -1);
        }
    }
    stm_store(&broken, 1);
    printf("status %d\n", status);
}

static void *work(void *argument)
{
    uint32_t seed = (uint32_t)(uintptr_t)argument * 7919 + 1;
    stm_txn *t = stm_txn_new(domain);
    for (int i = 1; i <= ROUNDS; i++) {
        uint32_t kind = draw(&seed, 100);
        if (kind >= COLLECT) {
            stm_domain_collect(domain);
        } else if (kind >= PIN) {
            stm_pin(t);
            stm_pinned_read(t, cells[draw(&seed, CELLS)]);
            stm_unpin(t);
        } else {
            run_block(t, kind, &seed);
        }
        if (i % RENEW == 0) {
            stm_txn_free(t);
            t = stm_txn_new(domain);
        }
    }
    stm_txn_free(t);
    return NULL;
}

static void run(uint32_t log_entries)
{
    pthread_t threads[THREADS];
    stm_stats stats;
    domain = stm_domain_new(NULL, log_entries);
    for (int i = 0; i < CELLS; i++) {
        cells[i] = stm_cell_new(domain, STM_CELL_HANDLE, EACH);
    }
    counter = stm_cell_new(domain, STM_CELL_RAW, 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    stm_domain_collect(domain);
    stm_domain_stats(domain, &stats);
    printf("log of %u: %llu commits, %llu aborts, %llu protected, %llu waits\n", log_entries,
           (unsigned long long)stats.commits, (unsigned long long)stats.aborts,
           (unsigned long long)stats.protected_attempts, (unsigned long long)stats.waits);
    if (stats.nodes != CELLS + 1 || stats.retired != 0) {
        stm_store(&broken, 1);
        printf("left over: %llu versions, %llu retired\n",
               (unsigned long long)stats.nodes - CELLS - 1, (unsigned long long)stats.retired);
    }
    for (int i = 0; i < CELLS; i++) {
        stm_cell_free(domain, cells[i]);
    }
    stm_cell_free(domain, counter);
    stm_domain_free(domain);
}

/* --- a bounded buffer ----------------------------------------------------------- */

static stm_cell *slots[BUFFER]; /* 0: empty */
static stm_cell *got;

/* Puts `unit` into an empty slot, or (0) takes one out: waits until it can. */
static stm_status pass(stm_txn *t, stm_value unit)
{
    for (int i = 0; i < BUFFER; i++) {
        stm_savepoint s;
        stm_value v, replaced;
        stm_status status = stm_nest_begin(t, &s);
        if (status == STM_OK) {
            status = stm_read(t, slots[i], &v);
        }
        if (status == STM_OK && (v == 0) == (unit != 0)) {
            status = stm_write(t, slots[i], unit, &replaced);
            if (status == STM_OK && unit == 0) {
                status = stm_add(t, got, (int64_t)v);
            }
            stm_nest_commit(t, &s);
            return status;
        }
        if (status != STM_OK) {
            return status;
        }
        stm_retry(t);
        stm_nest_rollback(t, &s); /* try the next one */
    }
    return stm_retry(t);
}

static void pass_one(stm_txn *t, stm_value unit, uint32_t flags)
{
    stm_status status = stm_begin(t, flags, 0, -1);
    while (status == STM_OK) {
        status = pass(t, unit);
        if (status == STM_OK && (status = stm_commit(t)) == STM_OK) {
            return;
        }
        if (status == STM_CONFLICT) {
            status = stm_txn_state(t) == STM_WAITING ? stm_park(t, WAIT_S) : stm_restart(t, -1);
        }
    }
    stm_store(&broken, 1);
    printf("buffer: status %d\n", status);
    exit(1);
}

static void *produce_or_consume(void *argument)
{
    uintptr_t n = (uintptr_t)argument;
    uint32_t seed = (uint32_t)n;
    stm_txn *t = stm_txn_new(domain);
    for (stm_value i = 1; i <= PASSED; i++) {
        pass_one(t, n & 1 ? i : 0, draw(&seed, 50) == 0 ? STM_BEGIN_PROTECTED : 0);
    }
    stm_txn_free(t);
    return NULL;
}

static void run_buffer(void)
{
    pthread_t threads[THREADS];
    stm_stats stats;
    domain = stm_domain_new(NULL, 0);
    for (int i = 0; i < BUFFER; i++) {
        slots[i] = stm_cell_new(domain, STM_CELL_RAW, 0);
    }
    got = stm_cell_new(domain, STM_CELL_RAW, 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, produce_or_consume, (void *)i);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    stm_domain_stats(domain, &stats);
    stm_txn *t = stm_txn_new(domain);
    stm_pin(t);
    stm_value sum = stm_pinned_read(t, got);
    stm_unpin(t);
    stm_txn_free(t);
    printf("buffer: %llu commits, %llu parks, %llu wakes\n", (unsigned long long)stats.commits,
           (unsigned long long)stats.parks, (unsigned long long)stats.wakes);
    if (sum != (stm_value)THREADS / 2 * PASSED * (PASSED + 1) / 2 || stats.parked != 0 ||
        stats.parks != stats.wakes || stats.parks == 0) {
        stm_store(&broken, 1);
        printf("buffer: sum %llu\n", (unsigned long long)sum);
    }
    for (int i = 0; i < BUFFER; i++) {
        stm_cell_free(domain, slots[i]);
    }
    stm_cell_free(domain, got);
    stm_domain_free(domain);
}

/* --- a commit under way while another thread parks --------------------------------- */

static stm_cell *ball;
static stm_cell *many[2][LARGE];
static _Atomic uint64_t asked; /* rounds in which the parker is about to park */
static _Atomic bool race_over;

static void pause_a_little(uint32_t *seed)
{
    for (uint32_t n = draw(seed, MOST_PAUSES); n > 0; n--) {
        stm_pause();
    }
}

static void *park_in_race(void *argument)
{
    uint32_t seed = 1;
    stm_value v;
    stm_txn *t = argument;
    for (uint64_t n = 1; n <= RACES && stm_load(&broken) == 0; n++) {
        stm_status status = stm_begin(t, 0, 0, -1);
        status = status == STM_OK ? stm_read(t, ball, &v) : status;
        stm_retry(t);
        stm_store(&asked, n);
        pause_a_little(&seed);
        status = stm_park(t, WAIT_S);
        if (status != STM_OK || stm_read(t, ball, &v) != STM_OK || v != n) {
            stm_store(&broken, 1);
            printf("race: status %d in round %llu\n", status, (unsigned long long)n);
        }
        stm_rollback(t);
    }
    stm_store(&race_over, true);
    return NULL;
}

static void write_many(stm_txn *t, stm_cell **which)
{
    stm_value replaced;
    stm_begin(t, 0, 0, -1);
    for (int i = 0; i < LARGE; i++) {
        stm_write(t, which[i], 1, &replaced);
    }
}

static void *wake_in_race(void *argument)
{
    uint32_t seed = 2;
    stm_value replaced;
    stm_txn *t = argument;
    for (uint64_t n = 1; n <= RACES; n++) {
        write_many(t, many[0]);
        stm_write(t, ball, n, &replaced); /* last, at the end of a long section */
        while (stm_load(&asked) != n && !stm_load(&race_over)) {
        }
        pause_a_little(&seed);
        stm_commit(t);
    }
    return NULL;
}

/* Others that hold the lock: the waker may have to wait before its section. */
static void *disturb_race(void *argument)
{
    while (!stm_load(&race_over)) {
        write_many(argument, many[1]);
        stm_commit(argument);
    }
    return NULL;
}

static void run_race(void)
{
    void *(*const bodies[3])(void *) = {park_in_race, wake_in_race, disturb_race};
    pthread_t threads[3];
    stm_stats stats;
    stm_txn *t[3];
    domain = stm_domain_new(NULL, 0);
    ball = stm_cell_new(domain, STM_CELL_RAW, 0);
    for (int i = 0; i < 2 * LARGE; i++) {
        many[i / LARGE][i % LARGE] = stm_cell_new(domain, STM_CELL_RAW, 0);
    }
    for (int i = 0; i < 3; i++) {
        t[i] = stm_txn_new(domain);
    }
    for (int i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, bodies[i], t[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        stm_txn_free(t[i]);
    }
    stm_domain_stats(domain, &stats);
    printf("race: %llu of %d slept\n", (unsigned long long)stats.parks, RACES);
    stm_cell_free(domain, ball);
    for (int i = 0; i < 2 * LARGE; i++) {
        stm_cell_free(domain, many[i / LARGE][i % LARGE]);
    }
    stm_domain_free(domain);
}

/* --- a sweep wakes who waits for a key ------------------------------------------- */

static void *wait_for_key(void *argument)
{
    stm_cell *c = argument;
    stm_value v;
    stm_txn *t = stm_txn_new(domain);
    stm_status status = stm_begin(t, 0, 0, -1);
    if (status == STM_OK && stm_read(t, c, &v) == STM_OK) {
        stm_retry(t);
        status = stm_park(t, WAIT_S);
    }
    if (status != STM_OK) {
        stm_store(&broken, 1);
        printf("sweep: status %d\n", status);
    }
    stm_txn_free(t);
    return NULL;
}

static void run_sweep(void)
{
    pthread_t thread;
    stm_stats stats;
    uint64_t version;
    domain = stm_domain_new(NULL, 0);
    stm_cell *c = stm_cell_new(domain, STM_CELL_RAW, 1);
    stm_cell *also = stm_cell_new(domain, STM_CELL_RAW, 0);
    stm_node *node = calloc(1, sizeof(*node)), *also_node = calloc(1, sizeof(*node));
    node->value = 2;
    pthread_create(&thread, NULL, wait_for_key, c);
    do {
        stm_domain_stats(domain, &stats);
    } while (stats.parks == 0);
    stm_txn *t = stm_txn_new(domain);
    stm_begin(t, 0, 0, -1);
    stm_cell *swept = c;
    if (stm_cell_sweep(t, 1, &swept, &node, 1, also, &also_node, &version) != 1) {
        stm_store(&broken, 1);
        printf("sweep: not swept\n");
    }
    stm_commit(t);
    pthread_join(thread, NULL);
    stm_txn_free(t);
    stm_cell_free(domain, c);
    stm_cell_free(domain, also);
    stm_domain_free(domain);
}

int main(void)
{
    run_race();
    run_sweep();
    run_buffer();
    run(4);
    run(4096);
    return stm_load(&broken);
}
