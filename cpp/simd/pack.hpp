// The pack: 64 bytes of one arithmetic type, whatever the machine's vectors are.
//
// A pack is one, two or four native vectors (AVX-512, AVX2, SSE2 or NEON). Lane i of a pack always holds element i of its
// 64 bytes, and every reduction across lanes folds the upper half onto the lower until one lane is left. With the width and
// the order of additions fixed, and contraction off, every instruction set gives the same bits.
//
// Everything here has internal linkage inside a namespace named after the instruction set: an inline function that the
// linker merged across instruction sets would kill an older processor. So no STL either, and intrinsics only where the
// compilers' vector extensions cannot say it.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef ONEPASS_ISA
#error "ONEPASS_ISA names the instruction set this unit is compiled for; CMakeLists.txt sets it"
#endif

#ifndef ONEPASS_INLINE   // (tests/test_symbols.py looks at functions that are not inlined)
#define ONEPASS_INLINE inline __attribute__((always_inline))
// Behind a lambda's parameters: one that is not inlined keeps what it captures in memory, where every store may change it.
#define ONEPASS_FLAT __attribute__((always_inline))
#endif

namespace onepass::ONEPASS_ISA {
namespace {

using index = std::ptrdiff_t;

#if defined(__AVX512F__)
constexpr int NATIVE = 64;
#elif defined(__AVX2__)
constexpr int NATIVE = 32;
#else
constexpr int NATIVE = 16;
#endif

constexpr int PACK = 64;               // bytes
constexpr int PARTS = PACK / NATIVE;   // native vectors in a pack
template <class T>
constexpr int WIDTH = NATIVE / int(sizeof(T));   // lanes of a native vector
template <class T>
constexpr int LANES = PACK / int(sizeof(T));   // lanes of a pack

template <class T>
struct Native;
template <>
struct Native<float> {
    typedef float type __attribute__((vector_size(NATIVE)));
    typedef float loose __attribute__((vector_size(NATIVE), aligned(4), may_alias));
    typedef std::int32_t mask __attribute__((vector_size(NATIVE)));
    typedef std::int32_t lane;
};
template <>
struct Native<double> {
    typedef double type __attribute__((vector_size(NATIVE)));
    typedef double loose __attribute__((vector_size(NATIVE), aligned(8), may_alias));
    typedef std::int64_t mask __attribute__((vector_size(NATIVE)));
    typedef std::int64_t lane;
};

// A vector of some bytes. A struct, because a bare vector type loses its attributes as a template argument.
template <class T, int BYTES>
struct Vector {
    typedef T type __attribute__((vector_size(BYTES)));
    type v;
};
template <class T>
using Vec = Vector<T, NATIVE>;

template <class T, int BYTES>
ONEPASS_INLINE Vector<T, BYTES> operator+(Vector<T, BYTES> a, Vector<T, BYTES> b) {
    return {a.v + b.v};
}
template <class T, int BYTES>
ONEPASS_INLINE Vector<T, BYTES> operator-(Vector<T, BYTES> a, Vector<T, BYTES> b) {
    return {a.v - b.v};
}
template <class T, int BYTES>
ONEPASS_INLINE Vector<T, BYTES> operator*(Vector<T, BYTES> a, Vector<T, BYTES> b) {
    return {a.v * b.v};
}
template <class T, int BYTES>
ONEPASS_INLINE Vector<T, BYTES> operator*(Vector<T, BYTES> a, T b) {
    return {a.v * b};
}

template <class T>
ONEPASS_INLINE Vec<T> load(const T* p) {
    return {*reinterpret_cast<const typename Native<T>::loose*>(p)};
}
template <class T>
ONEPASS_INLINE void store(T* p, Vec<T> a) {
    *reinterpret_cast<typename Native<T>::loose*>(p) = a.v;
}

// Which lanes a load or store touches: all of them, or the first n. Kernels written over either need no second text for
// the end of a row.
struct All {};
struct First {
    index n;
};
// Whether the first lanes are loaded and stored by single instructions.
constexpr bool WITH_MASKS = NATIVE > 16;

// All ones in the first n lanes, zero in the rest; n may lie outside 0..WIDTH.
template <class T>
ONEPASS_INLINE typename Native<T>::mask first_lanes(index n) {
    typename Native<T>::mask iota = {};
    for (int i = 0; i < WIDTH<T>; ++i) iota[i] = i;
    const auto bound = static_cast<typename Native<T>::lane>(n < 0 ? 0 : n > WIDTH<T> ? WIDTH<T> : n);
    return iota < bound;
}

// The first n lanes of a, zeros in the rest.
template <class T>
ONEPASS_INLINE Vec<T> keep(Vec<T> a, index n) {
    using Mask = typename Native<T>::mask;
    return {(typename Native<T>::type)((Mask)a.v & first_lanes<T>(n))};
}

// a in the first n lanes, b in the rest.
template <class T>
ONEPASS_INLINE Vec<T> blend(Vec<T> a, Vec<T> b, index n) {
    using Mask = typename Native<T>::mask;
    const Mask m = first_lanes<T>(n);
    return {(typename Native<T>::type)(((Mask)a.v & m) | ((Mask)b.v & ~m))};
}

#if defined(__AVX512F__)

ONEPASS_INLINE Vec<float> splat(float x) { return {_mm512_set1_ps(x)}; }
ONEPASS_INLINE Vec<double> splat(double x) { return {_mm512_set1_pd(x)}; }
ONEPASS_INLINE void stream(float* p, Vec<float> a) { _mm512_stream_ps(p, a.v); }
ONEPASS_INLINE void stream(double* p, Vec<double> a) { _mm512_stream_pd(p, a.v); }
ONEPASS_INLINE __mmask16 lanes16(index n) { return n >= 16 ? 0xffff : __mmask16((1u << (n < 0 ? 0 : n)) - 1u); }
ONEPASS_INLINE __mmask8 lanes8(index n) { return n >= 8 ? 0xff : __mmask8((1u << (n < 0 ? 0 : n)) - 1u); }
ONEPASS_INLINE Vec<float> load(const float* p, First lanes) { return {_mm512_maskz_loadu_ps(lanes16(lanes.n), p)}; }
ONEPASS_INLINE Vec<double> load(const double* p, First lanes) { return {_mm512_maskz_loadu_pd(lanes8(lanes.n), p)}; }
ONEPASS_INLINE Vec<float> load_halves(const float* p) {
    return {_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(p)), _mm256_loadu_ps(p + 8), 1)};
}
ONEPASS_INLINE Vec<double> load_halves(const double* p) {
    return {_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(p)), _mm256_loadu_pd(p + 4), 1)};
}
ONEPASS_INLINE void store(float* p, Vec<float> a, First lanes) { _mm512_mask_storeu_ps(p, lanes16(lanes.n), a.v); }
ONEPASS_INLINE void store(double* p, Vec<double> a, First lanes) { _mm512_mask_storeu_pd(p, lanes8(lanes.n), a.v); }

