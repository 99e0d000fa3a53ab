/* Layer 3: the records of running transactions that others look at. */
#ifndef STM_SLOT_H
#define STM_SLOT_H

#include <pthread.h>

#include "stm_atomic.h"

#define STM_SLOT_IDLE UINT64_MAX

/* The first line of every transaction record; written by its user only. */
typedef struct stm_slot {
    /* No version that a read at `active` can return is cut; IDLE: no need. */
    alignas(STM_LINE) _Atomic uint64_t active;
    /* `active` as it was when the attempt began: what was retired later is kept. */
    _Atomic uint64_t began;
    struct stm_slot *next; /* every record ever made; fixed once published */
    struct stm_slot *next_free;
    uint32_t number;
} stm_slot;

typedef struct {
    _Atomic(stm_slot *) all;
    stm_slot *free_slots; /* under mutex, like what follows */
    uint32_t count;
    pthread_mutex_t mutex;
} stm_slots;

void stm_slots_setup(stm_slots *s);
void stm_slots_teardown(stm_slots *s);
/* A record that was handed back, or NULL: make one and add it. */
stm_slot *stm_slot_reuse(stm_slots *s);
void stm_slot_add(stm_slots *s, stm_slot *slot);
void stm_slot_hand_back(stm_slots *s, stm_slot *slot);

#endif
