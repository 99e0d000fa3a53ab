/* Layer 2: the ring of recent commits' write sets. */
#ifndef STM_LOG_H
#define STM_LOG_H

#include "stm_cell.h"
#include "stm_vec.h"

enum { STM_LOG_INLINE = 4 };

/* One line a commit, so that threads that commit in turn don't write the same
 * line.  All fields atomic: readers take no lock and check `version` twice. */
typedef struct {
    alignas(STM_LINE) _Atomic uint64_t version; /* 0 while the entry is being changed */
    _Atomic uint64_t count;
    _Atomic uint64_t start; /* count > STM_LOG_INLINE: position of the first word */
    _Atomic uintptr_t cells[STM_LOG_INLINE];
} stm_log_entry;

typedef struct {
    stm_log_entry *entries;
    _Atomic uintptr_t *words; /* cells of larger write sets, one per word */
    uint64_t entry_mask;
    uint64_t word_mask;
    /* Running attempts that have read so much that they will probe.  While there
     * is none nothing is listed: the line of the entry would have to come from
     * the processor that used it last, in every commit section. */
    _Atomic uint32_t wanted;
    /* Words up to here may be overwritten by now.  On a line of its own: what
     * stands above is read by everybody. */
    alignas(STM_LINE) _Atomic uint64_t reserved;
} stm_log;

#define STM_LOG_UNLISTED UINT64_MAX /* a write set too large for the ring */

bool stm_log_setup(stm_log *l, uint32_t entries);
void stm_log_teardown(stm_log *l);

static inline bool stm_log_is_wanted(stm_log *l)
{
    return stm_load(&l->wanted) != 0;
}

/* Under the commit lock.  count: of those writes that are not void. */
void stm_log_append(stm_log *l, uint64_t version, const stm_buffered *writes, uint32_t writes_count,
                    uint32_t count);

/* A version whose cells are not listed: who wants to know compares heads. */
void stm_log_append_unlisted(stm_log *l, uint64_t version);

/* How much there is to probe for versions (after, upto]: versions plus cells;
 * UINT64_MAX when it is more than `most` or the ring no longer tells. */
uint64_t stm_log_size(const stm_log *l, uint64_t after, uint64_t upto, uint64_t most);

typedef enum { STM_LOG_CLEAN, STM_LOG_HIT, STM_LOG_LOST } stm_log_answer;

/* Did any of versions (after, upto] write a cell for which `index` has a
 * number?  HIT fills *cell and *version. */
stm_log_answer stm_log_probe(const stm_log *l, uint64_t after, uint64_t upto, const stm_map *index,
                             stm_cell **cell, uint64_t *version);

#endif
