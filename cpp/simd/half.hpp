// 16-bit floats in memory, float32 in registers.
//
// Both conversions are exact one way and round to nearest even the other (IEEE 754-2008 for float16; bfloat16 is the upper
// half of a float32). float16 uses the processor's own conversion where there is one, and integer arithmetic with the same
// result where there is none; no step meets a subnormal float32, so no flush-to-zero mode of the caller's matters.
// bfloat16 is integer arithmetic everywhere: AVX512-BF16's own conversion flushes subnormals.
//
// Invariant: no NaN that is rounded to bfloat16 has anything in its lower half, so rounding leaves it alone, and needs no
// look for it. bfloat16's own have nothing there, nor have those of arithmetic, which are an operand's or have one bit
// alone; of what is given in float32, whoever calls sees to it (in_arithmetic() of the bindings).
#pragma once

#include "simd/bits.hpp"
#include "simd/types.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

typedef std::uint32_t Bits32 __attribute__((vector_size(NATIVE)));

// (GCC 12 makes five instructions of such a conversion or its reverse.)
#if defined(__AVX512F__)
ONEPASS_INLINE Bits32 longer(Bits16 bits) { return (Bits32)_mm512_cvtepu16_epi32((__m256i)bits); }
ONEPASS_INLINE Bits16 shorter(Bits32 bits) { return (Bits16)_mm512_cvtepi32_epi16((__m512i)bits); }
#elif defined(__AVX2__)
ONEPASS_INLINE Bits32 longer(Bits16 bits) { return (Bits32)_mm256_cvtepu16_epi32((__m128i)bits); }
ONEPASS_INLINE Bits16 shorter(Bits32 bits) {
    const __m256i both = _mm256_packus_epi32((__m256i)bits, (__m256i)bits);   // each half of 128 bits for itself
    return (Bits16)_mm256_castsi256_si128(_mm256_permute4x64_epi64(both, 0xd8));
}
#elif defined(__SSE2__)
ONEPASS_INLINE Bits32 longer(Bits16 bits) {
    return (Bits32)_mm_unpacklo_epi16(_mm_cvtsi64_si128((long long)bits), _mm_setzero_si128());
}
ONEPASS_INLINE Bits16 shorter(Bits32 bits) {   // (Packing saturates, as signed.)
    const __m128i lower = _mm_srai_epi32(_mm_slli_epi32((__m128i)bits, 16), 16);
    return (Bits16)_mm_cvtsi128_si64(_mm_packs_epi32(lower, lower));
}
#else
ONEPASS_INLINE Bits32 longer(Bits16 bits) { return __builtin_convertvector(bits, Bits32); }
ONEPASS_INLINE Bits16 shorter(Bits32 bits) { return __builtin_convertvector(bits, Bits16); }
#endif

#if defined(__AVX512F__)
// Each into the upper half of its lane, by one shuffle: as dear as the widening, and the shift is spared.
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const BFloat16*) {
    alignas(64) static constexpr std::uint16_t FROM[32] = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                                           0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
    const __m512i from = _mm512_load_si512(FROM), all = _mm512_castsi256_si512((__m256i)bits);
    return {(__m512)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, from, all)};
}
#elif defined(__AVX2__)
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const BFloat16*) {
    const __m256i from = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,   // -1: a zero
                                          -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return {(__m256)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256((__m128i)bits), from)};
}
#elif defined(__SSE2__)
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const BFloat16*) {
    return {(__m128)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_cvtsi64_si128((long long)bits))};
}
#else
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const BFloat16*) { return {(Native<float>::type)(longer(bits) << 16)}; }
#endif

// A bfloat16 in the upper half of each lane.
ONEPASS_INLINE Bits32 rounded(Vec<float> a) {
    const Bits32 u = (Bits32)a.v;
    return u + (0x7fff + ((u >> 16) & 1));
}
ONEPASS_INLINE Bits16 narrow(Vec<float> a, const BFloat16*) { return shorter(rounded(a) >> 16); }

#if defined(__AVX512F__)
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const Float16*) { return {_mm512_cvtph_ps((__m256i)bits)}; }
ONEPASS_INLINE Bits16 narrow(Vec<float> a, const Float16*) {
    return (Bits16)_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__F16C__)
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const Float16*) { return {_mm256_cvtph_ps((__m128i)bits)}; }
ONEPASS_INLINE Bits16 narrow(Vec<float> a, const Float16*) {
    return (Bits16)_mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__aarch64__)
