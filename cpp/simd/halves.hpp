// Rows side by side in vectors: the halves of each, for reductions that fold several rows at once.
//
// A vector that holds OF_EACH lanes of every row in it gives, with another one, the lower halves of its rows and of the
// other's, and the upper ones; so folding OF_EACH vectors by halves ends with one that has a lane of each row. Shuffles
// within 16 bytes are the cheap ones, so rows come out in an order of their own: row i of WIDTH is the vector `beside(i)`.
#pragma once

#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int SIDE = WIDTH<float>;   // rows that end in one vector

ONEPASS_INLINE constexpr int beside(int i) { return i % 4 * (WIDTH<float> / 4) + i / 4; }

#if defined(__AVX512F__)
template <int OF_EACH>
ONEPASS_INLINE Vec<float> lower_halves(Vec<float> a, Vec<float> b) {
    if constexpr (OF_EACH >= 8) return {_mm512_shuffle_f32x4(a.v, b.v, OF_EACH == 16 ? 0x44 : 0x88)};
    return {_mm512_shuffle_ps(a.v, b.v, OF_EACH == 4 ? 0x44 : 0x88)};
}
template <int OF_EACH>
ONEPASS_INLINE Vec<float> upper_halves(Vec<float> a, Vec<float> b) {
    if constexpr (OF_EACH >= 8) return {_mm512_shuffle_f32x4(a.v, b.v, OF_EACH == 16 ? 0xee : 0xdd)};
    return {_mm512_shuffle_ps(a.v, b.v, OF_EACH == 4 ? 0xee : 0xdd)};
}
#elif defined(__AVX2__)
template <int OF_EACH>
ONEPASS_INLINE Vec<float> lower_halves(Vec<float> a, Vec<float> b) {
    if constexpr (OF_EACH == 8) return {_mm256_permute2f128_ps(a.v, b.v, 0x20)};
    return {_mm256_shuffle_ps(a.v, b.v, OF_EACH == 4 ? 0x44 : 0x88)};
}
template <int OF_EACH>
ONEPASS_INLINE Vec<float> upper_halves(Vec<float> a, Vec<float> b) {
    if constexpr (OF_EACH == 8) return {_mm256_permute2f128_ps(a.v, b.v, 0x31)};
    return {_mm256_shuffle_ps(a.v, b.v, OF_EACH == 4 ? 0xee : 0xdd)};
}
#else
template <int OF_EACH>
ONEPASS_INLINE Vec<float> lower_halves(Vec<float> a, Vec<float> b) {
    if constexpr (OF_EACH == 4) return {Native<float>::type{a.v[0], a.v[1], b.v[0], b.v[1]}};
    return {Native<float>::type{a.v[0], a.v[2], b.v[0], b.v[2]}};
}
template <int OF_EACH>
ONEPASS_INLINE Vec<float> upper_halves(Vec<float> a, Vec<float> b) {
    if constexpr (OF_EACH == 4) return {Native<float>::type{a.v[2], a.v[3], b.v[2], b.v[3]}};
    return {Native<float>::type{a.v[1], a.v[3], b.v[1], b.v[3]}};
}
#endif

// What fold() does with one row's pack, of WIDTH rows at once: their parts are joined, and then vectors of OF_EACH lanes of
// every row in them, until that is one lane.
template <class V, class Join>
ONEPASS_INLINE V fold_parts(const V (&a)[PARTS], const Join& join) {
    if constexpr (PARTS == 1) return a[0];
    if constexpr (PARTS == 2) return join(a[0], a[1], 0);
    if constexpr (PARTS == 4) return join(join(a[0], a[2], 0), join(a[1], a[3], 0), 1);
}
template <class V, int OF_EACH, class Join>
ONEPASS_INLINE V fold_beside(const V (&rows)[OF_EACH], const Join& join) {
    if constexpr (OF_EACH == 1) {
        return rows[0];
    } else {
        constexpr int LEVEL = OF_EACH == 16 ? 0 : OF_EACH == 8 ? 1 : OF_EACH == 4 ? 2 : 3;
        V joined[OF_EACH / 2];
#pragma GCC unroll 8
        for (int i = 0; i < OF_EACH / 2; ++i)
            joined[i] = join(lower_halves<OF_EACH>(rows[2 * i], rows[2 * i + 1]),
                             upper_halves<OF_EACH>(rows[2 * i], rows[2 * i + 1]), LEVEL);
        return fold_beside(joined, join);
    }
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
