// Steps of a backward sweep: rows on a node's output become rows on its input.
#pragma once

#include "rows.hpp"

template <class F>
void linear(const Op<F>& op, const Rows<F>& from, Rows<F>& to, V<F>& bias) {
    const bool add = open(to, Window{0, to.height, 0, to.width});
    if (op.bias) bias += blocked<F>(from, [&](int k) { return from.at[k] * op.bias[from.flat[k]]; });
    const Matrix<F> weight{op.weight, op.columns, 1};
    const int count = to.start[to.height * to.width];
    int done = 0;
    auto products = [&](auto multiply_by) {
        for (int y = from.window.top; y < from.window.bottom; ++y) {
            const int k = from.first(y);
            multiply_by(from.at + k, from.flat + k, from.last(y) - k);
        }
    };
    if (to.height * to.width == 1 && !to.lines[0])  // every entry of a flat value: columns stand side by side
        for (; done + 2 * WIDE <= count; done += 2 * WIDE) {
            V<F> sum[2 * WIDE] = {};
            products([&](const V<F>* rows, const int32_t* index, int size) {
                multiply_run<F, 2 * WIDE>(rows, index, size, weight, done, sum);
            });
            for (int j = 0; j < 2 * WIDE; ++j) to.at[done + j] = add ? to.at[done + j] + sum[j] : sum[j];
        }
    by_columns<F>(to.at + done, to.flat + done, count - done, add, [&](auto n, const int32_t* columns, V<F>* sum) {
        products([&](const V<F>* rows, const int32_t* index, int size) {
            multiply_any<F, decltype(n)::value>(rows, index, size, weight, columns, sum);
        });
    });
}

// Kernel positions through which an input position reaches outputs in [first, last).
inline int taps(int at, int padding, int dilation, int stride, int size, int first, int last, Tap* found) {
    int count = 0;
    for (int i = 0; i < size; ++i) {
        const int reach = at + padding - i * dilation;
        if (reach < 0 || reach % stride) continue;
        const int place = reach / stride;
        if (place >= first && place < last) found[count++] = {i, place};
    }
    return count;
}

// Input positions that an output position reads, inside the window [first, last).
inline int reads(int at, int padding, int dilation, int stride, int size, int first, int last, Tap* found) {
    int count = 0;
    for (int i = 0; i < size; ++i) {
        const int place = at * stride - padding + i * dilation;
        if (place >= first && place < last) found[count++] = {i, place};
    }
    return count;
}

// Where the inputs of outputs [first, last) lie on an axis.
inline void reach(int first, int last, int padding, int dilation, int stride, int size, int limit, int& low, int& high) {
    low = std::clamp(first * stride - padding, 0, limit);
    high = std::clamp((last - 1) * stride - padding + dilation * (size - 1) + 1, low, limit);
}

// The same of a transposed convolution.
inline void reach_back(int first, int last, int padding, int dilation, int stride, int size, int limit, int& low, int& high) {
    high = std::min((last - 1 + padding) / stride + 1, limit);
    low = std::min((std::max(first + padding - dilation * (size - 1), 0) + stride - 1) / stride, high);
}

// Rows through the kernel of a convolution: `find` says which positions of `from` a position of `to` meets.
template <class F, class Find>
void through_kernel(const Op<F>& op, const Rows<F>& from, Rows<F>& to, const Window& window, V<F>& bias, Tap* scratch,
                    Find find) {
    const Window& w = from.window;
    const bool add = open(to, window);
    if (op.bias) bias += blocked<F>(from, [&](int k) { return from.at[k] * op.bias[from.channel[k]]; });
    const int64_t step = int64_t(op.rows) * op.columns;
    Tap *down = scratch, *across = scratch + op.kernel[0];
    for (int y = window.top; y < window.bottom; ++y) {
        const int rows = find(y, op.padding[0], op.dilation[0], op.stride[0], op.kernel[0], w.top, w.bottom, down);
        for (int x = window.left; x < window.right; ++x) {
            const int columns =
                find(x, op.padding[1], op.dilation[1], op.stride[1], op.kernel[1], w.left, w.right, across);
            const int first = to.start[y * to.width + x], count = to.start[y * to.width + x + 1] - first;
            by_columns<F>(to.at + first, to.channel + first, count, add, [&](auto n, const int32_t* channels, V<F>* sum) {
                for (int i = 0; i < rows; ++i)
                    for (int j = 0; j < columns; ++j) {
                        const int32_t* start = from.start + down[i].place * from.width + across[j].place;
                        const int place = down[i].kernel * op.kernel[1] + across[j].kernel;
                        multiply_any<F, decltype(n)::value>(from.at + start[0], from.channel + start[0], start[1] - start[0],
                                                            Matrix<F>{op.weight + place * step, op.columns, 1}, channels,
                                                            sum);
                    }
            });
        }
    }
}

template <class F>
void convolution(const Op<F>& op, const Rows<F>& from, Rows<F>& to, V<F>& bias, Tap* scratch) {
    Window window;
    const Window& w = from.window;
    reach(w.top, w.bottom, op.padding[0], op.dilation[0], op.stride[0], op.kernel[0], to.height, window.top, window.bottom);
    reach(w.left, w.right, op.padding[1], op.dilation[1], op.stride[1], op.kernel[1], to.width, window.left, window.right);
    through_kernel(op, from, to, window, bias, scratch, taps);
}

