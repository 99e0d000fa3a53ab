/* Adding up what the records counted.
 *
 * INV-STAT-1  Each counter has one writer (its record's user); the sum may be a
 *             moment old, never wrong.  Records outlive their threads, so
 *             nothing that was counted is lost.
 *
 * Guarded by tests/core/test_stats.py.
 */
#include <string.h>

#include "stm_txn.h"

static double seconds_per_tick(const stm_domain *d)
{
    uint64_t ticks = stm_ticks() - d->first_ticks;
    uint64_t ns = stm_now_ns() - d->first_ns;
    return ticks == 0 ? 1e-9 : (double)ns / (double)ticks / 1e9;
}

static void add(stm_stats *out, const stm_counters *c, double tick)
{
    out->commits += stm_load_rlx(&c->commits);
    out->read_only += stm_load_rlx(&c->read_only);
    out->attempts += stm_load_rlx(&c->attempts);
    for (int i = 0; i < STM_CAUSE_COUNT; i++) {
        uint64_t n = stm_load_rlx(&c->by_cause[i]);
        out->aborts_by_cause[i] += n;
        out->aborts += n;
    }
    out->extensions += stm_load_rlx(&c->extensions);
    out->protected_attempts += stm_load_rlx(&c->protected_attempts);
    out->upgrades += stm_load_rlx(&c->upgrades);
    out->waits += stm_load_rlx(&c->waits);
    out->seconds_waited += (double)stm_load_rlx(&c->waited_ns) / 1e9;
    out->parks += stm_load_rlx(&c->parks);
    out->wakes += stm_load_rlx(&c->wakes);
    out->seconds_lost += (double)stm_load_rlx(&c->lost_ticks) * tick;
}

void stm_domain_stats(stm_domain *d, stm_stats *out)
{
    memset(out, 0, sizeof(*out));
    double tick = seconds_per_tick(d);
    uint64_t made = 0, freed = 0;
    for (stm_slot *s = stm_load(&d->epoch.slots.all); s != NULL; s = s->next) {
        const stm_txn *t = (const stm_txn *)s;
        add(out, &t->counters, tick);
        freed += stm_load_rlx(&t->magazine.freed); /* before made: never negative */
        made += stm_load_rlx(&t->magazine.made);
        out->transactions++;
    }
    made += stm_load_rlx(&d->nodes_made);
    freed += stm_load_rlx(&d->nodes_freed);
    out->nodes = made - freed;
    out->retired = stm_load_rlx(&d->epoch.retired_count);
    out->parked = stm_load(&d->parking.count);
    out->clock = stm_load(&d->clock.now);
}
