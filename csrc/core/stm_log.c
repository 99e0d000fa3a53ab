/* The ring of recent commits' write sets.
 *
 * Terms.  Entry: one version; up to STM_LOG_INLINE cells stand in it.  Word: one
 * cell of a larger write set.  Position: index of a word counted from the start
 * of the domain; position & word_mask is where it stands.
 *
 * INV-LOG-1  Written by the holder of the commit lock only.
 * INV-LOG-2  A word at position p is intact while reserved <= p + ring size.
 *            `reserved` is raised before the words are overwritten, and words
 *            are stored with release: a reader that meets a newer word then
 *            also meets the newer `reserved` (seqlock, no fence needed).
 * INV-LOG-3  Readers decide nothing from an entry before they have seen that
 *            it was intact after they read it.
 *
 * INV-LOG-4  A version that nobody listed leaves an older version in its entry,
 *            so a scan that needs it answers LOST.
 *
 * Why a ring and not lists: a scan needs no reference to what it scans, so
 * nothing has to be reclaimed, and a commit allocates nothing.
 *
 * Guarded by tests/core/test_log.py (ring of 4) and the model test.
 */
#include "stm_log.h"

enum { WORDS_PER_ENTRY = 4, LEAST_ENTRIES = 4, MOST_ENTRIES = 1 << 20 };

bool stm_log_setup(stm_log *l, uint32_t entries)
{
    uint64_t n = LEAST_ENTRIES;
    while (n < entries && n < MOST_ENTRIES) {
        n *= 2;
    }
    l->entry_mask = n - 1;
    l->word_mask = n * WORDS_PER_ENTRY - 1;
    l->entries = stm_alloc_lines(n * sizeof(*l->entries));
    l->words = stm_alloc_lines(n * WORDS_PER_ENTRY * sizeof(*l->words));
    stm_store(&l->reserved, 0);
    if (l->entries == NULL || l->words == NULL) {
        stm_log_teardown(l);
        return false;
    }
    return true;
}

void stm_log_teardown(stm_log *l)
{
    free(l->entries);
    free((void *)l->words);
    l->entries = NULL;
    l->words = NULL;
}

/* Everything of an entry but its cells and its version. */
static stm_log_entry *open_entry(stm_log *l, uint64_t version, uint64_t start, uint64_t count)
{
    stm_log_entry *e = &l->entries[version & l->entry_mask];
    stm_store_rlx(&e->version, 0);
    /* Release, here and below: who sees one of these sees version 0 too. */
    stm_store_rel(&e->start, start);
    stm_store_rel(&e->count, count);
    return e;
}

static void close_entry(stm_log_entry *e, uint64_t version)
{
    stm_store_rel(&e->version, version); /* pairs with the first load of read_entry */
}

void stm_log_append(stm_log *l, uint64_t version, const stm_buffered *writes, uint32_t writes_count,
                    uint32_t count)
{
    uint64_t start = 0;
    bool inlined = count <= STM_LOG_INLINE;
    bool listed = inlined || count <= (l->word_mask + 1) / 2;
    if (!inlined && listed) {
        start = stm_load_rlx(&l->reserved);         /* own: under the lock */
        stm_store_rlx(&l->reserved, start + count); /* ordered by the words' release */
    }
    stm_log_entry *e = open_entry(l, version, start, listed ? count : STM_LOG_UNLISTED);
    uint64_t at = 0;
    for (uint32_t i = 0; listed && i < writes_count; i++) {
        if (!stm_buffered_is_void(&writes[i])) {
            _Atomic uintptr_t *word =
                inlined ? &e->cells[at] : &l->words[(start + at) & l->word_mask];
            stm_store_rel(word, (uintptr_t)writes[i].cell);
            at++;
        }
    }
    close_entry(e, version);
}

void stm_log_append_unlisted(stm_log *l, uint64_t version)
{
    close_entry(open_entry(l, version, 0, STM_LOG_UNLISTED), version);
}

uint64_t stm_log_size(const stm_log *l, uint64_t after, uint64_t upto, uint64_t most)
{
    uint64_t size = upto - after;
    if (size > l->entry_mask || size > most) {
        return UINT64_MAX;
    }
    for (uint64_t v = after + 1; v <= upto && size <= most; v++) {
        const stm_log_entry *e = &l->entries[v & l->entry_mask];
        uint64_t count = stm_load_rlx(&e->count); /* a guess */
        bool told = stm_load_rlx(&e->version) == v && count != STM_LOG_UNLISTED;
        size = told ? size + count : UINT64_MAX;
    }
    return size <= most ? size : UINT64_MAX;
}

/* A commit to a dead cell is in the log but published nothing. */
static bool is_newer(const stm_cell *c, uint64_t version)
{
    return stm_load_acq(&c->head)->version > version;
}

/* One version: did it write a cell of the index?  `after`: what was read is at it. */
static stm_log_answer probe_version(const stm_log *l, uint64_t version, uint64_t after,
                                    const stm_map *index, stm_cell **cell)
{
    const stm_log_entry *e = &l->entries[version & l->entry_mask];
    if (stm_load_acq(&e->version) != version) {
        return STM_LOG_LOST;
    }
    uint64_t start = stm_load_acq(&e->start);
    uint64_t count = stm_load_acq(&e->count);
    if (count == STM_LOG_UNLISTED || stm_load_acq(&e->version) != version) {
        return STM_LOG_LOST; /* from here on start and count belong together */
    }
    bool inlined = count <= STM_LOG_INLINE;
    uintptr_t hit = 0;
    for (uint64_t i = 0; i < count && hit == 0; i++) {
        uintptr_t word =
            stm_load_acq(inlined ? &e->cells[i] : &l->words[(start + i) & l->word_mask]);
        if (stm_map_get(index, (const void *)word) != STM_MAP_NONE &&
            is_newer((const stm_cell *)word, after)) {
            hit = word;
        }
    }
    bool intact = inlined ? stm_load_acq(&e->version) == version
                          : stm_load_acq(&l->reserved) <= start + l->word_mask + 1;
    if (!intact) { /* INV-LOG-2, -3 */
        return STM_LOG_LOST;
    }
    *cell = (stm_cell *)hit;
    return hit != 0 ? STM_LOG_HIT : STM_LOG_CLEAN;
}

stm_log_answer stm_log_probe(const stm_log *l, uint64_t after, uint64_t upto, const stm_map *index,
                             stm_cell **cell, uint64_t *version)
{
    stm_log_answer answer = STM_LOG_CLEAN;
    for (uint64_t v = after + 1; v <= upto && answer == STM_LOG_CLEAN; v++) {
        answer = probe_version(l, v, after, index, cell);
        *version = v;
    }
    return answer;
}
