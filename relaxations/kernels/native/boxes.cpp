// Passes over many boxes of a chain of linear maps and ReLUs: intervals, rows for the entries whose sign is open, lines,
// layer by layer, and then the given rows. All of a box stays in the cache, and nothing happens between its layers:
// on small networks calls and lists took twice as long as the rows.

#include <atomic>
#include <chrono>
#include <memory>

#include "boxes.hpp"
#include "worker.hpp"

namespace {

enum Sign : uint8_t { OPEN, POSITIVE, NEGATIVE };
constexpr int FEW = 4;  // where less than a fourth of the signs is open, intervals hardly ever tell more of them than rows

// A tile of rows of the one box at hand.
template <class F>
class RowWorker : public Worker<F> {
   public:
    using Worker<F>::Worker;

    void run(int first, int count) {
        from = first, size = count;
        Worker<F>::run(0);
    }

   protected:
    void take(int) override { this->box = 0, this->first = from, this->count = size; }

   private:
    int from = 0, size = 0;
};

// The lines of one ReLU's entries, and the ends of its values.
template <class F>
struct Layer {
    int32_t start[2] = {0, 0};
    std::vector<int32_t> entry;
    std::vector<F> lines[TURNS];
    std::vector<F> lower, upper;

    explicit Layer(int size) : entry(size), lower(size), upper(size) {
        for (auto& line : lines) line.resize(size);
    }

    // Entry i with its input between l and u; lines as in relaxations/scalar/bent.py.
    void add(int i, F l, F u) {
        lower[i] = std::max(l, F(0)), upper[i] = std::max(u, F(0));
        if (u <= 0) return;
        if (l >= 0) return list(i, 1, 1, 0);
        constexpr F eps = sizeof(F) == 4 ? F(0x1p-23) : F(0x1p-52), tiny = sizeof(F) == 4 ? F(0x1p-126) : F(0x1p-1022);
        const F rise = u / std::max(u - l, tiny), top = std::max(-rise * l, (1 - rise) * u) * (1 + 2 * eps);
        const F slope = l + u > 0 ? F(1) : F(0);
        std::isfinite(top) ? list(i, slope, rise, top) : list(i, slope, 0, u);
    }

   private:
    void list(int i, F slope, F rise, F top) {
        const int k = start[1]++;
        const bool free = slope != rise;
        entry[k] = i;
        const F line[TURNS] = {slope, 0, rise, top, free ? F(0) : slope, free ? F(1) : slope};
        for (int j = 0; j < TURNS; ++j) lines[j][k] = line[j];
    }
};

// One thread's work.
template <class F>
class BoxWorker {
   public:
    BoxWorker(const Chain<F>& chain, V<F>* arena) : chain(chain), jobs(chain.jobs, chain.jobs + chain.count + 1) {
        int most = 0;
        for (int r = 0; r < chain.count; ++r) layers.emplace_back(chain.sizes[r]), most = std::max(most, chain.sizes[r]);
        total = 0;
        for (int r = 0; r < chain.count; ++r) total += chain.sizes[r];
        middle.resize(most), spread.resize(most), low.resize(most), high.resize(most), open.resize(most);
        const int32_t* relu = chain.relus;
        for (Job<F>& job : jobs) {
            slots.emplace_back(job.slots, job.slots + job.slot_count);
            for (Slot<F>& slot : slots.back())
                if (const int r = *relu++; r >= 0) fill(slot, layers[r]);
            job.slots = slots.back().data();
            job.entries = open.data(), job.low = low.data(), job.high = high.data(), job.arena = arena;
            workers.push_back(std::make_unique<RowWorker<F>>(job, arena));
        }
    }

    void run(int box) {
        const int n = int(jobs[0].size);
        const int64_t at = int64_t(box) * n;
        for (Job<F>& job : jobs) {
            job.center = chain.center + at, job.radius = chain.radius + at;
            job.rounds = chain.rounds[2 * box + (&job == &jobs.back())];
        }
        int64_t entry = box * total;
        few = chain.settled && FEW * std::count(chain.settled + entry, chain.settled + entry + total, OPEN) < total;
        for (int r = 0; r < chain.count; ++r) entry += bound(r, entry);
        Job<F>& last = jobs.back();
        const int64_t row = int64_t(box) * chain.rows;
        last.low = chain.low + row, last.bias = chain.bias_out + row;
        last.slopes = chain.slopes + row * n, last.steep = chain.steep + row * n;
        for (int first = 0; first < chain.rows; first += LANES<F>)
            workers.back()->run(first, std::min(chain.rows - first, LANES<F>));
    }

   private:
    static void fill(Slot<F>& slot, const Layer<F>& layer) {
        slot.start = layer.start, slot.channel = slot.flat = layer.entry.data();
        for (int j = 0; j < TURNS; ++j) slot.lines[j] = layer.lines[j].data();
        slot.start_stride = slot.entry_stride = 0;
    }

