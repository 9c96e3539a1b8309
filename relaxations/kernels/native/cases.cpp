// Sub-problems of branch-and-bound on ReLU signs: every lane of a tile is a case, a row with signs that some neurons have.
//
// All cases share one box and its relaxations. A case's own signs replace the lines of their neurons, and each carries a
// multiplier that is optimised along with the slopes (Wang et al. 2021, beta-CROWN, section 3.2): for a sign + the value
// z in front is not negative, hence row >= row - beta z for any beta >= 0.

#include <atomic>
#include <chrono>
#include <cmath>
#include <utility>

#include "cases.hpp"
#include "worker.hpp"

namespace {

constexpr double MULTIPLIER = 5;  // steps of multipliers, in shares of the mean size of the coefficients

template <class F>
struct Split {
    int lane, entry, pixel;
    int64_t number;  // among the signs of all cases
    bool active;
    F beta, mean = 0, square = 0;

    // Whether the rows reach the neuron: outside their window there are no coefficients, and a sign says nothing.
    bool within(const Rows<F>& rows) const {
        const Window& w = rows.window;
        const int y = pixel / rows.width, x = pixel % rows.width;
        return y >= w.top && y < w.bottom && x >= w.left && x < w.right;
    }
};

template <class F>
class CaseWorker : public Worker<F> {
   public:
    CaseWorker(const Cases<F>& cases, V<F>* arena)
        : Worker<F>(cases.job, arena), cases(cases), splits(cases.job.slot_count), place(cases.job.slot_count) {
        int64_t next = 0;
        for (int i = 0; i < cases.job.slot_count; ++i) {
            const Slot<F>& slot = cases.job.slots[i];
            if (!slot.lines[LEAST]) continue;
            for (int k = 0; k < slot.start[slot.height * slot.width]; ++k)
                place[i].push_back(slot.lines[TURNS] || slot.lines[LEAST][k] < slot.lines[MOST][k] ? next++ : -1);
        }
    }

    // Bounds of the cases of a tile, and then for each the neurons that it would be best to split, where they are asked for.
    void decide(int tile) {
        this->run(tile);
        if (cases.candidates) score();
        if (cases.last) write_last();
    }

   protected:
    void score() {
        scoring = true, found.assign(cases.candidates, {V<F>{}, V<F>{} - 1, V<F>{} - 1});
        this->forward(Pace{0, 1, 1});
        scoring = false;
        for (int lane = 0; lane < this->count; ++lane) {
            int64_t at = int64_t(this->first + lane) * cases.candidates;
            for (const Candidate& next : found) {
                const int slot = int(next.slot[lane]);
                cases.branch_slot[at] = slot;
                cases.branch_entry[at++] = slot < 0 ? -1 : this->rows[slot].flat[int(next.entry[lane])];
            }
        }
    }

    void take(int tile) override {
        constexpr int L = LANES<F>;
        this->box = 0, this->first = tile * L, this->count = std::min(L, cases.count - tile * L);
        for (auto& held : splits) held.clear();
        ready = false;
    }

    int64_t row(int lane) const override { return cases.row[this->first + lane]; }

    // A lane that exceeds its target keeps the choices that did it.
    bool settled() override {
        bool all = true;
        for (int lane = 0; lane < this->count; ++lane) {
            const bool done = this->best[lane] > cases.target[this->first + lane];
            this->moving[lane] = done ? F(0) : F(1);
            all &= done;
        }
        return all;
    }

    double first_step() const override { return cases.step; }

    // The step stays: the multipliers of a case that nothing satisfies have to grow without end, over many generations.
    double decay() const override { return 1; }

    V<F> start_slope(int slot, int k) const override {
        V<F> slope = Worker<F>::start_slope(slot, k);
        const int64_t at = place[slot][k];
        if (!cases.start || at < 0) return slope;
        const auto [least, most] = range(slot, k);
        for (int lane = 0; lane < this->count; ++lane)
            slope[lane] = least + (most - least) * F(cases.start[(this->first + lane) * cases.free_count + at]) / F(255);
        return slope;
    }

