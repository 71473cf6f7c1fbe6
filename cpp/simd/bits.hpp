// 16 bits of each lane in memory: the first n of them, where n may be more than there are lanes, or none.
//
// Invariant: nothing beside them is read or written.
#pragma once

#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int HALVES = NATIVE / 2;   // bytes of a vector's lanes in memory
typedef std::uint16_t Bits16 __attribute__((vector_size(HALVES)));
typedef std::uint16_t Loose16 __attribute__((vector_size(HALVES), aligned(2), may_alias));

#if defined(__AVX512F__)
ONEPASS_INLINE Bits16 load_bits(const void* p, index n) { return (Bits16)_mm256_maskz_loadu_epi16(lanes16(n), p); }
ONEPASS_INLINE void store_bits(void* p, Bits16 bits, index n) { _mm256_mask_storeu_epi16(p, lanes16(n), (__m256i)bits); }
#else
// (In general registers: lanes that are put together in memory keep their reader waiting for the stores.) The lowest n, of
// one to three, in a word: the first, the middle and the last one, whichever of them are the same.
ONEPASS_INLINE std::uint64_t load_few(const std::uint16_t* p, index n) {
    const index middle = n / 2, last = n - 1;
    return p[0] | std::uint64_t(p[middle]) << 16 * middle | std::uint64_t(p[last]) << 16 * last;
}
ONEPASS_INLINE void store_few(std::uint16_t* p, std::uint64_t word, index n) {
    const index middle = n / 2, last = n - 1;
    p[0] = std::uint16_t(word);
    p[middle] = std::uint16_t(word >> 16 * middle);
    p[last] = std::uint16_t(word >> 16 * last);
}
ONEPASS_INLINE std::uint64_t load_four(const std::uint16_t* p) {
    std::uint64_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return word;
}
ONEPASS_INLINE void store_four(std::uint16_t* p, std::uint64_t word) { __builtin_memcpy(p, &word, sizeof word); }
#if defined(__AVX2__)
// Of more than four, the last four overlap the first ones.
ONEPASS_INLINE Bits16 load_bits(const void* from, index n) {
    const std::uint16_t* p = static_cast<const std::uint16_t*>(from);
    if (n >= 8) return (Bits16)_mm_loadu_si128(static_cast<const __m128i*>(from));
    std::uint64_t lower = 0, upper = 0;
    if (n >= 4) {
        lower = load_four(p);
        upper = n > 4 ? load_four(p + n - 4) >> 16 * (8 - n) : 0;
    } else if (n > 0) {
        lower = load_few(p, n);
    }
    return (Bits16)_mm_set_epi64x((long long)upper, (long long)lower);
}
ONEPASS_INLINE void store_bits(void* to, Bits16 bits, index n) {
    std::uint16_t* p = static_cast<std::uint16_t*>(to);
    if (n >= 8) return _mm_storeu_si128(static_cast<__m128i*>(to), (__m128i)bits);
    const std::uint64_t lower = std::uint64_t(_mm_cvtsi128_si64((__m128i)bits));
    if (n >= 4) {
        const std::uint64_t upper = std::uint64_t(_mm_extract_epi64((__m128i)bits, 1));
        store_four(p, lower);
        if (n > 4) store_four(p + n - 4, lower >> 16 * (n - 4) | upper << 16 * (8 - n));
    } else if (n > 0) {
        store_few(p, lower, n);
    }
}
#else
ONEPASS_INLINE Bits16 load_bits(const void* from, index n) {
    const std::uint16_t* p = static_cast<const std::uint16_t*>(from);
    const std::uint64_t word = n >= 4 ? load_four(p) : n > 0 ? load_few(p, n) : 0;
    Bits16 bits;
    __builtin_memcpy(&bits, &word, sizeof bits);
    return bits;
}
ONEPASS_INLINE void store_bits(void* to, Bits16 bits, index n) {
    std::uint16_t* p = static_cast<std::uint16_t*>(to);
    std::uint64_t word;
    __builtin_memcpy(&word, &bits, sizeof word);
    if (n >= 4)
        store_four(p, word);
    else if (n > 0)
        store_few(p, word, n);
}
#endif
#endif

}   // namespace
}   // namespace onepass::ONEPASS_ISA
