/* Layer 4: which old versions and dead objects nobody can need any more. */
#ifndef STM_EPOCH_H
#define STM_EPOCH_H

#include "stm_cell.h"
#include "stm_clock.h"
#include "stm_slot.h"

typedef struct {
    uint64_t horizon; /* every running transaction reads at or above it */
    uint64_t began;   /* every running transaction began at or above it */
    bool busy;        /* some other record is not idle */
} stm_scan;

/* Cells with more than one version, oldest first.  Under the commit lock. */
typedef struct {
    stm_cell ends; /* a sentinel: trim_next is the first, trim_prev the last */
} stm_trim_queue;

/* Something that waits until no running transaction can hold a pointer to it. */
typedef struct {
    void *object;
    void (*destroy)(void *object, void *context);
    uint64_t stamp; /* the clock when it was retired */
} stm_retired;

/* A ring of retired objects, oldest first. */
typedef struct {
    stm_lock lock;
    stm_retired *items;
    uint64_t first;
    uint64_t end;
    uint64_t capacity; /* 0 or a power of two */
    pthread_mutex_t park_mutex;
    pthread_cond_t park_cond;
} stm_retire_list;

typedef struct {
    alignas(STM_LINE) _Atomic uint64_t floor; /* see stm_epoch.c; read by every begin */
    alignas(STM_LINE) stm_slots slots;
    alignas(STM_LINE) stm_retire_list retired;
    _Atomic uint64_t retired_count;
} stm_epoch;

void stm_epoch_setup(stm_epoch *e);
void stm_epoch_teardown(stm_epoch *e);

/* clock: a value of the domain's clock.  self is left out (NULL: nobody is). */
stm_scan stm_epoch_scan(stm_epoch *e, uint64_t clock, const stm_slot *self);

/* Under the commit lock. */
void stm_trim_setup(stm_trim_queue *q);
void stm_trim_add(stm_trim_queue *q, stm_cell *c, uint64_t now);
void stm_trim_remove(stm_cell *c);
/* After a push to c by the record `owner` of queue q. */
void stm_trim_note(stm_trim_queue *q, uint32_t owner, stm_cell *c, uint64_t now);
/* Cuts what is below the horizon off up to `budget` queued cells, and hands
 * the cut chains over in *garbage (see stm_garbage_sort). */
void stm_trim_run(stm_trim_queue *q, uint64_t horizon, uint64_t now, uint32_t budget,
                  stm_node **garbage);
/* One cell; true when one version is left. */
bool stm_trim_cell(stm_cell *c, uint64_t horizon, stm_node **garbage);

/* The list of cut chains: the first node of each carries the next chain in
 * `born` and the cell's flags in `version`. */
void stm_garbage_push(stm_node **garbage, stm_node *chain, uint32_t cell_flags);
stm_node *stm_garbage_pop(stm_node **garbage, bool *raw);

/* False: no memory, the object stays with the caller (who must leak it). */
bool stm_epoch_retire(stm_epoch *e, const stm_clock *clock, void *object,
                      void (*destroy)(void *, void *), uint64_t *waiting);
/* How many objects were retired so far: taken before a scan, it says which
 * objects that scan speaks of. */
uint64_t stm_epoch_retired_end(stm_epoch *e);
/* Moves up to `most` of the first `end` objects out that are older than `began`. */
uint32_t stm_epoch_reclaim(stm_epoch *e, uint64_t end, uint64_t began, stm_retired *out,
                           uint32_t most);

#endif