#elif defined(__AVX2__)

ONEPASS_INLINE Vec<float> splat(float x) { return {_mm256_set1_ps(x)}; }
ONEPASS_INLINE Vec<double> splat(double x) { return {_mm256_set1_pd(x)}; }
ONEPASS_INLINE void stream(float* p, Vec<float> a) { _mm256_stream_ps(p, a.v); }
ONEPASS_INLINE void stream(double* p, Vec<double> a) { _mm256_stream_pd(p, a.v); }
ONEPASS_INLINE Vec<float> load(const float* p, First lanes) {
    return {_mm256_maskload_ps(p, (__m256i)first_lanes<float>(lanes.n))};
}
ONEPASS_INLINE Vec<double> load(const double* p, First lanes) {
    return {_mm256_maskload_pd(p, (__m256i)first_lanes<double>(lanes.n))};
}
// (AMD's processors take 12 cycles for a store with a mask.) The last four of more than four overlap the first; and of up
// to three the first, the middle and the last are stored, whichever of them are the same.
ONEPASS_INLINE __m256 from_lane(__m256 a, index lane) {
    return _mm256_permutevar8x32_ps(
        a, _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(int(lane))));
}
ONEPASS_INLINE void store(float* p, Vec<float> a, First lanes) {
    const index n = lanes.n;
    const __m128 lower = _mm256_castps256_ps128(a.v);
    if (n >= 8) {
        store(p, a);
    } else if (n >= 4) {
        _mm_storeu_ps(p, lower);
        _mm_storeu_ps(p + n - 4, _mm256_castps256_ps128(from_lane(a.v, n - 4)));
    } else if (n > 0) {
        p[0] = _mm_cvtss_f32(lower);
        p[n / 2] = _mm256_cvtss_f32(from_lane(a.v, n / 2));
        p[n - 1] = _mm256_cvtss_f32(from_lane(a.v, n - 1));
    }
}
ONEPASS_INLINE void store(double* p, Vec<double> a, First lanes) {
    const index n = lanes.n;
    if (n >= 4) {
        store(p, a);
    } else if (n > 0) {
        const __m256 words = _mm256_castpd_ps(a.v);
        p[0] = _mm256_cvtsd_f64(a.v);
        p[n / 2] = _mm256_cvtsd_f64(_mm256_castps_pd(from_lane(words, n / 2 * 2)));
        p[n - 1] = _mm256_cvtsd_f64(_mm256_castps_pd(from_lane(words, (n - 1) * 2)));
    }
}

