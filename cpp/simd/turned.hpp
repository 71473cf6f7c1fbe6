// Packs of elements that do not begin with a cache line, read line by line.
//
// The first `head` elements of such a pack are the last lanes of one line, and the others the first lanes of the next. A
// blend of both has every element once, but in a lane that lies `head` in front of its own, around the end: lanes that do
// not meet may as well be summed there, and be turned back when all is summed. So each line is loaded once, where a vector
// across two takes both, and waits for both on their way from memory. Invariant: a lane gets the elements of one lane, in
// their order.
//
// For vectors of a whole line alone: of narrower ones few lie across lines.
#pragma once

#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Whether vectors of S can be turned.
template <class S>
constexpr bool MAY_TURN = NATIVE == PACK && sizeof(S) == sizeof(Arith<S>);

template <class T>
struct Turned;

#if defined(__AVX512F__)

template <>
struct Turned<float> {
    index head;
    __mmask16 behind;   // the lanes of a pack's second line
    ONEPASS_INLINE explicit Turned(const float* row) : head(to_line(row)), behind(lanes16(LANES<float> - head)) {}
    // What is the pack's of its first line, and of its second one.
    ONEPASS_INLINE Vec<float> load_before(const float* line) const {
        return {_mm512_maskz_loadu_ps(__mmask16(~behind), line)};
    }
    ONEPASS_INLINE Vec<float> load_behind(const float* line) const { return {_mm512_maskz_loadu_ps(behind, line)}; }
    ONEPASS_INLINE Vec<float> join(Vec<float> first, Vec<float> second) const {
        return {_mm512_mask_blend_ps(behind, first.v, second.v)};
    }
    ONEPASS_INLINE Vec<float> back(Vec<float> a) const {
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return {_mm512_permutexvar_ps(_mm512_sub_epi32(lane, _mm512_set1_epi32(int(head))), a.v)};
    }
};

template <>
struct Turned<double> {
    index head;
    __mmask8 behind;
    ONEPASS_INLINE explicit Turned(const double* row) : head(to_line(row)), behind(lanes8(LANES<double> - head)) {}
    ONEPASS_INLINE Vec<double> load_before(const double* line) const {
        return {_mm512_maskz_loadu_pd(__mmask8(~behind), line)};
    }
    ONEPASS_INLINE Vec<double> load_behind(const double* line) const { return {_mm512_maskz_loadu_pd(behind, line)}; }
    ONEPASS_INLINE Vec<double> join(Vec<double> first, Vec<double> second) const {
        return {_mm512_mask_blend_pd(behind, first.v, second.v)};
    }
    ONEPASS_INLINE Vec<double> back(Vec<double> a) const {
        const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        return {_mm512_permutexvar_pd(_mm512_sub_epi64(lane, _mm512_set1_epi64(head)), a.v)};
    }
};

#endif

}   // namespace
}   // namespace onepass::ONEPASS_ISA
