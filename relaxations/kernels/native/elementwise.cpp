// Rows through the two lines of a scalar op, and their minimum over boxes: each in one read of the rows.
//
// Rows are (boxes, count, size). Bit i of `shared`: all boxes have input i in common. BLOCK rows of one box go together, so
// that lines are loaded once for all of them.
// A NaN passes every test below into the result: comparisons choose a line, never a number instead of it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int BLOCK = 4;

template <class F>
struct Lanes;
template <>
struct Lanes<float> {
    typedef float Vector __attribute__((vector_size(BYTES)));
};
template <>
struct Lanes<double> {
    typedef double Vector __attribute__((vector_size(BYTES)));
};
template <class F>
using V = typename Lanes<F>::Vector;
template <class F>
constexpr int WIDTH = BYTES / sizeof(F);

template <class F>
V<F> load(const F* from, int64_t count) {
    V<F> v{};
    std::memcpy(&v, from, count == WIDTH<F> ? BYTES : count * sizeof(F));
    return v;
}

template <class F>
void store(F* to, const V<F>& v, int64_t count) {
    std::memcpy(to, &v, count == WIDTH<F> ? BYTES : count * sizeof(F));
}

template <class F>
F sum(const V<F>& v) {
    F total = 0;
    for (int i = 0; i < WIDTH<F>; i++) total += v[i];
    return total;
}

// The rows of `of` (i, count, fresh): vectors from entry i on, of which only the last `fresh` lanes are new. The last vector
// of a row overlaps the one before; a row shorter than a vector is a part of one.
template <class F, class Of>
inline __attribute__((always_inline)) void along(int64_t size, const Of& of) {
    int64_t i = 0;
    for (; i + WIDTH<F> <= size; i += WIDTH<F>) of(i, WIDTH<F>, WIDTH<F>);
    if (i < size && size >= WIDTH<F>) of(size - WIDTH<F>, WIDTH<F>, size - i);
    if (i < size && size < WIDTH<F>) of(int64_t(0), size, WIDTH<F>);
}

// v, with zeros in all but its last `fresh` lanes.
template <class F>
V<F> last(const V<F>& v, int64_t fresh) {
    if (fresh == WIDTH<F>) return v;
    V<F> lane;
    for (int i = 0; i < WIDTH<F>; i++) lane[i] = F(i);
    return lane >= V<F>{} + F(WIDTH<F> - fresh) ? v : V<F>{};
}

// The sizes of one call, and the work of its threads: `rows(box, first, how many)` for at most BLOCK rows at a time.
struct Shape {
    int64_t boxes, count, size;
    int shared;

    template <class F>
    const F* input(const F* at, int which, int64_t box, int64_t each) const {
        return at && !(shared >> which & 1) ? at + box * each : at;
    }

    template <class Rows>
    void each(int threads, const Rows& rows) const {
        const int64_t blocks = (count + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int64_t t = 0; t < boxes * blocks; t++) {
            const int64_t first = t % blocks * BLOCK;
            rows(t / blocks, first, std::min<int64_t>(BLOCK, count - first));
        }
    }
};

// ROWS rows through the lines, slope and bias of the lower and of the upper one: the lower line where an entry is not
// negative. An entry that is zero does not see its bias, which may be infinite.
template <class F, int ROWS, bool LOW, bool UP>
void relax_rows(const F* rows, const F* const* lines, F* out, F* bias, int64_t size) {
    V<F> total[ROWS] = {};
    along<F>(size, [&](int64_t i, int64_t count, int64_t fresh) __attribute__((always_inline)) {
        const V<F> zero{}, k_low = load(lines[0] + i, count), k_up = load(lines[2] + i, count);
        const V<F> b_low = LOW ? load(lines[1] + i, count) : zero, b_up = UP ? load(lines[3] + i, count) : zero;
        for (int r = 0; r < ROWS; r++) {
            const V<F> a = load(rows + r * size + i, count);
            const auto negative = a < zero;
            store(out + r * size + i, V<F>(a * (negative ? k_up : k_low)), count);
            if (LOW || UP) total[r] += last<F>(a != zero ? a * (negative ? b_up : b_low) : zero, fresh);
        }
    });
    for (int r = 0; r < ROWS; r++) {
        const F found = sum<F>(total[r]);
        bias[r] = std::isnan(found) ? F(-INFINITY) : found;  // infinities that cancel: nothing is known
    }
}