    void relax_at(int slot, V<F>& bias, int round) override {
        if (!ready) list_splits();
        Worker<F>::relax_at(slot, bias, round);
        Rows<F>& from = this->rows[slot];
        const Slopes<F> s = this->slopes(slot);
        for (const Split<F>& split : splits[slot]) {
            if (!split.within(from)) continue;
            const F a = s.row[split.entry][split.lane];
            bias[split.lane] -= a < 0 ? a * from.lines[UPPER_BIAS][split.entry] : a * from.lines[LOWER_BIAS][split.entry];
            from.at[split.entry][split.lane] = split.active ? a - split.beta : split.beta;
        }
    }

    void relax_forward_at(int slot, const Pace& pace) override {
        Rows<F>& at = this->values[slot];
        if (at.lines[TURNS]) return Worker<F>::relax_forward_at(slot, pace);
        const Slopes<F> s = this->slopes(slot);
        std::vector<F> front;
        for (const Split<F>& split : splits[slot]) front.push_back(at.at[split.entry][split.lane]);
        if (scoring) look(slot, at, s);
        relax_forward<F>(at, s, pace);
        const V<F> scale = mean_size(at, s);
        for (size_t i = 0; i < splits[slot].size(); ++i) {
            Split<F>& split = splits[slot][i];
            if (!split.within(at)) continue;
            at.at[split.entry][split.lane] = split.active ? front[i] : F(0);
            const F gradient = split.active ? -front[i] : front[i];
            split.mean = split.mean * F(Pace::MEAN) + gradient * F(1 - Pace::MEAN);
            split.square = split.square * F(Pace::SQUARE) + gradient * gradient * F(1 - Pace::SQUARE);
            const F size = std::sqrt(split.square * F(pace.second)) + F(1e-30);
            if (this->moving[split.lane] == 0) continue;
            split.beta += scale[split.lane] * F(MULTIPLIER * pace.step * pace.first) * split.mean / size;
            if (!(split.beta >= 0)) split.beta = 0;  // also where it is NaN
        }
    }

   private:
    std::pair<F, F> range(int slot, int k) const {
        const Rows<F>& r = this->rows[slot];
        if (r.lines[TURNS]) return {F(-STRETCHES), F(STRETCHES)};
        return {r.lines[LEAST][k], r.lines[MOST][k]};
    }

    void list_splits() {
        ready = true;
        for (int lane = 0; lane < this->count; ++lane)
            for (int64_t i = cases.split_start[this->first + lane]; i < cases.split_start[this->first + lane + 1]; ++i) {
                const int slot = cases.split_slot[i];
                const Rows<F>& r = this->rows[slot];
                const int area = r.height * r.width, p = cases.split_entry[i] % area, c = cases.split_entry[i] / area;
                const int32_t* end = r.channel + r.start[p + 1];
                const int32_t* found = std::lower_bound(r.channel + r.start[p], end, c);
                const int entry = int(found - r.channel);
                if (found != end && *found == c && !has_sign(slot, lane, entry))
                    splits[slot].push_back({lane, entry, p, i, cases.split_active[i] != 0, multiplier(i)});
            }
    }

    F multiplier(int64_t sign) const {
        return cases.beta && cases.beta[sign] > 0 ? F(cases.beta[sign]) : F(0);  // a negative one proves nothing
    }

    // Whether the lane at hand has a sign for an entry: a second one would take the lines' intercepts off once more.
    bool has_sign(int slot, int lane, int entry) const {
        const std::vector<Split<F>>& held = splits[slot];
        for (size_t i = held.size(); i-- > 0 && held[i].lane == lane;)
            if (held[i].entry == entry) return true;
        return false;
    }

