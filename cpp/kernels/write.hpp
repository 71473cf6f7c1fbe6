// How a row of results is written: whole cache lines wherever it can be, streamed past the caches where it is asked for.
//
// A store that crosses cache lines costs more than the two partial vectors that avoid it, but in a short row; and a line of
// which only a part is streamed is read from memory first. So a row is written up to the first line of y, then line by
// line, then what is left; streamed rows that lie end to end hand the line they share from one to the next. Only where
// every vector would read parameters across lines instead, the lines are theirs. Results are element by element, so none of
// this touches their bits.
#pragma once

#include "kernels/kernels.hpp"
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

template <class S>
ONEPASS_INLINE void stream_line(S* to, const S* line) {
    for (int j = 0; j < PARTS; ++j)
        stream(reinterpret_cast<float*>(to) + j * WIDTH<float>,
               load(reinterpret_cast<const float*>(line) + j * WIDTH<float>));
}

// Whether streamed rows share cache lines: they lie end to end, and are long enough that no line holds three.
template <class S>
ONEPASS_INLINE bool rows_join(bool streamed, index cols, index stride) {
    return streamed && stride == cols && cols >= 2 * Edge<S>::LINE;
}

// Whether a row of n elements is written across cache lines, from its first element on (SHORT_ROW).
template <class S>
ONEPASS_INLINE bool short_row(index n, bool streamed) {
    return !streamed && n * index(sizeof(S)) <= SHORT_ROW;
}

// What a gradient reads of one place.
template <class T>
struct Both {
    Vec<T> x, dy;
};
template <class T>
ONEPASS_INLINE Both<T> held(Both<T> of) {
    return {held(of.x), held(of.dy)};
}

// A load waits for a pending store that seems to overlap it (in its place within a page), and streamed stores pend for
// long. So a burst of vectors is written only when the burst behind it has been read: y may lie a few lines behind x, and a
// store to it would be in the way of the next loads of x.
constexpr int BURST = 4;

// Puts value(read(k)) for each vector k of the burst at `at`. What comes `between` has nothing to do with it.
template <class T, class Read, class Value, class Put, class Between>
ONEPASS_INLINE void write_burst(index at, const Read& read, const Value& value, const Put& put, const Between& between) {
    Vec<T> burst[BURST];
#pragma GCC unroll 4
    for (int k = 0; k < BURST; ++k) burst[k] = held(value(read(k), at + k * WIDTH<T>, All{}));
    between();
#pragma GCC unroll 4
    for (int k = 0; k < BURST; k += 2) put(at + k * WIDTH<T>, burst[k], burst[k + 1]);
}

template <class T, class Source, class Value, class Put>
ONEPASS_INLINE index write_bursts(index i, index end, const Source& source, const Value& value, const Put& put) {
    constexpr index STEP = BURST * WIDTH<T>;
    if (i + STEP > end) return i;
    decltype(source(i, All{})) now[BURST], next[BURST];
    const auto read = [&](int k) ONEPASS_FLAT { return now[k]; };
    const auto nothing = []() ONEPASS_FLAT {};
#pragma GCC unroll 4
    for (int k = 0; k < BURST; ++k) now[k] = held(source(i + k * WIDTH<T>, All{}));
    for (; i + 2 * STEP <= end; i += STEP) {
#pragma GCC unroll 4
        for (int k = 0; k < BURST; ++k) next[k] = held(source(i + STEP + k * WIDTH<T>, All{}));
        write_burst<T>(i, read, value, put, nothing);
#pragma GCC unroll 4
        for (int k = 0; k < BURST; ++k) now[k] = next[k];
    }
    write_burst<T>(i, read, value, put, nothing);
    return i + STEP;
}

// Where there is something else to do meanwhile, a piece of it comes between the values of each burst and their stores: so
// there is always work that waits for nothing, and conversions, which take long, have begun before it.
// Or there is nothing; then values that store for themselves while they are computed, as a gradient's do, are quicker
// without BURSTS. (Not in 16 bits, of which two vectors are one store.)
template <bool BURSTS>
struct Alone {
    ONEPASS_INLINE void at(index) const {}
};
typedef Alone<true> Nothing;
template <class T, class Source, class Value, class Put, bool BURSTS>
ONEPASS_INLINE index write_bursts(index i, index end, const Source& source, const Value& value, const Put& put,
                                  Alone<BURSTS>&) {
    return BURSTS ? write_bursts<T>(i, end, source, value, put) : i;
}
template <class T, class Source, class Value, class Put, class Meanwhile>
ONEPASS_INLINE index write_bursts(index i, index end, const Source& source, const Value& value, const Put& put,
                                  Meanwhile& meanwhile) {
    constexpr index STEP = BURST * WIDTH<T>;
    const auto write = [&](index at, const auto& between) ONEPASS_FLAT {
        const auto read = [&](int k) ONEPASS_FLAT { return source(at + k * WIDTH<T>, All{}); };
        write_burst<T>(at, read, value, put, between);
    };
    for (; i + Meanwhile::PIECES * STEP <= end; i += Meanwhile::PIECES * STEP) {
#pragma GCC unroll 8
        for (int k = 0; k < Meanwhile::PIECES; ++k) write(i + k * STEP, [&]() ONEPASS_FLAT { meanwhile.piece(k); });
    }
    // What is left of a row is less than a chunk where its lines begin behind its first element: a chunk for a burst.
    if (i + STEP <= end && meanwhile.more()) {
        write(i, [&]() ONEPASS_FLAT { meanwhile.piece(0); });
        for (int k = 1; k < Meanwhile::PIECES; ++k) meanwhile.piece(k);
        return i + STEP;
    }
    return write_bursts<T>(i, end, source, value, put);
}

