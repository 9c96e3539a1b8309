// One thread's work on tiles: backward, the best bounds so far, forward through the chosen lines, and again.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "backward.hpp"
#include "forward.hpp"

template <class F>
class Worker {
   public:
    Worker(const Job<F>& job, V<F>* arena) : job(job), arena(arena), rows(job.slot_count), values(job.slot_count) {
        int most = 2;
        for (int i = 0; i < job.op_count; ++i) most = std::max(most, job.ops[i].kernel[0] + job.ops[i].kernel[1]);
        scratch.resize(most);
    }

    virtual ~Worker() = default;

    void run(int tile) {
        take(tile);
        best = V<F>{} - F(INFINITY), moving = V<F>{} + F(1);
        for (int s = 0; s < job.slot_count; ++s) list(s);
        Pace pace{first_step(), 1, 1};
        const double slower = decay();
        double mean = 1, square = 1;
        for (int round = 0;; ++round) {
            V<F> bias = backward(round);
            keep_best(bias);
            if (round == job.rounds || settled()) break;
            pace.first = 1 / (1 - (mean *= Pace::MEAN)), pace.second = 1 / (1 - (square *= Pace::SQUARE));
            forward(pace);
            pace.step *= slower;
        }
    }

   protected:
    virtual void take(int tile) { box = job.box[tile], first = job.first[tile], count = job.count[tile]; }

    V<F> backward(int round) {
        for (Rows<F>& r : rows) r.filled = false;
        V<F> bias = {};
        if (job.given)
            start_given();
        else
            start_units();
        for (int i = 0; i < job.op_count; ++i) step(job.ops[i], bias, round);
        return bias;
    }

    // Where the box at hand has its entries of a value, and their coefficients.
    void list(int s) {
        const Slot<F>& slot = job.slots[s];
        Rows<F>& r = rows[s];
        const int64_t shift = slot.entry_stride * box;
        r.at = arena + slot.offset;
        r.start = slot.start + slot.start_stride * box;
        r.channel = slot.channel + shift, r.flat = slot.flat + shift;
        for (int i = 0, end = slot.lines[TURNS] ? LINES : TURNS; i < end; ++i)
            r.lines[i] = slot.lines[i] ? slot.lines[i] + shift : nullptr;
        r.channels = slot.channels, r.height = slot.height, r.width = slot.width;
        values[s] = r;
        values[s].at = arena + slot.kept;
    }

    void start_given() {
        Rows<F>& r = rows[job.at];
        r.window = {0, r.height, 0, r.width}, r.filled = true;
        const int64_t size = int64_t(r.channels) * r.height * r.width;
        const F* given = job.given + job.given_stride * box * size;
        for (int k = 0; k < r.start[r.height * r.width]; ++k) {
            V<F> value = {};
            for (int lane = 0; lane < count; ++lane) value[lane] = given[row(lane) * size + r.flat[k]];
            r.at[k] = value;
        }
    }

    // Unit rows in the lower half of the lanes, their negations in the upper half, or a row or its negation in each lane;
    // entries are sorted by pixel and channel.
    void start_units() {
        Rows<F>& r = rows[job.at];
        const int32_t* entry = job.entries + first;
        const int area = r.height * r.width, half = LANES<F> / 2;
        Window w{r.height, 0, r.width, 0};
        for (int lane = 0; lane < count; ++lane) {
            const int y = entry[lane] % area / r.width, x = entry[lane] % r.width;
            w = {std::min(w.top, y), std::max(w.bottom, y + 1), std::min(w.left, x), std::max(w.right, x + 1)};
        }
        r.window = w, r.filled = true;
        if (r.lines[0]) {  // the value of a scalar op: its own list, for its lines come next
            r.each([&](int k) { r.at[k] = V<F>{}; });
        } else {
            const int listed = list_units(entry, w, area);
            r.start = unit_start.data(), r.channel = unit_channel, r.flat = unit_flat;
            for (int k = 0; k < listed; ++k) r.at[k] = V<F>{};
        }
        for (int lane = 0; lane < count; ++lane) {
            const int p = entry[lane] % area, c = entry[lane] / area;
            const int32_t* end = r.channel + r.start[p + 1];
            const int32_t* found = std::lower_bound(r.channel + r.start[p], end, c);
            if (found == end || *found != c) continue;
            V<F>& unit = r.at[found - r.channel];
            unit[lane] = job.negative && job.negative[first + lane] ? -1 : 1;
            if (!job.negative) unit[half + lane] = -1;
        }
    }