template <class F, bool LOW, bool UP>
void relax(const F* const* in, F* out, F* bias, Shape s, int threads) {
    s.each(threads, [&](int64_t box, int64_t first, int64_t count) {
        const F* lines[4];
        for (int k = 0; k < 4; k++) lines[k] = s.input(in[k + 1], k + 1, box, s.size);
        const F* rows = s.input(in[0], 0, box, s.count * s.size);
        if (count == BLOCK) {
            const int64_t at = box * s.count + first;
            return relax_rows<F, BLOCK, LOW, UP>(rows + first * s.size, lines, out + at * s.size, bias + at, s.size);
        }
        for (int64_t r = first; r < first + count; r++) {
            const int64_t at = box * s.count + r;
            relax_rows<F, 1, LOW, UP>(rows + r * s.size, lines, out + at * s.size, bias + at, s.size);
        }
    });
}

// rows . center and |rows| . radius are kept apart until the end: their difference may be much smaller than they are.
template <class F, int ROWS>
void minimize_rows(const F* rows, const F* center, const F* radius, F* out, int64_t size) {
    V<F> middle[ROWS] = {}, reach[ROWS] = {};
    along<F>(size, [&](int64_t i, int64_t count, int64_t fresh) __attribute__((always_inline)) {
        const V<F> c = load(center + i, count), d = load(radius + i, count), zero{};
        for (int r = 0; r < ROWS; r++) {
            const V<F> a = last<F>(load(rows + r * size + i, count), fresh);
            middle[r] += a * c;
            reach[r] += (a < zero ? -a : a) * d;
        }
    });
    for (int r = 0; r < ROWS; r++) out[r] = sum<F>(middle[r]) - sum<F>(reach[r]);
}

template <class F>
void minimize(const F* rows, const F* center, const F* radius, F* out, Shape s, int threads) {
    s.each(threads, [&](int64_t box, int64_t first, int64_t count) {
        const F *in = s.input(rows, 0, box, s.count * s.size), *c = s.input(center, 1, box, s.size);
        const F* d = s.input(radius, 2, box, s.size);
        F* to = out + box * s.count;
        if (count == BLOCK) return minimize_rows<F, BLOCK>(in + first * s.size, c, d, to + first, s.size);
        for (int64_t r = first; r < first + count; r++) minimize_rows<F, 1>(in + r * s.size, c, d, to + r, s.size);
    });
}

template <class F>
void relax_any(const F* const (&in)[5], F* out, F* bias, const Shape& s, int threads) {
    const auto run = in[2] ? (in[4] ? relax<F, true, true> : relax<F, true, false>)
                           : (in[4] ? relax<F, false, true> : relax<F, false, false>);
    run(in, out, bias, s, threads);
}

}  // namespace

// Inputs: rows, then slope and bias of the lower line and of the upper line (a bias may be null: zero), or the boxes' centre
// and radius. Out: rows (boxes, count, size) and bias (boxes, count), or minima (boxes, count).
#define VERIF_KERNELS(F)                                                                                              \
    void verif_relax_##F(const F* rows, const F* ls, const F* lb, const F* us, const F* ub, int shared, int64_t boxes, \
                         int64_t count, int64_t size, int threads, F* out, F* bias) {                                 \
        relax_any<F>({rows, ls, lb, us, ub}, out, bias, {boxes, count, size, shared}, threads);                       \
    }                                                                                                                 \
    void verif_minimize_##F(const F* rows, const F* center, const F* radius, int shared, int64_t boxes, int64_t count, \
                            int64_t size, int threads, F* out) {                                                      \
        minimize<F>(rows, center, radius, out, {boxes, count, size, shared}, threads);                                \
    }

extern "C" {
VERIF_KERNELS(float)
VERIF_KERNELS(double)
}
