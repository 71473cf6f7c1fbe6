// How a row of results is written: whole cache lines wherever it can be, streamed past the caches where it is asked for.
//
// A store that crosses cache lines costs more than the two partial vectors that avoid it, and a line of which only a part
// is streamed is read from memory first. So a row is written up to the first line of y, then line by line, then what is
// left; streamed rows that lie end to end hand the line they share from one to the next. Results are element by element, so
// none of this touches their bits.
#pragma once

#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// The line that two streamed rows share, waiting for the second of them.
template <class S>
struct Edge {
    static constexpr index LINE = PACK / index(sizeof(S));
    alignas(PACK) S line[LINE];
    bool waiting = false;
};

// Whether streamed rows share cache lines: they lie end to end, and are long enough that no line holds three.
template <class S>
ONEPASS_INLINE bool rows_join(bool streamed, index cols, index stride) {
    return streamed && stride == cols && cols >= 2 * Edge<S>::LINE;
}

// Vectors that are streamed one right after the other. A load waits for a pending store that seems to overlap it (in its
// place within a page), and streamed ones pend for long.
constexpr int BURST = 4;

// y[i] = value(i, lanes) for i in 0..n, each i once. `joined`: the row behind this one begins where this one ends, and
// comes next.
template <class T, class S, class Value>
ONEPASS_INLINE void write_row(S* y, index n, const Value& value, bool streamed, bool joined, Edge<S>& edge) {
    constexpr index LINE = Edge<S>::LINE;
    const index before = to_line(y), head = before < n ? before : n, end = n - (n - head) % LINE;
    if (head) {
        S* to = edge.waiting ? edge.line + (LINE - head) : y;
        each_vector<T>(head, [&](index i, auto lanes) ONEPASS_FLAT { store(to + i, value(i, lanes), lanes); });
        if (edge.waiting)
            for (int j = 0; j < PARTS; ++j)
                stream(reinterpret_cast<float*>(y + head - LINE) + j * WIDTH<float>,
                       load(reinterpret_cast<const float*>(edge.line) + j * WIDTH<float>));
        edge.waiting = false;
    }
    if (streamed) {
        index i = head;
        for (; i + BURST * WIDTH<T> <= end; i += BURST * WIDTH<T>) {
            Vec<T> burst[BURST];
#pragma GCC unroll 4
            for (int k = 0; k < BURST; ++k) burst[k] = held(value(i + k * WIDTH<T>, All{}));
#pragma GCC unroll 4
            for (int k = 0; k < BURST; ++k) stream(y + i + k * WIDTH<T>, burst[k]);
        }
        for (; i < end; i += WIDTH<T>) stream(y + i, value(i, All{}));
    } else {
        for (index i = head; i < end; i += WIDTH<T>) store(y + i, value(i, All{}), All{});
    }
    if (end == n) return;
    S* to = joined ? edge.line : y + end;
    each_vector<T>(n - end, [&](index i, auto lanes) ONEPASS_FLAT { store(to + i, value(end + i, lanes), lanes); });
    edge.waiting = joined;
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
