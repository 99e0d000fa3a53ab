/* The records of running transactions that others look at.
 *
 * INV-SLOT-1  A record is never freed before its domain: whoever walks `all`
 *             needs no lock.  Records are reused, so there are as many as
 *             there were transactions at once, with no fixed maximum.
 * INV-SLOT-2  A free record is idle.
 *
 * Guarded by tests/anomalies (thread churn, 200 threads).
 */
#include "stm_slot.h"

void stm_slots_setup(stm_slots *s)
{
    stm_store(&s->all, NULL);
    s->free_slots = NULL;
    s->count = 0;
    pthread_mutex_init(&s->mutex, NULL);
}

void stm_slots_teardown(stm_slots *s)
{
    pthread_mutex_destroy(&s->mutex);
}

stm_slot *stm_slot_reuse(stm_slots *s)
{
    pthread_mutex_lock(&s->mutex);
    stm_slot *slot = s->free_slots;
    if (slot != NULL) {
        s->free_slots = slot->next_free;
        slot->next_free = NULL;
    }
    pthread_mutex_unlock(&s->mutex);
    return slot;
}

void stm_slot_add(stm_slots *s, stm_slot *slot)
{
    stm_store(&slot->active, STM_SLOT_IDLE);
    stm_store(&slot->began, STM_SLOT_IDLE);
    pthread_mutex_lock(&s->mutex);
    slot->number = ++s->count;
    slot->next = stm_load(&s->all);
    stm_store(&s->all, slot);
    pthread_mutex_unlock(&s->mutex);
}

void stm_slot_hand_back(stm_slots *s, stm_slot *slot)
{
    pthread_mutex_lock(&s->mutex);
    slot->next_free = s->free_slots;
    s->free_slots = slot;
    pthread_mutex_unlock(&s->mutex);
}