#else   // 128 bits: SSE2, NEON

ONEPASS_INLINE Vec<float> splat(float x) { return {Native<float>::type{x, x, x, x}}; }
ONEPASS_INLINE Vec<double> splat(double x) { return {Native<double>::type{x, x}}; }
#if defined(__SSE2__)
ONEPASS_INLINE void stream(float* p, Vec<float> a) { _mm_stream_ps(p, a.v); }
ONEPASS_INLINE void stream(double* p, Vec<double> a) { _mm_stream_pd(p, a.v); }
#else
template <class T>
ONEPASS_INLINE void stream(T* p, Vec<T> a) {
    store(p, a);
}
#endif
ONEPASS_INLINE Vec<float> load(const float* p, First lanes) {
    const index n = lanes.n;
    if (n >= 4) return load(p);
    return {Native<float>::type{n > 0 ? p[0] : 0.0F, n > 1 ? p[1] : 0.0F, n > 2 ? p[2] : 0.0F, 0.0F}};
}
ONEPASS_INLINE Vec<double> load(const double* p, First lanes) {
    return {Native<double>::type{lanes.n > 0 ? p[0] : 0.0, lanes.n > 1 ? p[1] : 0.0}};
}
template <class T>
ONEPASS_INLINE void store(T* p, Vec<T> a, First lanes) {
    for (index i = 0; i < WIDTH<T>; ++i)
        if (i < lanes.n) p[i] = a.v[i];
}

#endif

template <class T>
ONEPASS_INLINE Vec<T> load(const T* p, All) {
    return load(p);
}
template <class T>
ONEPASS_INLINE void store(T* p, Vec<T> a, All) {
    store(p, a);
}

// ACROSS: from the end of one cache line and the beginning of the next, while stores are streamed. In one piece of 64 bytes
// that takes three times as long as in halves.
template <bool ACROSS, class T>
ONEPASS_INLINE Vec<T> load(const T* p, All) {
#if defined(__AVX512F__)
    if constexpr (ACROSS) return load_halves(p);
#endif
    return load(p);
}
template <bool ACROSS, class T>
ONEPASS_INLINE Vec<T> load(const T* p, First lanes) {
    return load(p, lanes);
}

// Two vectors, one behind the other; some types have a better way (half.hpp).
template <class S, class T>
ONEPASS_INLINE void store(S* p, Vec<T> a, Vec<T> b) {
    store(p, a);
    store(p + WIDTH<T>, b);
}
template <class S, class T>
ONEPASS_INLINE void stream(S* p, Vec<T> a, Vec<T> b) {
    stream(p, a);
    stream(p + WIDTH<T>, b);
}

// f(i, lanes) for each native vector of 0..n.
template <class T, class F>
ONEPASS_INLINE void each_vector(index n, const F& f) {
    index i = 0;
    for (; i + WIDTH<T> <= n; i += WIDTH<T>) f(i, All{});
    if (i < n) f(i, First{n - i});
}

// How many elements lie before the first cache line that begins behind p.
template <class S>
ONEPASS_INLINE index to_line(const S* p) {
    return index((0 - reinterpret_cast<std::uintptr_t>(p)) % PACK) / index(sizeof(S));
}

// The same with the first `head` elements apart, so that what follows them lies on whole lines.
template <class T, class F>
ONEPASS_INLINE void each_vector(index head, index n, const F& f) {
    index i = 0;
    for (const index end = head < n ? head : n; i < end; i += WIDTH<T>) f(i, First{end - i});
    i = head < n ? head : n;
    for (; i + WIDTH<T> <= n; i += WIDTH<T>) f(i, All{});
    if (i < n) f(i, First{n - i});
}

// a - b on the multipliers, where the machine has fused ones: a * 1 - b rounds once, so its bits are those of a - b.
// Kernels that add more than they multiply use it to keep both kinds of unit busy. The 1 is hidden from the compiler, which
// would see through it.
template <class T>
ONEPASS_INLINE Vec<T> hidden_one() {
    Vec<T> one = splat(T(1));
#if defined(__FMA__)
    __asm__("" : "+v"(one.v));
#endif
    return one;
}
#if defined(__AVX512F__)
ONEPASS_INLINE Vec<float> minus(Vec<float> a, Vec<float> b, Vec<float> one) { return {_mm512_fmsub_ps(a.v, one.v, b.v)}; }
ONEPASS_INLINE Vec<double> minus(Vec<double> a, Vec<double> b, Vec<double> one) {
    return {_mm512_fmsub_pd(a.v, one.v, b.v)};
}
#elif defined(__FMA__)
ONEPASS_INLINE Vec<float> minus(Vec<float> a, Vec<float> b, Vec<float> one) { return {_mm256_fmsub_ps(a.v, one.v, b.v)}; }
ONEPASS_INLINE Vec<double> minus(Vec<double> a, Vec<double> b, Vec<double> one) {
    return {_mm256_fmsub_pd(a.v, one.v, b.v)};
}
#else
template <class T>
ONEPASS_INLINE Vec<T> minus(Vec<T> a, Vec<T> b, Vec<T>) {
    return a - b;
}
#endif

