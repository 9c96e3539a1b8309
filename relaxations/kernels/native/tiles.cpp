// Backward sweeps through linear, convolution, addition and scalar nodes, a cache-sized tile of rows at a time.
//
// A tile holds as many rows as a vector has lanes, all of one box and (on feature maps) of one pixel: half of the
// lanes are unit rows and half their negations, or all are given rows. Coefficients of one value are an array of
// vectors, one per entry; weights are broadcast, so that no width is a multiple of anything, entries that a relaxation
// zeroes for the whole box are left out of every product, and biases need no horizontal sums.
// See program.py for who makes the steps, and tiles.hpp for the structures.

#include <atomic>
#include <chrono>

#include "worker.hpp"

namespace {

// Run all tiles on `threads` threads; whether they were done before `seconds` had passed.
template <class F>
int sweep(const Job<F>& job, int threads, double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::min(seconds, 1e9));
    std::atomic<int> thread{0}, next{0};
    std::atomic<bool> late{false};
#pragma omp parallel num_threads(threads)
    {
        Worker<F> worker(job, static_cast<V<F>*>(job.arena) + job.arena_size * thread.fetch_add(1));
        for (int tile = next.fetch_add(1); tile < job.tiles && !late; tile = next.fetch_add(1)) {
            worker.run(tile);
            if (std::chrono::steady_clock::now() > end && next < job.tiles) late = true;  // another may have taken the rest
        }
    }
    return !late;
}

}  // namespace

extern "C" int sweep_float(const Job<float>* job, int threads, double seconds) { return sweep(*job, threads, seconds); }
extern "C" int sweep_double(const Job<double>* job, int threads, double seconds) { return sweep(*job, threads, seconds); }
extern "C" int vector_bytes() { return VECTOR_BYTES; }
