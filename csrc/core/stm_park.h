/* Layer 5: transactions that sleep until something that they read changes. */
#ifndef STM_PARK_H
#define STM_PARK_H

#include "stm_cell.h"
#include "stm_vec.h"
#include "stm_wait.h"

enum { STM_INTEREST = 1024 };

/* Of a domain.  A commit looks at `count`, then at `interest`, then at the queue. */
typedef struct {
    /* Records that sleep, or are about to or have just been woken. */
    alignas(STM_LINE) _Atomic uint32_t count;
    _Atomic uint32_t everything; /* of these, with too many reads to count each */
    pthread_mutex_t mutex;
    stm_waiter *first; /* FIFO of those not woken yet; under mutex */
    stm_waiter *last;
    uint64_t grants;                         /* so far; under mutex */
    _Atomic uint32_t interest[STM_INTEREST]; /* reads of the others, by hash */
} stm_parking;

/* Of a record. */
typedef struct {
    uint64_t granted_as; /* which grant of the domain woke it last; 0: none */
    uint64_t filter;     /* one bit per hash of what it reads */
    /* Its record is registered; under the mutex.  Only the record's user clears
     * it, or who abandons the record. */
    bool listed;
} stm_parked;

struct stm_txn;

void stm_parking_setup(stm_parking *p);
void stm_parking_teardown(stm_parking *p);

/* Wakes, in order of arrival, those who read one of the cells of these writes
 * (cell == NULL: not published) before `version`, which published them.  Index: cell to place, or
 * NULL where a scan of `writes` is short.  Not in a commit section: park mutex. */
void stm_parking_wake(stm_parking *p, uint64_t version, const stm_buffered *writes, uint32_t count,
                      const stm_map *index);
/* Takes the record out, if it is in. */
void stm_parking_leave(struct stm_txn *t);
/* In a forked child: nobody but these sleeps. */
void stm_parking_fork_child(stm_parking *p, struct stm_txn **own, size_t count);

/* In a commit section: may somebody have to be woken? */
static inline bool stm_parking_in_use(stm_parking *p)
{
    return stm_load(&p->count) != 0; /* seq_cst: INV-PARK-1 */
}

#endif