template <class F>
void transposed(const Op<F>& op, const Rows<F>& from, Rows<F>& to, V<F>& bias, Tap* scratch) {
    Window window;
    const Window& w = from.window;
    reach_back(w.top, w.bottom, op.padding[0], op.dilation[0], op.stride[0], op.kernel[0], to.height, window.top,
               window.bottom);
    reach_back(w.left, w.right, op.padding[1], op.dilation[1], op.stride[1], op.kernel[1], to.width, window.left,
               window.right);
    through_kernel(op, from, to, window, bias, scratch, reads);
}

// Calls use(k, j) for entries k of `out` and j of `in` of which the one is read from the other.
template <class F, class Use>
void gathered(const Op<F>& op, const Rows<F>& out, const Rows<F>& in, Use use) {
    const Window& w = out.window;
    for (int y = w.top; y < w.bottom; ++y)
        for (int x = w.left; x < w.right; ++x) {
            const int p = y * out.width + x, q = op.rows ? y * in.width + op.index[x] : op.index[y] * in.width + x;
            int j = in.start[q];
            const int end = in.start[q + 1];
            for (int k = out.start[p]; k < out.start[p + 1]; ++k) {
                while (j < end && in.channel[j] < out.channel[k]) ++j;
                use(k, j < end && in.channel[j] == out.channel[k] ? j : -1);
            }
        }
}

template <class F>
void gather(const Op<F>& op, const Rows<F>& from, Rows<F>& to) {
    Window window = from.window;
    int &first = op.rows ? window.left : window.top, &last = op.rows ? window.right : window.bottom;
    if (first < last) {
        const auto ends = std::minmax_element(op.index + first, op.index + last);
        first = *ends.first, last = *ends.second + 1;
    }
    if (!open(to, window)) to.each([&](int j) { to.at[j] = V<F>{}; });
    gathered(op, from, to, [&](int k, int j) {
        if (j >= 0) to.at[j] += from.at[k];
    });
}

// The same entries in another value, each times its factor where there are factors; what the target lacks is not needed.
template <class F>
void copy(const Rows<F>& from, Rows<F>& to, const F* factor) {
    const bool add = open(to, from.window);
    matched(from, to, from.window, [&](int k, int j) {
        V<F> value = k < 0 ? V<F>{} : from.at[k];
        if (k >= 0 && factor) value *= factor[from.flat[k]];
        to.at[j] = add ? to.at[j] + value : value;
    });
}

template <class F>
void shift(const Op<F>& op, const Rows<F>& from, V<F>& bias) {
    bias += blocked<F>(from, [&](int k) { return from.at[k] * op.bias[from.flat[k]]; });
}

// Positive coefficients take the lower line, negative ones the upper line; NaN takes a line as well, and stays NaN.
// `slope(k)`: the lower line's slopes at entry k; `keep(k, a)` sees the coefficients before.
template <class F, class Slope>
void relax(Rows<F>& rows, V<F>& bias, Slope slope) {
    const V<F> zero = {};
    bias += blocked<F>(rows, [&](int k) -> V<F> {
        const V<F> a = rows.at[k], lower = slope(k, a);
        const auto negative = a < 0;
        const V<F> share = a * (negative ? zero + rows.lines[UPPER_BIAS][k] : zero + rows.lines[LOWER_BIAS][k]);
        rows.at[k] = a * (negative ? zero + rows.lines[UPPER_SLOPE][k] : lower);
        return a == 0 ? zero : share;
    });
}

// The line of entry k of a curved op for coefficient a, turned by p in [-STRETCHES, STRETCHES], and how it changes with p.
template <class F>
struct Turned {
    V<F> slope, bias, rise, lift;

    Turned(const Rows<F>& rows, int k, V<F> a, V<F> p) {
        const V<F> zero = {}, one = zero + F(1);
        const auto negative = a < 0, left = p < 0;
        auto line = [&](int i) { return negative ? zero + rows.lines[i + 2][k] : zero + rows.lines[i][k]; };
        V<F> way = left ? zero - p : p;
        slope = line(LOWER_SLOPE), bias = line(LOWER_BIAS);
        for (int i = 0; i < STRETCHES; ++i) {
            const int at = TURNS + 4 * i, other = at + 4 * STRETCHES;
            const V<F> rises = left ? line(at) : line(other), lifts = left ? line(at + 1) : line(other + 1);
            const V<F> share = way < 0 ? zero : (way > 1 ? one : way);
            slope += share * rises, bias += share * lifts;
            rise = i == 0 ? rises : (way >= 0 ? rises : rise);
            lift = i == 0 ? lifts : (way >= 0 ? lifts : lift);
            way -= one;
        }
        rise = left ? zero - rise : rise, lift = left ? zero - lift : lift;
    }
};

// `relax` for the lines of a curved op; `turn(k, a)` says how far they are turned.
template <class F, class Turn>
void relax_curved(Rows<F>& rows, V<F>& bias, Turn turn) {
    const V<F> zero = {};
    bias += blocked<F>(rows, [&](int k) -> V<F> {
        const V<F> a = rows.at[k];
        const Turned<F> line(rows, k, a, turn(k, a));
        rows.at[k] = a * line.slope;
        return a == 0 ? zero : a * line.bias;
    });
}

template <class F>
V<F> minimum(const Rows<F>& rows, const F* center, const F* radius) {
    return blocked<F>(rows, [&](int k) {
        const V<F> a = rows.at[k];
        return a * center[rows.flat[k]] - (a < 0 ? -a : a) * radius[rows.flat[k]];
    });
}
