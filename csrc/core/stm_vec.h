/* Layer 1: a map from pointers to small numbers, for read and write sets. */
#ifndef STM_VEC_H
#define STM_VEC_H

#include "stm_fault.h"

/* Open addressing, at most half full.  keys[i] == NULL: free. */
typedef struct {
    const void **keys;
    uint32_t *numbers;
    uint32_t capacity; /* 0 or a power of two */
    uint32_t used;
} stm_map;

#define STM_MAP_NONE UINT32_MAX

/* Cells stand on lines of their own: the low six bits say nothing. */
static inline uint32_t stm_hash_pointer(const void *p)
{
    uint64_t x = (uint64_t)(uintptr_t)p >> 6;
    return (uint32_t)((x * 0x9E3779B97F4A7C15u) >> 32);
}

/* False: no memory; the map is as it was. */
bool stm_map_reserve(stm_map *m, uint32_t entries);
/* Room must have been reserved.  Overwrites the number that is there. */
void stm_map_put(stm_map *m, const void *key, uint32_t number);
uint32_t stm_map_get(const stm_map *m, const void *key);
void stm_map_clear(stm_map *m);
/* The same without giving memory back. */
void stm_map_empty(stm_map *m);
void stm_map_release(stm_map *m);

/* Doubles (at least to `least`) an array of `size`-byte items.  NULL: no memory. */
void *stm_grow(void *items, uint32_t *capacity, uint32_t least, size_t size);

#endif
