// What a sweep over cases is given; cases.py fills these structures through ctypes. F is float or double.
#pragma once

#include "tiles.hpp"

// `count` cases c: given row[c] of the job, with signs split_start[c] to split_start[c + 1]: entry split_entry (flat) of the
// ReLU that fills slot split_slot is active or not. A case whose bound exceeds target[c] takes no more rounds.
// Lines that may be chosen (their LEAST below MOST, or TURNS) are numbered through, slot by slot and entry by entry, up to
// `free_count`. `start` and `last` (count, free_count), or null: the choices to begin and to end with, in 255ths of their
// range; `beta` and `last_beta` (signs), or null: the multipliers of the signs; `step`: that of the first round.
// Out, beside what the job names: for each case neurons to split next, best first (branch_slot -1: no more are left).
template <class F>
struct Cases {
    Job<F> job;
    int32_t count;
    const int32_t* row;
    const int64_t* split_start;
    const int32_t *split_slot, *split_entry, *split_active;
    const F* target;
    double step;
    int64_t free_count;
    const uint8_t* start;
    uint8_t* last;
    const float* beta;
    float* last_beta;
    int32_t candidates;
    int32_t *branch_slot, *branch_entry;
};
