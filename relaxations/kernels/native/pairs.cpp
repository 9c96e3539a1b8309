// Passes over pairs of ends (lower, upper), entry by entry, for training: what torch would do in a dozen walks through memory.
// `if (parallel : ...)`: without the modifier a single thread would go without vectors too.

#include <cstdint>

namespace {

template <class F>
void split(const F* lower, const F* upper, F* middle, F* radius, int64_t size, int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1)
    for (int64_t i = 0; i < size; i++) {
        const F m = upper[i] - (upper[i] - lower[i]) * F(0.5);
        radius[i] = upper[i] - m;
        middle[i] = m;
    }
}

template <class F>
void join(const F* center, const F* reach, F* lower, F* upper, int64_t size, int threads, F scale) {
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1)
    for (int64_t i = 0; i < size; i++) {
        const F c = scale * center[i], r = scale * reach[i];
        lower[i] = c - r;
        upper[i] = c + r;
    }
}

template <class F>
void add_signed(F* total, const F* change, const F* of, int64_t size, int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1)
    for (int64_t i = 0; i < size; i++) total[i] += of[i] > 0 ? change[i] : of[i] < 0 ? -change[i] : F(0);
}

}  // namespace

#define VERIF_PAIRS(F)                                                                                                \
    void verif_split_##F(const F* lower, const F* upper, F* middle, F* radius, int64_t size, int threads) {           \
        split<F>(lower, upper, middle, radius, size, threads);                                                        \
    }                                                                                                                 \
    void verif_join_##F(const F* center, const F* reach, F* lower, F* upper, int64_t size, int threads, double scale) { \
        join<F>(center, reach, lower, upper, size, threads, F(scale));                                                \
    }                                                                                                                 \
    void verif_add_signed_##F(F* total, const F* change, const F* of, int64_t size, int threads) {                    \
        add_signed<F>(total, change, of, size, threads);                                                              \
    }

extern "C" {
VERIF_PAIRS(float)
VERIF_PAIRS(double)
}