// a in a register of its own: compilers rather load a value again for each use, which is twice as dear across cache lines.
template <class T>
ONEPASS_INLINE Vec<T> held(Vec<T> a) {
#if defined(__x86_64__)
    __asm__("" : "+v"(a.v));
#endif
    return a;
}

// Non-temporal stores are weakly ordered: fence before another thread may look.
ONEPASS_INLINE void stream_fence() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

#if defined(__AVX512F__)
ONEPASS_INLINE Vector<float, 32> lower(Vector<float, 64> a) { return {_mm512_castps512_ps256(a.v)}; }
ONEPASS_INLINE Vector<float, 32> upper(Vector<float, 64> a) { return {_mm512_extractf32x8_ps(a.v, 1)}; }
ONEPASS_INLINE Vector<double, 32> lower(Vector<double, 64> a) { return {_mm512_castpd512_pd256(a.v)}; }
ONEPASS_INLINE Vector<double, 32> upper(Vector<double, 64> a) { return {_mm512_extractf64x4_pd(a.v, 1)}; }
#endif
#if defined(__AVX2__)
ONEPASS_INLINE Vector<float, 16> lower(Vector<float, 32> a) { return {_mm256_castps256_ps128(a.v)}; }
ONEPASS_INLINE Vector<float, 16> upper(Vector<float, 32> a) { return {_mm256_extractf128_ps(a.v, 1)}; }
ONEPASS_INLINE Vector<double, 16> lower(Vector<double, 32> a) { return {_mm256_castpd256_pd128(a.v)}; }
ONEPASS_INLINE Vector<double, 16> upper(Vector<double, 32> a) { return {_mm256_extractf128_pd(a.v, 1)}; }
#endif
ONEPASS_INLINE Vector<float, 16> swapped(Vector<float, 16> a) {
    return {Vector<float, 16>::type{a.v[2], a.v[3], a.v[0], a.v[1]}};
}
template <class T>
ONEPASS_INLINE T lane(Vector<T, 16> a, int i) {
    return a.v[i];
}

template <class T>
ONEPASS_INLINE Vec<T> sum8(const Vec<T> (&d)[8]) {
    return ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
}

// The lanes of a pack joined into one: the upper half onto the lower, and again. join(a, b, how often it was done) is told
// whole vectors, or anything that has halves as they do.
template <class T, class Pack, class Join>
ONEPASS_INLINE auto fold(const Pack (&a)[PARTS], const Join& join) {
#if defined(__AVX512F__)
    const auto half = join(lower(a[0]), upper(a[0]), 0);
    const auto four = join(lower(half), upper(half), 1);
#elif defined(__AVX2__)
    const auto half = join(a[0], a[1], 0);
    const auto four = join(lower(half), upper(half), 1);
#else
    const auto four = join(join(a[0], a[2], 0), join(a[1], a[3], 0), 1);
#endif
    if constexpr (sizeof(T) == 8) {
        return join(lane(four, 0), lane(four, 1), 2);
    } else {
        const auto two = join(four, swapped(four), 2);
        return join(lane(two, 0), lane(two, 1), 3);
    }
}

// Lanes that are added, of whatever kind, as fold() joins them.
struct Plus {
    template <class V>
    ONEPASS_INLINE V operator()(const V& a, const V& b, int) const {
        return a + b;
    }
};
template <class T>
ONEPASS_INLINE T sum_lanes(const Vec<T> (&a)[PARTS]) {
    return fold<T>(a, Plus());
}

// The sum of n columns, whole packs of them; value(i) are those from i on.
template <class T, class F>
ONEPASS_INLINE T sum_columns(index n, const F& value) {
    Vec<T> sum[PARTS] = {};
    for (index pack = 0; pack < n; pack += LANES<T>)
        for (int j = 0; j < PARTS; ++j) sum[j] = sum[j] + value(pack + j * WIDTH<T>);
    return sum_lanes(sum);
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