// Whether two rows are written at once: of narrower vectors there are registers for bursts of two, and not for conversions.
template <class S>
constexpr bool MAY_PAIR = NATIVE == 64 || sizeof(S) == sizeof(Arith<S>);
template <class S>
ONEPASS_INLINE bool pair(bool streamed, index stride) {
    return MAY_PAIR<S> && !streamed && stride % Edge<S>::LINE == 0;
}
// Columns have three to five parameters an element: the narrowest vectors take longest to load these. (Wider ones were
// slower by two rows.)
template <class S>
constexpr bool COLUMNS_PAIR = NATIVE == 16 && MAY_PAIR<S>;

// Two rows at once, not streamed, which lie alike within their lines: so what value(row, i, lanes) reads beside x at i, it
// reads for both, for the first and then for the second.
template <class T, class S, class Value>
ONEPASS_INLINE void write_two(S* y, index stride, index lead, index n, const Value& value) {
    constexpr int BURST = NATIVE == 64 ? onepass::ONEPASS_ISA::BURST : 2;
    constexpr index STEP = BURST * WIDTH<T>;
    const auto one_vector = [&](index i, auto lanes) ONEPASS_FLAT {
        const Vec<T> first = value(0, i, lanes), second = value(1, i, lanes);
        store(y + i, first, lanes);
        store(y + stride + i, second, lanes);
    };
    index i = lead < n ? lead : n;
    each_vector<T>(i, one_vector);
    for (; i + STEP <= n; i += STEP) {
        Vec<T> first[BURST], second[BURST];
#pragma GCC unroll 4
        for (int k = 0; k < BURST; ++k) {
            first[k] = held(value(0, i + k * WIDTH<T>, All{}));
            second[k] = held(value(1, i + k * WIDTH<T>, All{}));
        }
#pragma GCC unroll 4
        for (int k = 0; k < BURST; k += 2) store(y + i + k * WIDTH<T>, first[k], first[k + 1]);
#pragma GCC unroll 4
        for (int k = 0; k < BURST; k += 2) store(y + stride + i + k * WIDTH<T>, second[k], second[k + 1]);
    }
    each_vector<T>(n - i, [&](index j, auto lanes) ONEPASS_FLAT { one_vector(i + j, lanes); });
}

// How many elements of a row of y come before its lines, where parameters are read `beside` it: those before the first line
// of y, if the parameters' vectors lie on lines then, too, or y is streamed; or else before the first line of the
// parameters, for they are several.
template <class S, class T>
ONEPASS_INLINE index lead_of(const S* y, const T* beside, bool streamed) {
    const index of_y = to_line(y), of_beside = to_line(beside);
    return streamed || (of_y - of_beside) % WIDTH<T> == 0 ? of_y : of_beside;
}

// Whether parameters `beside` streamed rows of y are loaded ACROSS the lines, in vectors of which that matters. (In 16 bits
// it would be those of two lines of parameters to one of y, and arithmetic takes longer.)
template <class S, class T>
constexpr bool MAY_CROSS = NATIVE == 64 && sizeof(S) == sizeof(T);
template <class S, class T>
ONEPASS_INLINE bool across(const S* y, index stride, const T* beside, bool streamed) {
    return streamed && (stride % WIDTH<T> != 0 || (to_line(y) - to_line(beside)) % WIDTH<T> != 0);
}

// y[i] = value(source(i, lanes), i, lanes) for i in 0..n, each i once; source has loads alone. The first `lead` come before
// the lines. `joined`: the row behind this one begins where this one ends, and comes next. `later.at(i)` is sent for beside
// i where y is streamed.
template <class T, class S, class Source, class Value, class Meanwhile = Nothing, class Later = Nothing>
ONEPASS_INLINE void write_row(S* y, index lead, index n, const Source& source, const Value& value, bool streamed,
                              bool joined, Edge<S>& edge, Meanwhile&& meanwhile = {}, const Later& later = {}) {
    constexpr index LINE = Edge<S>::LINE;
    const auto at = [&](index i, auto lanes) ONEPASS_FLAT { return value(source(i, lanes), i, lanes); };
    const index head = lead < n ? lead : n, end = n - index(std::size_t(n - head) % LINE);
    // What a row has begun of a line is joined in memory, and is read from there when this row has been written: to be read
    // sooner, it would wait for all stores before it, the streamed ones, too.
    const bool shared = head && edge.waiting;
    if (head) {
        S* to = shared ? edge.line + (LINE - head) : y;
        each_vector<T>(head, [&](index i, auto lanes) ONEPASS_FLAT { store(to + i, at(i, lanes), lanes); });
    }
    if (streamed) {
        const auto put = [&](index i, Vec<T> a, Vec<T> b) ONEPASS_FLAT { stream(y + i, a, b); };
        const auto sending = [&](index i, auto lanes) ONEPASS_FLAT {
            later.at(i);
            return source(i, lanes);
        };
        index i = write_bursts<T>(head, end, sending, value, put, meanwhile);
        for (; i < end; i += WIDTH<T>) stream(y + i, at(i, All{}));
    } else {
        const auto put = [&](index i, Vec<T> a, Vec<T> b) ONEPASS_FLAT { store(y + i, a, b); };
        index i = write_bursts<T>(head, end, source, value, put, meanwhile);
        for (; i < end; i += WIDTH<T>) store(y + i, at(i, All{}));
    }
    if (shared) stream_line(y + head - LINE, edge.line);
    edge.waiting = joined && end < n;
    if (end == n) return;
    S* to = joined ? edge.line : y + end;
    each_vector<T>(n - end, [&](index i, auto lanes) ONEPASS_FLAT { store(to + i, at(end + i, lanes), lanes); });
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