    // A list of the tile's own entries only, each once, for the pixels of the window; returns how many they are.
    int list_units(const int32_t* entry, const Window& w, int area) {
        const int width = rows[job.at].width;
        unit_start.resize(area + 1);
        int k = 0, listed = 0;
        for (int y = w.top; y < w.bottom; ++y)
            for (int p = y * width + w.left; p < y * width + w.right; ++p) {
                unit_start[p] = listed;
                for (; k < count && entry[k] % area == p; ++k)
                    if (k == 0 || entry[k] != entry[k - 1]) unit_channel[listed] = entry[k] / area, unit_flat[listed++] = entry[k];
                unit_start[p + 1] = listed;
            }
        return listed;
    }

    void step(const Op<F>& op, V<F>& bias, int round) {
        Rows<F>& from = rows[op.from];
        if (!from.filled) return;
        switch (op.kind) {
            case LINEAR: return linear<F>(op, from, rows[op.to], bias);
            case CONVOLUTION: return convolution<F>(op, from, rows[op.to], bias, scratch.data());
            case TRANSPOSED: return transposed<F>(op, from, rows[op.to], bias, scratch.data());
            case GATHER: return gather<F>(op, from, rows[op.to]);
            case SHIFT: return shift<F>(op, from, bias);
            case COPY: return copy<F>(from, rows[op.to], op.weight);
            case RELAX: return relax_at(op.from, bias, round);
        }
    }

    virtual void relax_at(int slot, V<F>& bias, int round) {
        Rows<F>& from = rows[slot];
        const V<F> zero = {};
        if (!job.rounds) return relax<F>(from, bias, [&](int k, V<F>) { return zero + from.lines[LOWER_SLOPE][k]; });
        const Slopes<F> s = slopes(slot);
        auto kept = [&](int k, V<F> a) {
            s.row[k] = a;
            if (round == 0) s.slope[k] = start_slope(slot, k), s.mean[k] = zero, s.square[k] = zero;
            return s.slope[k];
        };
        from.lines[TURNS] ? relax_curved<F>(from, bias, kept) : relax<F>(from, bias, kept);
    }

    // Where the optimisation of an entry's slope or turn starts.
    virtual V<F> start_slope(int slot, int k) const {
        const Rows<F>& r = rows[slot];
        return V<F>{} + (r.lines[TURNS] ? F(0) : r.lines[LOWER_SLOPE][k]);
    }

    // How far slopes go in the first round.
    virtual double first_step() const { return 0.55; }

    // What the step is multiplied by after each round: to a thirtieth in many rounds.
    virtual double decay() const { return std::max(0.85, std::pow(0.03, 1.0 / std::max(1, job.rounds))); }

    Slopes<F> slopes(int s) const {
        const int64_t size = int64_t(rows[s].channels) * rows[s].height * rows[s].width;
        V<F>* at = arena + job.slots[s].kept + size;
        return {at, at + size, at + 2 * size, at + 3 * size, moving};
    }

    // From the minimiser of each row to the values in front of every scalar op, whose slopes take a step.
    void forward(const Pace& pace) {
        for (int s = 0; s < job.slot_count; ++s) values[s].window = rows[s].window, values[s].filled = false;
        Rows<F>& last = values[job.at];
        last.start = rows[job.at].start, last.channel = rows[job.at].channel, last.flat = rows[job.at].flat;
        Rows<F>& x = values[job.input];
        const Rows<F>& r = rows[job.input];
        if (!r.filled) return;
        const F *center = job.center + box * job.size, *radius = job.radius + box * job.size;
        x.each([&](int k) {
            const V<F> middle = V<F>{} + center[x.flat[k]];
            x.at[k] = r.at[k] < 0 ? middle + radius[x.flat[k]] : middle - radius[x.flat[k]];
        });
        x.filled = true;
        for (int i = job.op_count - 1; i >= 0; --i) step_forward(job.ops[i], pace);
    }

