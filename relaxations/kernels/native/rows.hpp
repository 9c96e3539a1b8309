// Coefficients (or values) of one network value for the rows of a tile, and the products that map them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "tiles.hpp"

#ifdef __AVX512F__
constexpr int WIDE = 8;  // columns per pass over the rows: that many running sums, one load and as many broadcasts a step
#else
constexpr int WIDE = 4;
#endif

template <class F>
using V = typename Lanes<F>::Vector;

struct Window {
    int top, bottom, left, right;  // half-open, inside the map
    bool operator==(const Window& o) const {
        return top == o.top && bottom == o.bottom && left == o.left && right == o.right;
    }
};

template <class F>
struct Rows {
    V<F>* at = nullptr;
    const int32_t *start = nullptr, *channel = nullptr, *flat = nullptr;  // entries of pixel p: start[p] to start[p + 1]
    const F* lines[LINES] = {};
    int channels = 0, height = 0, width = 0;
    Window window{0, 0, 0, 0};
    bool filled = false;

    int first(int y) const { return start[y * width + window.left]; }
    int last(int y) const { return start[y * width + window.right]; }
    // Calls use(k) for each entry k in the window.
    template <class Use>
    void each(Use use) const {
        for (int y = window.top; y < window.bottom; ++y)
            for (int k = first(y), end = last(y); k < end; ++k) use(k);
    }
};

// Sums run in blocks: in float32 the error of one running sum over 40000 equal terms is 500 times as large.
constexpr int BLOCK = 256;

// Sum of term(k) over the entries k in the window.
template <class F, class Term>
inline V<F> blocked(const Rows<F>& rows, Term term) {
    V<F> total = {};
    for (int y = rows.window.top; y < rows.window.bottom; ++y)
        for (int k = rows.first(y), end = rows.last(y); k < end;) {
            V<F> part = {};
            for (const int stop = std::min(end, k + BLOCK); k < stop; ++k) part += term(k);
            total += part;
        }
    return total;
}

// A matrix whose element for row entry k and column entry j is at[index[k] * row + columns[j] * column].
template <class F>
struct Matrix {
    const F* at;
    int64_t row, column;
};

// sum[j] += rows . column j, over `count` row entries.
template <class F, int N>
inline void multiply(const V<F>* rows, const int32_t* index, int count, Matrix<F> weight, const int32_t* columns, V<F>* total) {
    int64_t at[N];
    V<F> sum[N];
    for (int j = 0; j < N; ++j) at[j] = columns[j] * weight.column, sum[j] = total[j];
    for (int k = 0; k < count; ++k) {
        const V<F> a = rows[k];
        const F* w = weight.at + index[k] * weight.row;
        for (int j = 0; j < N; ++j) sum[j] += a * w[at[j]];
    }
    for (int j = 0; j < N; ++j) total[j] = sum[j];
}

// The same for N columns that stand side by side.
template <class F, int N>
inline void multiply_run(const V<F>* rows, const int32_t* index, int count, Matrix<F> weight, int32_t column, V<F>* total) {
    V<F> sum[N];
    for (int j = 0; j < N; ++j) sum[j] = total[j];
    for (int k = 0; k < count; ++k) {
        const V<F> a = rows[k];
        const F* w = weight.at + index[k] * weight.row + column;
        for (int j = 0; j < N; ++j) sum[j] += a * w[j];
    }
    for (int j = 0; j < N; ++j) total[j] = sum[j];
}

// One column: several running sums hide the latency of the additions.
template <class F>
inline void multiply_one(const V<F>* rows, const int32_t* index, int count, Matrix<F> weight, int32_t column, V<F>& total) {
    V<F> sum[4] = {};
    const F* w = weight.at + column * weight.column;
    int k = 0;
    for (; k + 4 <= count; k += 4)
        for (int u = 0; u < 4; ++u) sum[u] += rows[k + u] * w[index[k + u] * weight.row];
    for (; k < count; ++k) sum[0] += rows[k] * w[index[k] * weight.row];
    total += (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class F, int N>
inline void multiply_any(const V<F>* rows, const int32_t* index, int count, Matrix<F> weight, const int32_t* columns,
                         V<F>* total) {
    if constexpr (N == 1)
        multiply_one<F>(rows, index, count, weight, columns[0], total[0]);
    else
        multiply<F, N>(rows, index, count, weight, columns, total);
}

// Fills (or adds to) to[0 .. count] by groups of columns: each(group size, columns, sums) adds all products of a group.
template <class F, class Each>
inline void by_columns(V<F>* to, const int32_t* columns, int count, bool add, Each each) {
    int j = 0;
    auto group = [&](auto size) {
        constexpr int N = decltype(size)::value;
        V<F> sum[N] = {};
        each(size, columns + j, sum);
        for (int i = 0; i < N; ++i) to[j + i] = add ? to[j + i] + sum[i] : sum[i];
        j += N;
    };
    while (j + WIDE <= count) group(std::integral_constant<int, WIDE>());
    while (j + 2 <= count) group(std::integral_constant<int, 2>());
    while (j < count) group(std::integral_constant<int, 1>());
}

// Makes room for `window`: the first term defines it, a later one widens it with zeros. Returns whether to add.
template <class F>
bool open(Rows<F>& to, const Window& window) {
    if (!to.filled) {
        to.window = window, to.filled = true;
        return false;
    }
    const Window old = to.window;
    if (old == window) return true;
    to.window = {std::min(old.top, window.top), std::max(old.bottom, window.bottom), std::min(old.left, window.left),
                 std::max(old.right, window.right)};
    for (int y = to.window.top; y < to.window.bottom; ++y)
        for (int x = to.window.left; x < to.window.right; ++x)
            if (y < old.top || y >= old.bottom || x < old.left || x >= old.right)
                for (int j = to.start[y * to.width + x]; j < to.start[y * to.width + x + 1]; ++j) to.at[j] = V<F>{};
    return true;
}

// Calls use(k, j) for each entry j of `to` in the window, with the entry k of `from` at the same position, or -1.
template <class F, class Use>
void matched(const Rows<F>& from, const Rows<F>& to, const Window& w, Use use) {
    for (int y = w.top; y < w.bottom; ++y)
        for (int x = w.left; x < w.right; ++x) {
            const int p = y * to.width + x;
            int k = from.start[p];
            const int end = from.start[p + 1];
            for (int j = to.start[p]; j < to.start[p + 1]; ++j) {
                while (k < end && from.channel[k] < to.channel[j]) ++k;
                use(k < end && from.channel[k] == to.channel[j] ? k : -1, j);
            }
        }
}

struct Tap {
    int kernel, place;  // position in the kernel and, through it, on the other map
};
