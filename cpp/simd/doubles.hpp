// Elements of any type as doubles, and which lanes of doubles count.
#pragma once

#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// The first lanes of a, of which there are twice as many.
ONEPASS_INLINE Vec<double> doubles(Vec<float> a) {
#if defined(__AVX512F__)
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(a.v))};
#elif defined(__AVX2__)
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(a.v))};
#elif defined(__SSE2__)
    return {_mm_cvtps_pd(a.v)};
#else
    return {vcvt_f64_f32(vget_low_f32((float32x4_t)a.v))};
#endif
}

ONEPASS_INLINE Vec<double> load_doubles(const double* p, All) { return load(p); }
ONEPASS_INLINE Vec<double> load_doubles(const double* p, First lanes) { return load(p, lanes); }
ONEPASS_INLINE Vec<double> load_doubles(const float* p, All) {
#if defined(__AVX512F__)   // (GCC 12 makes four instructions of a vector's conversion.)
    return {_mm512_cvtps_pd(_mm256_loadu_ps(p))};
#elif defined(__AVX2__)
    return {_mm256_cvtps_pd(_mm_loadu_ps(p))};
#else
    return {Native<double>::type{p[0], p[1]}};
#endif
}
template <class Narrow>
ONEPASS_INLINE Vec<double> load_doubles(const Narrow* p, First lanes) {
    return doubles(load(p, lanes));
}
// (Its number is a constant here, so that half a vector is one load.)
template <class Half>
ONEPASS_INLINE Vec<double> load_doubles(const Half* p, All) {
    return load_doubles(p, First{WIDTH<double>});
}

#if defined(__AVX512F__)

typedef __mmask8 Valid;

ONEPASS_INLINE Vec<double> where(Valid valid, Vec<double> a) { return {_mm512_maskz_mov_pd(valid, a.v)}; }
ONEPASS_INLINE Valid both(Valid a, Valid b) { return Valid(a & b); }
ONEPASS_INLINE Valid either(Valid a, Valid b) { return Valid(a | b); }
ONEPASS_INLINE Valid above_zero(Vec<double> a) { return _mm512_cmp_pd_mask(a.v, _mm512_setzero_pd(), _CMP_GT_OQ); }
ONEPASS_INLINE Valid not_zero(Vec<double> a) { return _mm512_cmp_pd_mask(a.v, _mm512_setzero_pd(), _CMP_NEQ_UQ); }
ONEPASS_INLINE Valid not_nan(Vec<double> a) { return _mm512_cmp_pd_mask(a.v, a.v, _CMP_ORD_Q); }
ONEPASS_INLINE Valid all_or_none(bool valid, All) { return Valid(-int(valid)); }
ONEPASS_INLINE Valid all_or_none(bool valid, First lanes) { return Valid(-int(valid) & lanes8(lanes.n)); }
ONEPASS_INLINE Valid none_of(All) { return 0; }   // the lanes that there are not
ONEPASS_INLINE Valid none_of(First lanes) { return Valid(~lanes8(lanes.n)); }
ONEPASS_INLINE bool all(Valid valid) { return valid == 0xff; }
ONEPASS_INLINE Vec<double> choose(Valid valid, Vec<double> a, Vec<double> b) {
    return {_mm512_mask_mov_pd(b.v, valid, a.v)};
}
ONEPASS_INLINE Valid load_valid(const std::uint8_t* p, All) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return Valid(_mm_test_epi8_mask(bytes, bytes));
}
ONEPASS_INLINE Valid load_valid(const std::uint8_t* p, First lanes) {
    const __m128i bytes = _mm_maskz_loadu_epi8(lanes8(lanes.n), p);
    return Valid(_mm_test_epi8_mask(bytes, bytes));
}

#else

typedef Native<double>::mask Valid;

