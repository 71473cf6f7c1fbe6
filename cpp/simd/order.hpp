// What keeps the order of numbers: the lesser, the greater, the least of a vector, and the choice between two.
//
// lesser and greater give their second argument where either is NaN, as x86's own instructions do. Which of -0 and +0 is
// the lesser is not said.
#pragma once

#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

#if defined(__AVX512F__)

ONEPASS_INLINE Vec<float> lesser(Vec<float> a, Vec<float> b) { return {_mm512_min_ps(a.v, b.v)}; }
ONEPASS_INLINE Vec<double> lesser(Vec<double> a, Vec<double> b) { return {_mm512_min_pd(a.v, b.v)}; }
ONEPASS_INLINE Vec<float> greater(Vec<float> a, Vec<float> b) { return {_mm512_max_ps(a.v, b.v)}; }
ONEPASS_INLINE Vec<double> greater(Vec<double> a, Vec<double> b) { return {_mm512_max_pd(a.v, b.v)}; }
ONEPASS_INLINE bool any_nan(Vec<float> a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q) != 0; }
ONEPASS_INLINE bool any_nan(Vec<double> a) { return _mm512_cmp_pd_mask(a.v, a.v, _CMP_UNORD_Q) != 0; }

#elif defined(__AVX2__)

ONEPASS_INLINE Vec<float> lesser(Vec<float> a, Vec<float> b) { return {_mm256_min_ps(a.v, b.v)}; }
ONEPASS_INLINE Vec<double> lesser(Vec<double> a, Vec<double> b) { return {_mm256_min_pd(a.v, b.v)}; }
ONEPASS_INLINE Vec<float> greater(Vec<float> a, Vec<float> b) { return {_mm256_max_ps(a.v, b.v)}; }
ONEPASS_INLINE Vec<double> greater(Vec<double> a, Vec<double> b) { return {_mm256_max_pd(a.v, b.v)}; }
ONEPASS_INLINE bool any_nan(Vec<float> a) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)) != 0; }
ONEPASS_INLINE bool any_nan(Vec<double> a) { return _mm256_movemask_pd(_mm256_cmp_pd(a.v, a.v, _CMP_UNORD_Q)) != 0; }

#elif defined(__SSE2__)

ONEPASS_INLINE Vec<float> lesser(Vec<float> a, Vec<float> b) { return {_mm_min_ps(a.v, b.v)}; }
ONEPASS_INLINE Vec<double> lesser(Vec<double> a, Vec<double> b) { return {_mm_min_pd(a.v, b.v)}; }
ONEPASS_INLINE Vec<float> greater(Vec<float> a, Vec<float> b) { return {_mm_max_ps(a.v, b.v)}; }
ONEPASS_INLINE Vec<double> greater(Vec<double> a, Vec<double> b) { return {_mm_max_pd(a.v, b.v)}; }
ONEPASS_INLINE bool any_nan(Vec<float> a) { return _mm_movemask_ps(_mm_cmpunord_ps(a.v, a.v)) != 0; }
ONEPASS_INLINE bool any_nan(Vec<double> a) { return _mm_movemask_pd(_mm_cmpunord_pd(a.v, a.v)) != 0; }

#else

template <class T>
ONEPASS_INLINE Vec<T> lesser(Vec<T> a, Vec<T> b) {
    return {a.v < b.v ? a.v : b.v};
}
template <class T>
ONEPASS_INLINE Vec<T> greater(Vec<T> a, Vec<T> b) {
    return {a.v > b.v ? a.v : b.v};
}
template <class T>
ONEPASS_INLINE bool any_nan(Vec<T> a) {
    bool any = false;
    for (int i = 0; i < WIDTH<T>; ++i) any |= a.v[i] != a.v[i];
    return any;
}

#endif

// yes in the lanes where a equals b, no in the others.
template <class T>
ONEPASS_INLINE Vec<T> where_equal(Vec<T> a, Vec<T> b, Vec<T> yes, Vec<T> no) {
    return {a.v == b.v ? yes.v : no.v};
}

// The least of the lanes, none of them NaN.
ONEPASS_INLINE float least_lane(Vec<float> a) {
    typedef float quad __attribute__((vector_size(16)));
#if defined(__AVX512F__)
    const __m256 h = _mm256_min_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const quad q = _mm_min_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
#elif defined(__AVX2__)
    const quad q = _mm_min_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
#else
    const quad q = a.v;
#endif
    const float even = q[0] < q[2] ? q[0] : q[2], odd = q[1] < q[3] ? q[1] : q[3];
    return even < odd ? even : odd;
}
ONEPASS_INLINE double least_lane(Vec<double> a) {
    typedef double pair __attribute__((vector_size(16)));
#if defined(__AVX512F__)
    const __m256d h = _mm256_min_pd(_mm512_castpd512_pd256(a.v), _mm512_extractf64x4_pd(a.v, 1));
    const pair q = _mm_min_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
#elif defined(__AVX2__)
    const pair q = _mm_min_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
#else
    const pair q = a.v;
#endif
    return q[0] < q[1] ? q[0] : q[1];
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
