// What a sweep over tiles is given; program.py fills these structures through ctypes. F is float or double.
#pragma once

#include <cstdint>

// Vectors of the processor's own width: wider ones live in memory, which took four times as long with AVX2.
#ifdef __AVX512F__
constexpr int VECTOR_BYTES = 64;
#else
constexpr int VECTOR_BYTES = 32;
#endif

template <class F>
struct Lanes;
template <>
struct Lanes<float> {
    typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct Lanes<double> {
    typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
};
template <class F>
constexpr int LANES = VECTOR_BYTES / sizeof(F);

constexpr int STRETCHES = 3;  // on each side of the lines of a curved op
enum Line { LOWER_SLOPE, LOWER_BIAS, UPPER_SLOPE, UPPER_BIAS, LEAST, MOST, TURNS, LINES = TURNS + 8 * STRETCHES };

// A value in the network, as a map (channels, height, width); a flat value is a map of one pixel. Its entries are those
// that matter, pixel by pixel and by channel within a pixel: `start` (pixels + 1), `channel` and `flat` position of each
// entry, and the lines of the scalar op that makes the value (null for other ops), with the range of slopes that its lower
// line may have instead (LEAST, MOST; null where slopes are not optimised). The lines of a curved op turn: from TURNS on
// (or null) there is, for the lower line's slope and bias and the upper line's, what they gain on each stretch of the way
// to a line on one side, and then the same to a line on the other side.
// Box b reads at start + b * start_stride and at channel, flat, lines + b * entry_stride.
template <class F>
struct Slot {
    int32_t channels, height, width;
    const int32_t *start, *channel, *flat;
    const F* lines[LINES];
    int64_t start_stride, entry_stride;
    int64_t offset;  // of its coefficients in the arena, in vectors
    int64_t kept;    // of its values, and for the value of a scalar op then of what `Slopes` holds, each as many as entries
};

enum Kind : int32_t { LINEAR, CONVOLUTION, RELAX, SHIFT, COPY, TRANSPOSED, GATHER };

// One step towards the input: rows on value `from` become rows on value `to` (RELAX and SHIFT stay where they are).
// Weights: (rows, columns) of a linear map; (kernel, kernel, rows, columns) of a convolution or a transposed one; a factor for
// each entry of COPY, or null. Index: where GATHER reads, for each position on the axis `rows` of a map. Bias: for each row of the weights, or for each entry of SHIFT; null for none.
template <class F>
struct Op {
    int32_t kind, from, to;
    int32_t rows, columns;
    int32_t kernel[2], stride[2], padding[2], dilation[2];
    const F *weight, *bias;
    const int32_t* index;
};

// Tiles t: rows first[t] to first[t + 1] of box[t]. `entries` are flat positions of unit rows, each with its negation, or
// alone with `negative`, which says for each which of both it is; or `given` are rows (boxes or one, S, size of the value
// `at`), and first counts within a box's S.
// Out: low and high (total) of unit rows, low alone of those that are alone, or low (boxes, S) of given rows; with
// `slopes`, the rows on the input and their bias too, for unit rows the rows first and then their negations,
// (2, total, size) and (2, total).
// `center` and `radius` (boxes, size) are those of boxes of inputs; without them the bounds are the bias alone.
// `steep`, for given rows: the rows on the input before any step, or null.
// `rounds`: steps of slope optimisation (needs centre and radius); with `signs`, unit rows whose sign is settled take no more.
template <class F>
struct Job {
    const Slot<F>* slots;
    const Op<F>* ops;
    int32_t slot_count, op_count, at, input;
    const int32_t *box, *first, *count, *entries;
    const uint8_t* negative;
    const F* given;
    int64_t given_stride, out_stride, total, size;
    const F *center, *radius;
    F *low, *high, *slopes, *bias, *steep;
    void* arena;  // per thread, `arena_size` vectors
    int64_t arena_size;
    int32_t tiles, rounds, signs;
};