ONEPASS_INLINE Vec<double> where(Valid valid, Vec<double> a) { return {(Native<double>::type)((Valid)a.v & valid)}; }
ONEPASS_INLINE Valid both(Valid a, Valid b) { return a & b; }
ONEPASS_INLINE Valid either(Valid a, Valid b) { return a | b; }
#if defined(__AVX2__)
ONEPASS_INLINE Valid above_zero(Vec<double> a) { return (Valid)_mm256_cmp_pd(a.v, _mm256_setzero_pd(), _CMP_GT_OQ); }
ONEPASS_INLINE Valid not_zero(Vec<double> a) { return (Valid)_mm256_cmp_pd(a.v, _mm256_setzero_pd(), _CMP_NEQ_UQ); }
ONEPASS_INLINE Valid not_nan(Vec<double> a) { return (Valid)_mm256_cmp_pd(a.v, a.v, _CMP_ORD_Q); }
#elif defined(__SSE2__)   // (GCC 12 fails on such comparisons of vector types.)
ONEPASS_INLINE Valid above_zero(Vec<double> a) { return (Valid)_mm_cmpgt_pd(a.v, _mm_setzero_pd()); }
ONEPASS_INLINE Valid not_zero(Vec<double> a) { return (Valid)_mm_cmpneq_pd(a.v, _mm_setzero_pd()); }
ONEPASS_INLINE Valid not_nan(Vec<double> a) { return (Valid)_mm_cmpord_pd(a.v, a.v); }
#else
ONEPASS_INLINE Valid above_zero(Vec<double> a) { return (Valid)(a.v > Native<double>::type{}); }
ONEPASS_INLINE Valid not_zero(Vec<double> a) { return (Valid)(a.v != Native<double>::type{}); }
ONEPASS_INLINE Valid not_nan(Vec<double> a) { return (Valid)(a.v == a.v); }
#endif
ONEPASS_INLINE Valid all_or_none(bool valid, All) { return Valid{} - std::int64_t(valid); }
ONEPASS_INLINE Valid all_or_none(bool valid, First lanes) {
    return all_or_none(valid, All{}) & first_lanes<double>(lanes.n);
}
ONEPASS_INLINE Valid none_of(All) { return Valid{}; }   // the lanes that there are not
ONEPASS_INLINE Valid none_of(First lanes) { return ~first_lanes<double>(lanes.n); }
ONEPASS_INLINE bool all(Valid valid) {
#if defined(__AVX2__)
    return _mm256_movemask_pd((__m256d)valid) == 0xf;
#elif defined(__SSE2__)
    return _mm_movemask_pd((__m128d)valid) == 3;
#else
    return (valid[0] & valid[1]) != 0;
#endif
}
ONEPASS_INLINE Vec<double> choose(Valid valid, Vec<double> a, Vec<double> b) {
    return {(Native<double>::type)(((Valid)a.v & valid) | ((Valid)b.v & ~valid))};
}
ONEPASS_INLINE Valid load_valid(const std::uint8_t* p, All) {
#if defined(__AVX2__)
    std::int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return (Valid)_mm256_cmpgt_epi64(_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes)), _mm256_setzero_si256());
#else
    return Valid{-std::int64_t(p[0] != 0), -std::int64_t(p[1] != 0)};
#endif
}
ONEPASS_INLINE Valid load_valid(const std::uint8_t* p, First lanes) {
    if (lanes.n >= WIDTH<double>) return load_valid(p, All{});
    Valid valid = {};
    for (int i = 0; i < WIDTH<double>; ++i)
        if (i < lanes.n) valid[i] = -std::int64_t(p[i] != 0);
    return valid;
}

#endif

// How many of eight count, lane by lane.
ONEPASS_INLINE Vec<double> count8(const Valid (&valid)[8]) {
#if defined(__AVX512F__)
    Vec<double> ones[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) ones[i] = where(valid[i], splat(1.0));
    return sum8(ones);
#else
    // 2^52 and an integer, as a double, end with the integer's bits.
    Valid negative = valid[0];
#pragma GCC unroll 8
    for (int i = 1; i < 8; ++i) negative += valid[i];
    const Valid bits = 0x4330000000000000 - negative;
    return {(Native<double>::type)bits - 0x1p52};
#endif
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
