/* The C core under real threads, without Python: for the sanitizers (make sanitize).
 *
 * Four threads move units between cells in blocks of every kind, while others
 * read all cells: the sum is the same in every attempt, also in those that lose.
 * Cells die in read and write sets, records come and go, versions are collected.
 * In the end nothing may be left.  Exit code 1: an invariant was broken.
 */
#include <stdio.h>

#include "stm_access.h"
#include "stm_domain.h"

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

int main(void)
{
    run(4);
    run(4096);
    return stm_load(&broken);
}