    // Bound the input of ReLU r and make its lines; `entry` is where its signs are. Returns its size.
    int bound(int r, int64_t entry) {
        const int size = chain.sizes[r];
        const uint8_t* settled = chain.settled ? chain.settled + entry : nullptr;
        if (r == 0 || !few)
            interval(r);
        else
            for (int i = 0; i < size; ++i) middle[i] = -F(INFINITY), spread[i] = F(INFINITY);
        if (settled) settle(settled, size);
        if (r > 0) rows(r);
        Layer<F>& layer = layers[r];
        layer.start[1] = 0;
        const F* error = chain.errors[r];
        for (int i = 0; i < size; ++i) {
            F l = middle[i], u = spread[i];
            if (error) l -= error[i], u += error[i];
            if (settled && settled[i] == POSITIVE) l = std::max(l, F(0)), u = std::max(u, l);
            if (settled && settled[i] == NEGATIVE) u = std::min(u, F(0)), l = std::min(l, u);
            if (chain.found) chain.found[entry + i] = u <= 0 ? NEGATIVE : (l >= 0 ? POSITIVE : OPEN);
            layer.add(i, l, u);
        }
        return size;
    }

    // The ends of the values in front of ReLU r, by the ends behind the one before: into `middle` and `spread`.
    void interval(int r) {
        const int size = chain.sizes[r];
        const F* bias = chain.bias[r];
        F *mid = middle.data(), *wide = spread.data();
        for (int i = 0; i < size; ++i) mid[i] = bias ? bias[i] : F(0), wide[i] = 0;
        auto term = [&](int k, F m, F s) {
            const F* weight = chain.weights[r] + int64_t(k) * size;
            for (int i = 0; i < size; ++i) mid[i] += m * weight[i], wide[i] += s * std::abs(weight[i]);
        };
        if (r == 0) {
            for (int k = 0; k < jobs[0].size; ++k) term(k, jobs[0].center[k], jobs[0].radius[k]);
        } else {
            const Layer<F>& before = layers[r - 1];
            for (int j = 0; j < before.start[1]; ++j) {
                const int k = before.entry[j];
                const F half = (before.upper[k] - before.lower[k]) / 2;
                term(k, before.lower[k] + half, half);
            }
        }
        for (int i = 0; i < size; ++i) {
            const F l = mid[i] - wide[i], u = mid[i] + wide[i];
            mid[i] = l <= u ? l : -F(INFINITY), wide[i] = l <= u ? u : F(INFINITY);
        }
    }

    void settle(const uint8_t* settled, int size) {
        for (int i = 0; i < size; ++i) {
            if (settled[i] == POSITIVE) middle[i] = std::max(middle[i], F(0)), spread[i] = std::max(spread[i], middle[i]);
            if (settled[i] == NEGATIVE) spread[i] = std::min(spread[i], F(0)), middle[i] = std::min(middle[i], spread[i]);
        }
    }

    // Rows for the entries whose sign is open.
    void rows(int r) {
        int count = 0;
        for (int i = 0; i < chain.sizes[r]; ++i)
            if (middle[i] < 0 && spread[i] > 0) open[count++] = i;
        jobs[r].total = count;
        for (int first = 0; first < count; first += LANES<F> / 2)
            workers[r]->run(first, std::min(count - first, LANES<F> / 2));
        for (int j = 0; j < count; ++j) {
            F &l = middle[open[j]], &u = spread[open[j]];
            const F a = std::fmax(l, low[j]), b = std::fmin(u, high[j]);
            l = std::min(a, b), u = std::max(a, b);  // two sound bounds cross by rounding only
        }
    }

    const Chain<F>& chain;
    std::vector<Layer<F>> layers;
    std::vector<Job<F>> jobs;
    std::vector<std::vector<Slot<F>>> slots;
    std::vector<std::unique_ptr<RowWorker<F>>> workers;
    std::vector<F> middle, spread, low, high;
    std::vector<int32_t> open;
    int64_t total = 0;
    bool few = false;
};

// Bound all boxes on `threads` threads; whether they were done before `seconds` had passed.
template <class F>
int boxes(const Chain<F>& chain, int threads, double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::min(seconds, 1e9));
    std::atomic<int> thread{0}, next{0};
    std::atomic<bool> late{false};
    const Job<F>& any = chain.jobs[0];
#pragma omp parallel num_threads(threads)
    {
        BoxWorker<F> worker(chain, static_cast<V<F>*>(any.arena) + any.arena_size * thread.fetch_add(1));
        for (int box = next.fetch_add(1); box < chain.boxes && !late; box = next.fetch_add(1)) {
            worker.run(box);
            if (std::chrono::steady_clock::now() > end && next < chain.boxes) late = true;
        }
    }
    return !late;
}

}  // namespace

extern "C" int boxes_float(const Chain<float>* chain, int threads, double seconds) { return boxes(*chain, threads, seconds); }
extern "C" int boxes_double(const Chain<double>* chain, int threads, double seconds) { return boxes(*chain, threads, seconds); }
