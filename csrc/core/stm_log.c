/* The ring of recent commits' write sets.
 *
 * Terms.  Entry: one version.  Word: one cell that it wrote.  Position: index
 * of a word counted from the start of the domain; position & word_mask is
 * where it stands.
 *
 * INV-LOG-1  Written by the holder of the commit lock only.
 * INV-LOG-2  A word at position p is intact while reserved <= p + ring size.
 *            `reserved` is raised before the words are overwritten, and words
 *            are stored with release: a reader that meets a newer word then
 *            also meets the newer `reserved` (seqlock, no fence needed).
 * INV-LOG-3  Readers decide nothing from an entry before they have seen that
 *            it was intact after they read it.
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

/* Everything of an entry but its words and its version. */
static stm_log_entry *open_entry(stm_log *l, uint64_t version, uint64_t start, uint32_t count,
                                 uint32_t label, uint32_t thread)
{
    stm_log_entry *e = &l->entries[version & l->entry_mask];
    stm_store_rlx(&e->version, 0);
    /* Release, here and below: who sees one of these sees version 0 too. */
    stm_store_rel(&e->start, start);
    stm_store_rel(&e->count, count);
    stm_store_rel(&e->label, label);
    stm_store_rel(&e->thread, thread);
    return e;
}

static void close_entry(stm_log_entry *e, uint64_t version)
{
    stm_store_rel(&e->version, version); /* pairs with the first load of read_entry */
}

void stm_log_append(stm_log *l, uint64_t version, uint32_t label, uint32_t thread,
                    const stm_buffered *writes, uint32_t writes_count, uint32_t count)
{
    uint64_t start = stm_load_rlx(&l->reserved); /* own: under the lock */
    bool listed = count <= (l->word_mask + 1) / 2;
    stm_log_entry *e =
        open_entry(l, version, start, listed ? count : STM_LOG_UNLISTED, label, thread);
    if (listed) {
        stm_store_rlx(&l->reserved, start + count); /* ordered by the words' release */
        uint64_t at = start;
        for (uint32_t i = 0; i < writes_count; i++) {
            if (!stm_buffered_is_void(&writes[i])) {
                stm_store_rel(&l->words[at++ & l->word_mask], (uintptr_t)writes[i].cell);
            }
        }
    }
    close_entry(e, version);
}

void stm_log_append_unlisted(stm_log *l, uint64_t version)
{
    uint64_t start = stm_load_rlx(&l->reserved); /* own: under the lock */
    close_entry(open_entry(l, version, start, STM_LOG_UNLISTED, 0, 0), version);
}

/* False: overwritten or being written. */
static bool read_entry(const stm_log *l, uint64_t version, uint64_t *start, uint32_t *count)
{
    const stm_log_entry *e = &l->entries[version & l->entry_mask];
    if (stm_load_acq(&e->version) != version) {
        return false;
    }
    *start = stm_load_acq(&e->start);
    *count = stm_load_acq(&e->count);
    return stm_load_acq(&e->version) == version;
}

uint64_t stm_log_size(const stm_log *l, uint64_t after, uint64_t upto)
{
    uint64_t first_start, last_start;
    uint32_t first_count, last_count;
    if (upto - after > l->entry_mask || !read_entry(l, after + 1, &first_start, &first_count) ||
        !read_entry(l, upto, &last_start, &last_count)) {
        return UINT64_MAX;
    }
    if (first_count == STM_LOG_UNLISTED || last_count == STM_LOG_UNLISTED) {
        return UINT64_MAX;
    }
    return last_start + last_count - first_start;
}

/* A commit to a dead cell is in the log but published nothing. */
static bool is_newer(const stm_cell *c, uint64_t version)
{
    return stm_load_acq(&c->head)->version > version;
}

stm_log_answer stm_log_probe(const stm_log *l, uint64_t after, uint64_t upto,
                             const stm_map *index, stm_cell **cell, uint64_t *version)
{
    for (uint64_t v = after + 1; v <= upto; v++) {
        uint64_t start;
        uint32_t count;
        if (!read_entry(l, v, &start, &count) || count == STM_LOG_UNLISTED) {
            return STM_LOG_LOST;
        }
        uintptr_t hit = 0;
        for (uint32_t i = 0; i < count && hit == 0; i++) {
            uintptr_t word = stm_load_acq(&l->words[(start + i) & l->word_mask]);
            if (stm_map_get(index, (const void *)word) != STM_MAP_NONE &&
                is_newer((const stm_cell *)word, after)) {
                hit = word;
            }
        }
        if (stm_load_acq(&l->reserved) > start + l->word_mask + 1) { /* INV-LOG-2, -3 */
            return STM_LOG_LOST;
        }
        if (hit != 0) {
            *cell = (stm_cell *)hit;
            *version = v;
            return STM_LOG_HIT;
        }
    }
    return STM_LOG_CLEAN;
}

void stm_log_writer(const stm_log *l, uint64_t version, uint32_t *label, uint32_t *thread)
{
    const stm_log_entry *e = &l->entries[version & l->entry_mask];
    *label = 0;
    *thread = 0;
    if (version == 0 || stm_load_acq(&e->version) != version) {
        return;
    }
    uint32_t found_label = stm_load_acq(&e->label);
    uint32_t found_thread = stm_load_acq(&e->thread);
    if (stm_load_acq(&e->version) == version) {
        *label = found_label;
        *thread = found_thread;
    }
}
