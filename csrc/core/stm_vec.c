/* A map from pointers to small numbers, and growing arrays.
 *
 * INV-VEC-1  used * 2 <= capacity, so that a probe always ends.
 * INV-VEC-2  A failed reserve leaves the map as it was.
 *
 * Guarded by tests/core/test_txn.py (large sets) and tests/core/test_faults.py.
 */
#include "stm_vec.h"

#include "stm_api.h"

#include <string.h>

_Atomic int64_t stm_fault_countdown;

/* A map that once served a huge transaction is not kept for small ones. */
enum { KEEP_CAPACITY = 1 << 14 };

void stm_fault_arm(int64_t n)
{
    stm_store(&stm_fault_countdown, n);
}

static uint32_t probe(const stm_map *m, const void *key)
{
    uint32_t mask = m->capacity - 1;
    uint32_t i = stm_hash_pointer(key) & mask;
    while (m->keys[i] != NULL && m->keys[i] != key) {
        i = (i + 1) & mask;
    }
    return i;
}

bool stm_map_reserve(stm_map *m, uint32_t entries)
{
    if (entries <= m->capacity / 2) {
        return true;
    }
    uint32_t capacity = m->capacity < 32 ? 32 : m->capacity;
    while (capacity / 2 < entries) {
        if (capacity > UINT32_MAX / 4) {
            return false;
        }
        capacity *= 2;
    }
    stm_map bigger = {.capacity = capacity};
    bigger.keys = stm_alloc(capacity * sizeof(*bigger.keys));
    bigger.numbers = stm_alloc(capacity * sizeof(*bigger.numbers));
    if (bigger.keys == NULL || bigger.numbers == NULL) {
        free(bigger.keys);
        free(bigger.numbers);
        return false;
    }
    memset(bigger.keys, 0, capacity * sizeof(*bigger.keys));
    for (uint32_t i = 0; i < m->capacity; i++) {
        if (m->keys[i] != NULL) {
            stm_map_put(&bigger, m->keys[i], m->numbers[i]);
        }
    }
    free(m->keys);
    free(m->numbers);
    *m = bigger;
    return true;
}

void stm_map_put(stm_map *m, const void *key, uint32_t number)
{
    uint32_t i = probe(m, key);
    if (m->keys[i] == NULL) {
        m->keys[i] = key;
        m->used++;
    }
    m->numbers[i] = number;
}

uint32_t stm_map_get(const stm_map *m, const void *key)
{
    if (m->used == 0) {
        return STM_MAP_NONE;
    }
    uint32_t i = probe(m, key);
    return m->keys[i] == NULL ? STM_MAP_NONE : m->numbers[i];
}

void stm_map_clear(stm_map *m)
{
    if (m->capacity > KEEP_CAPACITY) {
        stm_map_release(m);
    } else {
        stm_map_empty(m);
    }
}

void stm_map_empty(stm_map *m)
{
    if (m->used != 0) {
        memset(m->keys, 0, m->capacity * sizeof(*m->keys));
        m->used = 0;
    }
}

void stm_map_release(stm_map *m)
{
    free(m->keys);
    free(m->numbers);
    *m = (stm_map){0};
}

void *stm_grow(void *items, uint32_t *capacity, uint32_t least, size_t size)
{
    uint64_t wanted = (uint64_t)*capacity * 2;
    if (wanted < least) {
        wanted = least;
    }
    if (wanted > UINT32_MAX - 1) {
        return NULL;
    }
    void *grown = stm_realloc(items, (size_t)wanted * size);
    if (grown != NULL) {
        *capacity = (uint32_t)wanted;
    }
    return grown;
}