    V<F> mean_size(const Rows<F>& at, const Slopes<F>& s) const {
        V<F> sum = {};
        int count = 0;
        at.each([&](int k) {
            const V<F> a = s.row[k];
            sum += a < 0 ? -a : a, ++count;
        });
        return sum / F(std::max(1, count));
    }

    // The neurons whose lines lose most: what its line may be off somewhere in its interval (the intercept score of
    // Bunel et al. 2020, BaBSR), and with a small weight what it is off at the row's minimiser.
    void look(int slot, const Rows<F>& at, const Slopes<F>& s) {
        for (const Split<F>& split : splits[slot]) s.square[split.entry][split.lane] = -1;
        const V<F> zero = {};
        at.each([&](int k) {
            if (!(at.lines[LEAST][k] < at.lines[MOST][k])) return;
            const V<F> z = at.at[k], a = s.row[k], slope = s.slope[k], value = z < 0 ? zero : z;
            const F rise = at.lines[UPPER_SLOPE][k], top = at.lines[UPPER_BIAS][k];
            const V<F> left = slope * (top / rise), right = (F(1) - slope) * (top / (1 - rise));
            const V<F> most = a < 0 ? zero - top : (left < right ? left : right);
            const V<F> line = a < 0 ? rise * z + top : slope * z;
            V<F> loss = a * (most + F(0.1) * (value - line));
            loss = s.square[k] < 0 ? zero : loss;
            Candidate next{loss, zero + F(slot), zero + F(k)};
            for (Candidate& held : found) {  // in falling order: what is better pushes the rest back
                const auto better = next.score > held.score;
                const Candidate last = held;
                held = last.or_else(next, better), next = next.or_else(last, better);
            }
        });
    }

    void write_last() const {
        for (int slot = 0; slot < this->job.slot_count; ++slot) {
            const Rows<F>& r = this->rows[slot];
            for (const Split<F>& split : splits[slot]) cases.last_beta[split.number] = float(split.beta);
            if (place[slot].empty() || !r.filled) continue;
            const Slopes<F> s = this->slopes(slot);
            r.each([&](int k) {
                if (place[slot][k] < 0) return;
                const auto [least, most] = range(slot, k);
                for (int lane = 0; lane < this->count; ++lane) {
                    const F share = (s.slope[k][lane] - least) / (most - least);
                    cases.last[(this->first + lane) * cases.free_count + place[slot][k]] = uint8_t(share * F(255) + F(0.5));
                }
            });
        }
    }

    struct Candidate {
        V<F> score, slot, entry;

        template <class Mask>
        Candidate or_else(const Candidate& other, Mask mask) const {
            return {mask ? other.score : score, mask ? other.slot : slot, mask ? other.entry : entry};
        }
    };

    const Cases<F>& cases;
    std::vector<std::vector<Split<F>>> splits;
    std::vector<std::vector<int64_t>> place;  // of each entry's line among those that may be chosen, -1 for none
    std::vector<Candidate> found;
    bool ready = false, scoring = false;
};

template <class F>
int decide(const Cases<F>& cases, int threads, double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::min(seconds, 1e9));
    const int tiles = (cases.count + LANES<F> - 1) / LANES<F>;
    std::atomic<int> thread{0}, next{0};
    std::atomic<bool> late{false};
#pragma omp parallel num_threads(threads)
    {
        CaseWorker<F> worker(cases, static_cast<V<F>*>(cases.job.arena) + cases.job.arena_size * thread.fetch_add(1));
        for (int tile = next.fetch_add(1); tile < tiles && !late; tile = next.fetch_add(1)) {
            worker.decide(tile);
            if (std::chrono::steady_clock::now() > end && next < tiles) late = true;
        }
    }
    return !late;
}

}  // namespace

extern "C" int decide_float(const Cases<float>* cases, int threads, double seconds) { return decide(*cases, threads, seconds); }
extern "C" int decide_double(const Cases<double>* cases, int threads, double seconds) { return decide(*cases, threads, seconds); }
