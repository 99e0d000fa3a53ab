/* Layer 2: the ring of recent commits' write sets. */
#ifndef STM_LOG_H
#define STM_LOG_H

#include "stm_cell.h"
#include "stm_vec.h"

/* All fields atomic: readers take no lock and check `version` twice. */
typedef struct {
    _Atomic uint64_t version; /* 0 while the entry is being changed */
    _Atomic uint64_t start;   /* position of its first word, counted for ever */
    _Atomic uint32_t count;
    _Atomic uint32_t label;
    _Atomic uint32_t thread;
    _Atomic uint32_t pad;
} stm_log_entry;

typedef struct {
    stm_log_entry *entries;
    _Atomic uintptr_t *words; /* cells, one per word */
    uint64_t entry_mask;
    uint64_t word_mask;
    _Atomic uint64_t reserved; /* words up to here may be overwritten by now */
} stm_log;

#define STM_LOG_UNLISTED UINT32_MAX /* a write set too large for the ring */

bool stm_log_setup(stm_log *l, uint32_t entries);
void stm_log_teardown(stm_log *l);

/* Under the commit lock.  count: of those writes that are not void. */
void stm_log_append(stm_log *l, uint64_t version, uint32_t label, uint32_t thread,
                    const stm_buffered *writes, uint32_t writes_count, uint32_t count);

/* A version whose cells are not listed: who wants to know compares heads. */
void stm_log_append_unlisted(stm_log *l, uint64_t version);

/* How many cells versions (after, upto] wrote; UINT64_MAX when the ring no
 * longer tells. */
uint64_t stm_log_size(const stm_log *l, uint64_t after, uint64_t upto);

typedef enum { STM_LOG_CLEAN, STM_LOG_HIT, STM_LOG_LOST } stm_log_answer;

/* Did any of versions (after, upto] write a cell for which `index` has a
 * number?  HIT fills *cell and *version. */
stm_log_answer stm_log_probe(const stm_log *l, uint64_t after, uint64_t upto, const stm_map *index,
                             stm_cell **cell, uint64_t *version);

/* Who committed `version`; zeros when the ring no longer tells. */
void stm_log_writer(const stm_log *l, uint64_t version, uint32_t *label, uint32_t *thread);

#endif