    void step_forward(const Op<F>& op, const Pace& pace) {
        Rows<F>& out = values[op.from];
        if (!rows[op.from].filled || (op.from == job.at && !out.lines[0])) return;
        if (op.kind == RELAX) return relax_forward_at(op.from, pace);
        if (op.kind == SHIFT) return shift_forward<F>(op, out);
        const Rows<F>& in = values[op.to];
        if (op.kind == LINEAR)
            linear_forward<F>(op, in, out, out.filled);
        else if (op.kind == CONVOLUTION)
            through_kernel_forward<F>(op, in, out, out.filled, scratch.data(), reads);
        else if (op.kind == TRANSPOSED)
            through_kernel_forward<F>(op, in, out, out.filled, scratch.data(), taps);
        else if (op.kind == GATHER)
            gather_forward<F>(op, in, out, out.filled);
        else
            copy_forward<F>(in, out, op.weight, out.filled);
        out.filled = true;
    }

    virtual void relax_forward_at(int slot, const Pace& pace) {
        Rows<F>& at = values[slot];
        at.lines[TURNS] ? relax_forward_curved<F>(at, slopes(slot), pace) : relax_forward<F>(at, slopes(slot), pace);
    }

    // Which of the given rows a lane takes.
    virtual int64_t row(int lane) const { return first + lane; }

    void keep_best(V<F> bias) {
        const Rows<F>& r = rows[job.input];
        const int64_t size = job.size;
        V<F> low = bias;
        if (r.filled && job.center) low += minimum<F>(r, job.center + box * size, job.radius + box * size);
        const int half = LANES<F> / 2;
        const int64_t out = job.given ? int64_t(job.out_stride) * box + first : first;
        for (int lane = 0; lane < count; ++lane) {
            if (keep(lane, low, bias, out + lane)) job.low[out + lane] = best[lane];
            if (both() && keep(half + lane, low, bias, job.total + out + lane)) job.high[out + lane] = -best[half + lane];
        }
    }

    // Whether a lane's bound is its best so far (or its first); then its row is written to place `at`.
    bool keep(int lane, const V<F>& low, const V<F>& bias, int64_t at) {
        const bool first_time = best[lane] == -INFINITY;
        if (!(low[lane] > best[lane]) && !first_time) return false;
        best[lane] = std::isnan(low[lane]) ? -INFINITY : low[lane];
        if (job.bias) job.bias[at] = bias[lane];
        if (job.slopes) write(rows[job.input], job.slopes + at * job.size, lane);
        if (job.steep && first_time) std::copy_n(job.slopes + at * job.size, job.size, job.steep + at * job.size);
        return true;
    }

    void write(const Rows<F>& r, F* to, int lane) const {
        std::memset(to, 0, sizeof(F) * job.size);
        if (r.filled) r.each([&](int k) { to[r.flat[k]] = r.at[k][lane]; });
    }

    // Whether every unit row's sign is known, where nothing else is asked; given rows go on to the last round.
    virtual bool settled() {
        if (job.given || !job.signs) return false;
        for (int lane = 0; lane < count; ++lane)
            if (!(best[lane] >= 0) && !(both() && best[LANES<F> / 2 + lane] >= 0)) return false;
        return true;
    }

    // Whether the upper half of the lanes holds the negations of the rows in the lower half.
    bool both() const { return !job.given && !job.negative; }

    const Job<F>& job;
    V<F>* arena;
    std::vector<Rows<F>> rows, values;
    std::vector<Tap> scratch;
    std::vector<int32_t> unit_start;
    int32_t unit_channel[LANES<F>], unit_flat[LANES<F>];
    V<F> best, moving;
    int box = 0, first = 0, count = 0;
};
