// Gradient of rows through two lines (elementwise.cpp), in one read of the rows and of the gradient that comes in.
//
// With k and b the line of each entry a, the results are a k and sum of a b: the gradient of a is g k + h b, and those of
// the lines are sums over the rows of g a and h a, each over the entries of its sign.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int TILE = 512;  // columns at a time: their lines and sums stay in the first cache

template <class F>
void columns(const F* rows, const F* const* lines, const F* g, const F* h, F* out, F* const* sums, int64_t count,
             int64_t size, int64_t width) {
    F line[4][TILE], total[4][TILE] = {};
    for (int k = 0; k < 4; k++)
        for (int64_t j = 0; j < width; j++) {
            const F value = lines[k] ? lines[k][j] : F(0);
            line[k][j] = k % 2 == 0 || std::isfinite(value) ? value : F(0);  // no gradient through an infinite bias
        }
    for (int64_t r = 0; r < count; r++) {
        const F *a = rows + r * size, *d = g + r * size, weight = h[r];
        F* to = out + r * size;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const bool negative = a[j] < 0;
            const F low = negative ? F(0) : a[j], up = negative ? a[j] : F(0);
            to[j] = d[j] * (negative ? line[2][j] : line[0][j]) + weight * (negative ? line[3][j] : line[1][j]);
            total[0][j] += d[j] * low;
            total[1][j] += weight * low;
            total[2][j] += d[j] * up;
            total[3][j] += weight * up;
        }
    }
    for (int k = 0; k < 4; k++)
        if (sums[k]) std::copy(total[k], total[k] + width, sums[k]);
}

template <class F>
void gradient(const F* const (&in)[5], int shared, const int64_t (&shape)[3], int threads, const F* g, const F* h, F* out,
              F* const (&sums)[4]) {
    const int64_t boxes = shape[0], count = shape[1], size = shape[2], tiles = (size + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < boxes * tiles; t++) {
        const int64_t box = t / tiles, first = t % tiles * TILE, at = box * count * size + first;
        const F* lines[4];
        F* to[4];
        for (int k = 0; k < 4; k++) {
            const int64_t from = first + (shared >> (k + 1) & 1 ? 0 : box * size);
            lines[k] = in[k + 1] ? in[k + 1] + from : nullptr;
            to[k] = sums[k] ? sums[k] + box * size + first : nullptr;
        }
        columns(in[0] + (shared & 1 ? first : at), lines, g + at, h + box * count, out + at, to, count, size,
                std::min<int64_t>(TILE, size - first));
    }
}

}  // namespace

// Inputs as of verif_relax in elementwise.cpp; g (boxes, count, size) and h (boxes, count): the gradients of its results.
// Out: the gradient of the rows, as g; those of slopes and biases, each (boxes, size), or null where it is not wanted.
#define VERIF_GRADIENT(F)                                                                                             \
    void verif_gradient_##F(const F* rows, const F* ls, const F* lb, const F* us, const F* ub, int shared,            \
                            int64_t boxes, int64_t count, int64_t size, int threads, const F* g, const F* h, F* out,  \
                            F* d_ls, F* d_lb, F* d_us, F* d_ub) {                                                     \
        gradient<F>({rows, ls, lb, us, ub}, shared, {boxes, count, size}, threads, g, h, out, {d_ls, d_lb, d_us, d_ub}); \
    }

extern "C" {
VERIF_GRADIENT(float)
VERIF_GRADIENT(double)
}
