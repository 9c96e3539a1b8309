// The entries of a value that a scalar relaxation does not zero, pixel by pixel, with their lines side by side.

#include "tiles.hpp"

namespace {

// Lines (`line_count` of them) (boxes, channels * area), null for zero; out: start (boxes, area + 1), the others (boxes, channels * area).
// Returns whether all slopes are finite.
template <class F>
int list(int64_t boxes, int64_t channels, int64_t area, int line_count, const F* const* lines, int32_t* start,
         int32_t* channel, int32_t* flat, F* const* listed) {
    const int64_t size = channels * area;
    bool finite = true;
    for (int64_t b = 0; b < boxes; ++b) {
        int64_t count = 0;
        for (int64_t p = 0; p < area; ++p) {
            start[b * (area + 1) + p] = int32_t(count);
            for (int64_t c = 0; c < channels; ++c) {
                const int64_t from = b * size + c * area + p, to = b * size + count;
                bool used = false;
                for (int i = 0; i < line_count; ++i) {
                    const F value = lines[i] ? lines[i][from] : F(0);
                    listed[i][to] = value;
                    used |= i != LEAST && i != MOST && value != 0;
                    if (i == LOWER_SLOPE || i == UPPER_SLOPE) finite &= value - value == 0;
                }
                if (!used) continue;
                channel[to] = int32_t(c), flat[to] = int32_t(c * area + p);
                ++count;
            }
        }
        start[b * (area + 1) + area] = int32_t(count);
    }
    return finite;
}

}  // namespace

extern "C" int list_float(int64_t boxes, int64_t channels, int64_t area, int count, const float* const* lines, int32_t* start,
                           int32_t* channel, int32_t* flat, float* const* listed) {
    return list(boxes, channels, area, count, lines, start, channel, flat, listed);
}
extern "C" int list_double(int64_t boxes, int64_t channels, int64_t area, int count, const double* const* lines, int32_t* start,
                            int32_t* channel, int32_t* flat, double* const* listed) {
    return list(boxes, channels, area, count, lines, start, channel, flat, listed);
}
