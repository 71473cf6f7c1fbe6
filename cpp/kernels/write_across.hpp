// How a row of results is streamed line by line, while what is read and written beside it is on lines of its own.
//
// Of a row that begins elsewhere within its cache line than its parameters do, the vectors of one of both lie across lines.
// Stores across lines, while others are streamed, take several times as long. So vectors are computed where the parameters
// have them, and each two are put together to one where the result has it: the last lanes of the first, and then the first
// ones of the second. Invariant: element by element the bits are those of write.hpp.
#pragma once

#include "kernels/write.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Whether there is an instruction that moves lanes by any number of places.
constexpr bool MAY_MOVE = NATIVE > 16;

// Of two vectors, one behind the other, the one that begins `by` lanes behind the first.
template <class T>
class Moved;

#if defined(__AVX2__)

template <class T>
class Moved {
    static constexpr int WORDS = int(sizeof(T) / 4);   // 32 bits each
    typedef std::int32_t Places __attribute__((vector_size(NATIVE)));
    Places from_ = {};
#if defined(__AVX512F__)
    __mmask16 second_;
#else
    Vec<float> second_;
#endif

  public:
    ONEPASS_INLINE explicit Moved(index by) {
        for (int i = 0; i < NATIVE / 4; ++i) from_[i] = i;
        from_ += int(by) * WORDS;
#if defined(__AVX512F__)
        second_ = lanes16(by * WORDS);
#else
        second_ = {(Native<float>::type)first_lanes<float>(by * WORDS)};
#endif
    }
    ONEPASS_INLINE Vec<T> operator()(Vec<T> first, Vec<T> second) const {
        typedef typename Native<T>::type To;
#if defined(__AVX512F__)
        const __m512i lanes = _mm512_mask_blend_epi32(second_, (__m512i)first.v, (__m512i)second.v);
        return {(To)_mm512_permutexvar_epi32((__m512i)from_, lanes)};
#else
        const __m256 lanes = _mm256_blendv_ps((__m256)first.v, (__m256)second.v, second_.v);
        return {(To)_mm256_permutevar8x32_ps(lanes, (__m256i)from_)};
#endif
    }
};

#endif

// y[i] = value(source(i, lanes), i, lanes) for i in 0..n, each i once, where parameters begin `lead` elements before a
// vector of theirs, and y elsewhere; of a row of four lines at least. The rest is as write_row has it.
template <class T, class S, class Source, class Value>
ONEPASS_INLINE void stream_across(S* y, index lead, index n, const Source& source, const Value& value, bool joined,
                                  Edge<S>& edge) {
    constexpr index LINE = Edge<S>::LINE, W = WIDTH<T>, STEP = sizeof(S) == sizeof(T) ? W : 2 * W;
    const auto at = [&](index i, auto lanes) ONEPASS_FLAT { return value(source(i, lanes), i, lanes); };
    const index head = to_line(y), end = n - index(std::size_t(n - head) % LINE);
    const index by = index(std::size_t(head - lead) % W), back = W - by;
    const Moved<T> moved(by);
    const bool shared = head && edge.waiting;
    // Of what has been computed the last `back` lanes before i are not yet written: they will be at i - back.
    Vec<T> before = {};
    index i = lead;
    S* begun = shared ? edge.line + (LINE - head) : y;
    if (lead) {
        const Vec<T> first = at(0, First{lead});
        before = Moved<T>(lead)(first, first);
        if (lead > back) store(begun, first, First{lead - back});
    }
    for (; i - back < head; i += W) {
        const Vec<T> behind = at(i, All{}), both = moved(before, behind);
        before = behind;
        if (i >= back)
            store(begun + (i - back), both, All{});
        else if (i + by > 0)
            store(begun, Moved<T>(back - i)(both, both), First{i + by});
    }
    const index most = (end + back < n ? end + back : n) - STEP;
    for (; i <= most; i += STEP) {
        const Vec<T> first = at(i, All{});
        if constexpr (STEP == W) {
            stream(y + i - back, moved(before, first));
            before = first;
        } else {
            const Vec<T> second = at(i + W, All{});
            stream(y + i - back, moved(before, first), moved(first, second));
            before = second;
        }
    }
    // (The last vectors: some lanes, and then none.)
    const auto last = [&]() ONEPASS_FLAT {
        const Vec<T> behind = i < n ? at(i, First{n - i < W ? n - i : W}) : Vec<T>{}, both = moved(before, behind);
        before = behind;
        i += W;
        return both;
    };
    while (i - back < end) {
        S* to = y + i - back;
        const Vec<T> first = last();
        if constexpr (STEP == W)
            stream(to, first);
        else
            stream(to, first, last());
    }
    if (shared) stream_line(y + head - LINE, edge.line);
    edge.waiting = joined && end < n;
    S* left = joined ? edge.line - end : y;
    while (i - back < n) {
        const index from = i - back;
        store(left + from, last(), First{n - from < W ? n - from : W});
    }
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
