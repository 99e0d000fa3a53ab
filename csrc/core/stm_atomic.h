/* Atomics, cache lines, processor hints: the one place that knows the machine.
 *
 * Sequentially consistent unless the suffix says otherwise.  _acq/_rel/_rlx at
 * a call site carry a comment that names the partner and the reason, unless
 * the field's own declaration does.
 */
#ifndef STM_ATOMIC_H
#define STM_ATOMIC_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one core owns at a time.  Data that threads fight over gets its own. */
#define STM_LINE 64

#define stm_load(p) atomic_load_explicit((p), memory_order_seq_cst)
#define stm_load_acq(p) atomic_load_explicit((p), memory_order_acquire)
#define stm_load_rlx(p) atomic_load_explicit((p), memory_order_relaxed)
#define stm_store(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define stm_store_rel(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define stm_store_rlx(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define stm_swap(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define stm_fetch_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define stm_cas(p, expected, v)                                                                    \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst,            \
                                            memory_order_relaxed)

/* A counter that one thread writes and any thread may read. */
#define stm_count(p, n) stm_store_rlx((p), stm_load_rlx(p) + (n))

#define stm_likely(x) __builtin_expect(!!(x), 1)
#define stm_unlikely(x) __builtin_expect(!!(x), 0)

static inline void stm_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

uint64_t stm_now_ns(void);

/* A cheap clock for measuring attempts; stm_stats.c scales it to seconds. */
static inline uint64_t stm_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#else
    return stm_now_ns();
#endif
}

#endif