ONEPASS_INLINE Vec<float> widen(Bits16 bits, const Float16*) { return {vcvt_f32_f16((float16x4_t)bits)}; }
ONEPASS_INLINE Bits16 narrow(Vec<float> a, const Float16*) { return (Bits16)vcvt_f16_f32((float32x4_t)a.v); }
#else
typedef Native<float>::mask Int;
ONEPASS_INLINE Int choose(Int mask, Int yes, Int no) { return (mask & yes) | (~mask & no); }
// Signed, for SSE2 compares nothing else; and not inlined: with their temporaries, at every load and store, they were half
// of what the compiler worked for.
inline __attribute__((noinline)) Vec<float> widen(Bits16 bits, const Float16*) {
    using Float = Native<float>::type;
    const Int h = (Int)longer(bits), rest = (h & 0x7fff) << 13, sign = (Int)((Bits32)h << 16) ^ (rest << 3);
    const Int small = (Int)(rest < (1 << 23)), large = (Int)(rest > (0x7bff << 13));
    // A subnormal's bits count up from 2^-14; infinity and NaN keep an exponent of ones.
    const Int one = Int{} + (1 << 23), rebiased = rest + 112 * one + (small & one) + (large & 112 * one);
    const Float value = (Float)rebiased - (Float)(small & 113 * one);
    return {(Float)((Int)value | sign)};
}
inline __attribute__((noinline)) Bits16 narrow(Vec<float> a, const Float16*) {
    using Float = Native<float>::type;
    const Int u = (Int)a.v, magnitude = u & 0x7fffffff, sign = u ^ magnitude;
    const Int small = magnitude < (113 << 23), large = magnitude >= 0x477ff000;   // 65520
    const Int normal = (magnitude + (((magnitude >> 13) & 1) + (0xfff - (112 << 23)))) >> 13;
    // The last place of 0.5 is float16's least subnormal, so the addition rounds to it.
    const Int half = Int{} + (126 << 23), subnormal = (Int)((Float)magnitude + (Float)half) - half;
    const Int infinite = ((magnitude > 0x7f800000) & 0x200) | 0x7c00;
    return shorter((Bits32)(choose(large, infinite, choose(small, subnormal, normal)) | (sign >> 16)));
}
#endif

