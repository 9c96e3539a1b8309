// What a pass over many boxes is given; boxes.py fills these structures through ctypes. F is float or double.
#pragma once

#include "tiles.hpp"

// A chain of `count` pairs of a linear map and a ReLU, and maps behind them. Jobs: unit rows on the input of ReLU r, for
// each r, and then given rows on the output; their scalar slots have no lists, which are made box by box, and `relus` says
// for each slot of all jobs which ReLU fills it (or -1). By ReLU: `sizes`, `weights` of the map before it (columns, rows),
// its `bias` or null, and by how much the ends of its input's interval are moved outward, `errors`, or null.
// `rounds` (boxes, 2) of slope optimisation for unit rows and for given rows. Boxes center and radius (boxes, size of the input).
// `settled` (boxes, all entries of all ReLUs) or null: signs that are known of inputs, 1 positive, 2 negative; out `found`:
// what is known behind the pass. Out: low and bias (boxes, rows), slopes and those before any round, steep (boxes, rows, n).
template <class F>
struct Chain {
    const Job<F>* jobs;
    const int32_t *relus, *sizes;
    const F *const *weights, *const *bias, *const *errors;
    int32_t count, boxes, rows;
    const int32_t* rounds;
    const F *center, *radius;
    const uint8_t* settled;
    uint8_t* found;
    F *low, *slopes, *bias_out, *steep;
};
