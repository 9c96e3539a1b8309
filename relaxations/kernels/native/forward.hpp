// Steps of a forward pass through chosen lines: values of a node's input become values of its output, one per row.
//
// For the gradient of a bound in its slopes: the value that a minimiser takes in front of a scalar op, times the
// positive part of the row there (see docs/performance.md).
#pragma once

#include <cmath>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "backward.hpp"

template <class F>
void linear_forward(const Op<F>& op, const Rows<F>& in, Rows<F>& out, bool add) {
    const Matrix<F> weight{op.weight, 1, op.columns};
    for (int y = out.window.top; y < out.window.bottom; ++y) {
        const int first = out.first(y);
        by_columns<F>(out.at + first, out.flat + first, out.last(y) - first, add, [&](auto n, const int32_t* rows, V<F>* sum) {
            if (op.bias)
                for (int i = 0; i < decltype(n)::value; ++i) sum[i] += op.bias[rows[i]];
            multiply_any<F, decltype(n)::value>(in.at, in.flat, in.start[in.height * in.width], weight, rows, sum);
        });
    }
}

template <class F, class Find>
void through_kernel_forward(const Op<F>& op, const Rows<F>& in, Rows<F>& out, bool add, Tap* scratch, Find find) {
    const int64_t step = int64_t(op.rows) * op.columns;
    const Window& w = in.window;
    Tap *down = scratch, *across = scratch + op.kernel[0];
    for (int y = out.window.top; y < out.window.bottom; ++y) {
        const int rows = find(y, op.padding[0], op.dilation[0], op.stride[0], op.kernel[0], w.top, w.bottom, down);
        for (int x = out.window.left; x < out.window.right; ++x) {
            const int columns =
                find(x, op.padding[1], op.dilation[1], op.stride[1], op.kernel[1], w.left, w.right, across);
            const int first = out.start[y * out.width + x], count = out.start[y * out.width + x + 1] - first;
            by_columns<F>(out.at + first, out.channel + first, count, add, [&](auto n, const int32_t* channels, V<F>* sum) {
                if (op.bias)
                    for (int i = 0; i < decltype(n)::value; ++i) sum[i] += op.bias[channels[i]];
                for (int i = 0; i < rows; ++i)
                    for (int j = 0; j < columns; ++j) {
                        const int32_t* start = in.start + down[i].place * in.width + across[j].place;
                        const int place = down[i].kernel * op.kernel[1] + across[j].kernel;
                        multiply_any<F, decltype(n)::value>(in.at + start[0], in.channel + start[0], start[1] - start[0],
                                                            Matrix<F>{op.weight + place * step, 1, op.columns}, channels,
                                                            sum);
                    }
            });
        }
    }
}

template <class F>
void gather_forward(const Op<F>& op, const Rows<F>& in, Rows<F>& out, bool add) {
    gathered(op, out, in, [&](int k, int j) {
        const V<F> value = j < 0 ? V<F>{} : in.at[j];
        out.at[k] = add ? out.at[k] + value : value;
    });
}

template <class F>
void copy_forward(const Rows<F>& in, Rows<F>& out, const F* factor, bool add) {
    matched(in, out, out.window, [&](int k, int j) {
        V<F> value = k < 0 ? V<F>{} : in.at[k];
        if (k >= 0 && factor) value *= factor[out.flat[j]];
        out.at[j] = add ? out.at[j] + value : value;
    });
}

template <class F>
void shift_forward(const Op<F>& op, Rows<F>& out) {
    out.each([&](int k) { out.at[k] += op.bias[out.flat[k]]; });
}

// What slope optimisation keeps for the rows behind one scalar op: coefficients, lower slopes (or turns), running means of the
// gradient and of its square (Kingma & Ba 2015, algorithm 1).
template <class F>
struct Slopes {
    V<F>*row, *slope, *mean, *square;
    V<F> moving;  // 1 for lanes that go on, 0 for those that stay where they are
};

struct Pace {
    double step, first, second;  // step size, and 1 / (1 - decay^t) of the two means
    static constexpr double MEAN = 0.5, SQUARE = 0.6;
};

// About 1 / sqrt(x + tiny): of a step's length four digits are enough, and any step is sound.
template <class F>
V<F> inverse_root(V<F> x) {
    x += F(1e-36);
#ifdef __AVX512F__
    if constexpr (sizeof(F) == 4)
        return V<F>(_mm512_rsqrt14_ps(__m512(x)));
    else
        return V<F>(_mm512_rsqrt14_pd(__m512d(x)));
#else
    for (int i = 0; i < LANES<F>; ++i) x[i] = 1 / std::sqrt(x[i]);
    return x;
#endif
}

// A step up the gradient for the parameter of entry k, which stays between least and most.
template <class F>
void climb(const Slopes<F>& slopes, int k, V<F> gradient, double step, const Pace& pace, F least, F most) {
    const V<F> zero = {};
    const V<F> mean = slopes.mean[k] * F(Pace::MEAN) + gradient * F(1 - Pace::MEAN);
    const V<F> square = slopes.square[k] * F(Pace::SQUARE) + gradient * gradient * F(1 - Pace::SQUARE);
    slopes.mean[k] = mean, slopes.square[k] = square;
    V<F> next = slopes.slope[k] + slopes.moving * F(step * pace.first) * mean * inverse_root<F>(square * F(pace.second));
    next = next >= least ? next : zero + least;  // also where it is NaN
    slopes.slope[k] = next > most ? zero + most : next;
}

// Values in front of a scalar op become those behind it, and its lower slopes take one step up the gradient.
template <class F>
void relax_forward(Rows<F>& rows, const Slopes<F>& slopes, const Pace& pace) {
    const V<F> zero = {};
    rows.each([&](int k) {
        const V<F> z = rows.at[k], a = slopes.row[k], slope = slopes.slope[k];
        const auto negative = a < 0;
        rows.at[k] = negative ? rows.lines[UPPER_SLOPE][k] * z + rows.lines[UPPER_BIAS][k]
                              : slope * z + rows.lines[LOWER_BIAS][k];
        const F least = rows.lines[LEAST][k], most = rows.lines[MOST][k];
        if (least < most) climb<F>(slopes, k, negative ? zero : a * z, pace.step, pace, least, most);
    });
}

constexpr double TURN = 2;  // steps of turns are longer than those of slopes from 0 to 1: turns go to STRETCHES

// The same for a curved op, whose lines turn.
template <class F>
void relax_forward_curved(Rows<F>& rows, const Slopes<F>& slopes, const Pace& pace) {
    rows.each([&](int k) {
        const V<F> z = rows.at[k], a = slopes.row[k];
        const Turned<F> line(rows, k, a, slopes.slope[k]);
        rows.at[k] = line.slope * z + line.bias;
        climb<F>(slopes, k, a * (line.rise * z + line.lift), TURN * pace.step, pace, F(-STRETCHES), F(STRETCHES));
    });
}
