// Rows through ReLU's lines over boxes, and back, for training: the lines are made in the first cache, and nowhere else.
//
// The upper line is the chord, with slope k = u / (u - l) and bias -k l; the lower one goes through the origin.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

constexpr int TILE = 512;  // columns at a time

template <class F>
struct Lines {
    F slope[TILE], bias[TILE], flat[TILE];

    // Whether every bias is finite: what is infinite or NaN makes its own product with zero NaN.
    bool make(const F* lower, const F* upper, int64_t width) {
        const F tiny = std::numeric_limits<F>::min(), outward = 1 + 2 * std::numeric_limits<F>::epsilon();
        F lost = 0;
#pragma omp simd reduction(+ : lost)
        for (int64_t j = 0; j < width; j++) {
            const F l = lower[j], u = upper[j], left = l > 0 ? F(0) : l, right = u < 0 ? F(0) : u;
            const F share = right / (right - left < tiny ? tiny : right - left);
            const F low = -(share * left), high = (1 - share) * right;
            slope[j] = share;
            bias[j] = (low < high ? high : low) * outward;
            flat[j] = l + u > 0 ? F(1) : F(0);
            lost += bias[j] * 0;
        }
        return lost == 0;
    }
};

template <class F>
bool forward(const F* rows, const F* lower, const F* upper, F* out, F* bias, int64_t count, int64_t size) {
    Lines<F> lines;
    bool finite = true;
    std::fill(bias, bias + count, F(0));
    for (int64_t first = 0; first < size; first += TILE) {
        const int64_t width = std::min<int64_t>(TILE, size - first);
        finite &= lines.make(lower + first, upper + first, width);
        for (int64_t r = 0; r < count; r++) {
            const F* a = rows + r * size + first;
            F *to = out + r * size + first, total = 0;
#pragma omp simd reduction(+ : total)
            for (int64_t j = 0; j < width; j++) {
                const bool negative = a[j] < 0;
                to[j] = a[j] * (negative ? lines.slope[j] : lines.flat[j]);
                total += negative ? a[j] * lines.bias[j] : F(0);
            }
            bias[r] += total;
        }
    }
    return finite;
}

// With w = u - l: dk/du = (1 - k) / w, dk/dl = k / w, and d(-k l) = -l dk - k dl.
template <class F>
void backward(const F* rows, const F* lower, const F* upper, const F* g, const F* h, F* out, F* of_lower, F* of_upper,
              int64_t count, int64_t size) {
    Lines<F> lines;
    F of_slope[TILE], of_bias[TILE];
    const F tiny = std::numeric_limits<F>::min();
    for (int64_t first = 0; first < size; first += TILE) {
        const int64_t width = std::min<int64_t>(TILE, size - first);
        lines.make(lower + first, upper + first, width);
        std::fill(of_slope, of_slope + width, F(0));
        std::fill(of_bias, of_bias + width, F(0));
        for (int64_t r = 0; r < count; r++) {
            const F *a = rows + r * size + first, *d = g + r * size + first, weight = h[r];
            F* to = out + r * size + first;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                const bool negative = a[j] < 0;
                const F up = negative ? a[j] : F(0);
                to[j] = negative ? d[j] * lines.slope[j] + weight * lines.bias[j] : d[j] * lines.flat[j];
                of_slope[j] += d[j] * up;
                of_bias[j] += weight * up;
            }
        }
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const F l = lower[first + j], u = upper[first + j], left = l > 0 ? F(0) : l, right = u < 0 ? F(0) : u;
            const F rate = (of_slope[j] - of_bias[j] * left) / (right - left < tiny ? tiny : right - left);
            of_lower[first + j] = l >= 0 ? F(0) : (rate - of_bias[j]) * lines.slope[j];
            of_upper[first + j] = u <= 0 ? F(0) : rate * (1 - lines.slope[j]);
        }
    }
}

}  // namespace

// Rows, g and out (boxes, count, size), ends (boxes, size), bias and h (boxes, count).
#define VERIF_RECTIFIED(F)                                                                                            \
    int verif_rectified_##F(const F* rows, const F* lower, const F* upper, F* out, F* bias, int64_t boxes,            \
                            int64_t count, int64_t size, int threads) {                                               \
        int lost = 0;                                                                                                 \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1) reduction(+ : lost)")        \
        for (int64_t b = 0; b < boxes; b++)                                                                           \
            lost += !forward<F>(rows + b * count * size, lower + b * size, upper + b * size, out + b * count * size,  \
                                bias + b * count, count, size);                                                       \
        return lost == 0;                                                                                             \
    }                                                                                                                 \
    void verif_rectified_gradient_##F(const F* rows, const F* lower, const F* upper, const F* g, const F* h, F* out,  \
                                      F* of_lower, F* of_upper, int64_t boxes, int64_t count, int64_t size,           \
                                      int threads) {                                                                  \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                            \
        for (int64_t b = 0; b < boxes; b++) {                                                                         \
            const int64_t at = b * count * size;                                                                      \
            backward<F>(rows + at, lower + b * size, upper + b * size, g + at, h + b * count, out + at,               \
                        of_lower + b * size, of_upper + b * size, count, size);                                       \
        }                                                                                                             \
    }

extern "C" {
VERIF_RECTIFIED(float)
VERIF_RECTIFIED(double)
}