// Two vectors of bfloat16 at once: one shuffle brings their upper halves together. (float16's own conversion narrows what
// it converts; two stores are quicker there than putting its results together.)
#if defined(__AVX512F__)
typedef __m512i Two16;
ONEPASS_INLINE Two16 narrow(Vec<float> a, Vec<float> b) {
    alignas(64) static constexpr std::uint16_t UPPER[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                            33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const __m512i at = _mm512_load_si512(UPPER), one = _mm512_set1_epi16(1);
    const __m512i upper = _mm512_permutex2var_epi16((__m512i)a.v, at, (__m512i)b.v);
    const __m512i lower = _mm512_permutex2var_epi16((__m512i)a.v, _mm512_sub_epi16(at, one), (__m512i)b.v);
    // lower | (upper & 1), as one instruction: above the middle, or on it and odd.
    const __m512i rest = _mm512_ternarylogic_epi32(lower, upper, one, 0xf8), middle = _mm512_set1_epi16(short(0x8000));
    return _mm512_mask_add_epi16(upper, _mm512_cmpgt_epu16_mask(rest, middle), upper, one);
}
ONEPASS_INLINE void store_two(void* p, Two16 bits) { _mm512_storeu_si512(p, bits); }
ONEPASS_INLINE void stream_two(void* p, Two16 bits) { _mm512_stream_si512(static_cast<__m512i*>(p), bits); }
#elif defined(__AVX2__)
typedef __m256i Two16;
ONEPASS_INLINE Two16 narrow(Vec<float> a, Vec<float> b) {
    const __m256i both = _mm256_packus_epi32((__m256i)(rounded(a) >> 16), (__m256i)(rounded(b) >> 16));
    return _mm256_permute4x64_epi64(both, 0xd8);   // each half of 128 bits was packed for itself
}
ONEPASS_INLINE void store_two(void* p, Two16 bits) { _mm256_storeu_si256(static_cast<__m256i*>(p), bits); }
ONEPASS_INLINE void stream_two(void* p, Two16 bits) { _mm256_stream_si256(static_cast<__m256i*>(p), bits); }
#elif defined(__SSE2__)
typedef __m128i Two16;
ONEPASS_INLINE Two16 narrow(Vec<float> a, Vec<float> b) {
    return _mm_packs_epi32(_mm_srai_epi32((__m128i)rounded(a), 16), _mm_srai_epi32((__m128i)rounded(b), 16));
}
ONEPASS_INLINE void store_two(void* p, Two16 bits) { _mm_storeu_si128(static_cast<__m128i*>(p), bits); }
ONEPASS_INLINE void stream_two(void* p, Two16 bits) { _mm_stream_si128(static_cast<__m128i*>(p), bits); }
#endif

// ---- the vocabulary of pack.hpp, for both ----

#define ONEPASS_HALF(S)                                                                                             \
    ONEPASS_INLINE Vec<float> load(const S* p) { return widen((Bits16) * reinterpret_cast<const Loose16*>(p), p); } \
    ONEPASS_INLINE void store(S* p, Vec<float> a) { *reinterpret_cast<Loose16*>(p) = (Loose16)narrow(a, p); }       \
    ONEPASS_INLINE Vec<float> load(const S* p, First lanes) { return widen(load_bits(p, lanes.n), p); }             \
    ONEPASS_INLINE void store(S* p, Vec<float> a, First lanes) { store_bits(p, narrow(a, p), lanes.n); }            \
    ONEPASS_INLINE Vec<float> load(const S* p, All) { return load(p); }                                             \
    ONEPASS_INLINE void store(S* p, Vec<float> a, All) { store(p, a); }                                             \
    ONEPASS_INLINE void stream(S* p, Vec<float> a) { stream_bits(p, narrow(a, p)); }

#if defined(__AVX512F__)
ONEPASS_INLINE void stream_bits(void* p, Bits16 bits) { _mm256_stream_si256(static_cast<__m256i*>(p), (__m256i)bits); }
#elif defined(__AVX2__)
ONEPASS_INLINE void stream_bits(void* p, Bits16 bits) { _mm_stream_si128(static_cast<__m128i*>(p), (__m128i)bits); }
#elif defined(__SSE2__)
ONEPASS_INLINE void stream_bits(void* p, Bits16 bits) {
    long long word;
    __builtin_memcpy(&word, &bits, sizeof word);
    _mm_stream_si64(static_cast<long long*>(p), word);
}
#else
ONEPASS_INLINE void stream_bits(void* p, Bits16 bits) { __builtin_memcpy(p, &bits, sizeof bits); }
#endif

// What a value becomes by being stored as an S.
ONEPASS_INLINE Vec<float> as_stored(Vec<float> a, const float*) { return a; }
ONEPASS_INLINE Vec<double> as_stored(Vec<double> a, const double*) { return a; }
ONEPASS_INLINE Vec<float> as_stored(Vec<float> a, const Float16* s) { return widen(narrow(a, s), s); }
ONEPASS_INLINE Vec<float> as_stored(Vec<float> a, const BFloat16*) {
    return {(Native<float>::type)(rounded(a) & 0xffff0000u)};
}

ONEPASS_HALF(Float16)
ONEPASS_HALF(BFloat16)
#undef ONEPASS_HALF

#if defined(__SSE2__)
ONEPASS_INLINE void store(BFloat16* p, Vec<float> a, Vec<float> b) { store_two(p, narrow(a, b)); }
ONEPASS_INLINE void stream(BFloat16* p, Vec<float> a, Vec<float> b) { stream_two(p, narrow(a, b)); }
#endif

// One element, in a register all the way: a vector that is put together in memory keeps its reader waiting for the stores.
ONEPASS_INLINE float element(const float* p) { return *p; }
ONEPASS_INLINE double element(const double* p) { return *p; }
ONEPASS_INLINE float element(const BFloat16* p) {
    const std::uint32_t bits = std::uint32_t(p->bits) << 16;
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}
ONEPASS_INLINE float element(const Float16* p) {
#if defined(__F16C__)
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(p->bits)));
#else
    Bits16 bits = {};
    bits[0] = p->bits;
    return widen(bits, p).v[0];
#endif
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
