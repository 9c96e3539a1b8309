// What a sweep over cases is given; cases.py fills these structures through ctypes. F is float or double.
#pragma once

#include "tiles.hpp"

// `count` cases c: given row[c] of the job, with signs split_start[c] to split_start[c + 1]: entry split_entry (flat) of the
// ReLU that fills slot split_slot is active or not. `start` and `last`: for each slot null, or slopes (rows or cases, size)
// in the order of its entries, to begin with and to end with. A case whose bound exceeds target[c] takes no more rounds.
// Out, beside what the job names: for each case the neuron to split next (branch_slot -1: none is left).
template <class F>
struct Cases {
    Job<F> job;
    int32_t count;
    const int32_t* row;
    const int64_t* split_start;
    const int32_t *split_slot, *split_entry, *split_active;
    const F* target;
    const F* const* start;
    F* const* last;
    int32_t *branch_slot, *branch_entry;
};
