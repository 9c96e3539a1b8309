// Passes over pairs of ends (lower, upper), entry by entry, for training: what torch would do in a dozen walks through memory.
// `if (parallel : ...)`: without the modifier a single thread would go without vectors too.

#include <cmath>
#include <cstdint>
#include <limits>

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

// Whether every bias is finite: what is infinite or NaN makes its own product with zero NaN.
template <class F>
int chord(const F* lower, const F* upper, F* slope, F* bias, F* flat, int64_t size, int threads) {
    const F tiny = std::numeric_limits<F>::min(), outward = 1 + 2 * std::numeric_limits<F>::epsilon();
    F lost = 0;
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1) reduction(+ : lost)
    for (int64_t i = 0; i < size; i++) {
        const F l = lower[i], u = upper[i], left = l > 0 ? F(0) : l, right = u < 0 ? F(0) : u;
        const F width = right - left, share = right / (width < tiny ? tiny : width);
        const F low = -(share * left), high = (1 - share) * right;
        const F b = (low < high ? high : low) * outward;
        lost += b * 0;
        slope[i] = share;
        bias[i] = b;
        flat[i] = l + u > 0 ? F(1) : F(0);
    }
    return lost == 0;
}

// With w = u - l and k = u / w: dk/du = (1 - k) / w, dk/dl = k / w, and d(-k l) = -l dk - k dl.
template <class F>
void chord_gradient(const F* lower, const F* upper, const F* of_slope, const F* of_bias, F* of_lower, F* of_upper,
                    int64_t size, int threads) {
    const F tiny = std::numeric_limits<F>::min();
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1)
    for (int64_t i = 0; i < size; i++) {
        const F l = lower[i], u = upper[i], left = l > 0 ? F(0) : l, right = u < 0 ? F(0) : u;
        const F width = right - left < tiny ? tiny : right - left, share = right / width;
        const F rate = (of_slope[i] - of_bias[i] * left) / width;
        of_lower[i] = l >= 0 ? F(0) : (rate - of_bias[i]) * share;
        of_upper[i] = u <= 0 ? F(0) : rate * (1 - share);
    }
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
    }                                                                                                                 \
    int verif_chord_##F(const F* lower, const F* upper, F* slope, F* bias, F* flat, int64_t size, int threads) {      \
        return chord<F>(lower, upper, slope, bias, flat, size, threads);                                              \
    }                                                                                                                 \
    void verif_chord_gradient_##F(const F* lower, const F* upper, const F* of_slope, const F* of_bias, F* of_lower,   \
                                  F* of_upper, int64_t size, int threads) {                                           \
        chord_gradient<F>(lower, upper, of_slope, of_bias, of_lower, of_upper, size, threads);                        \
    }

extern "C" {
VERIF_PAIRS(float)
VERIF_PAIRS(double)
}
