// The moments of one contiguous row in one read.
//
// Everything is taken from a pivot near the mean, where the difference is exact. A chunk of eight packs is held in
// registers: the mean of each lane, then the squares about that mean. Chunks are joined about the pivot, and a block
// corrected once,
//
//   M2 = sum(M2_c) + sum(n_c mean_c^2) - n mean^2,
//
// which is Chan's formula for many parts (Chan, Golub & LeVeque 1979) on shifted data (their survey of 1983); where the
// pivot lies too far from the mean for that, the block is taken again. Blocks are joined in a binary tree.
// Invariant: which elements meet in which order depends on the length of the row alone.
#pragma once

#include "kernels/moments.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;     // packs
constexpr int BLOCK = 32;    // chunks: 16 KiB, half of a first-level cache
constexpr int LEVELS = 48;   // of the tree of blocks

// Reciprocals of how many elements a lane of the tail holds.
template <class T>
constexpr T INVERSE[CHUNK + 1] = {0, 1, T(1) / 2, T(1) / 3, T(1) / 4, T(1) / 5, T(1) / 6, T(1) / 7, T(1) / 8};

template <class T, bool RANGED>
struct Shift {
    T pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x) const {
        if constexpr (RANGED) return (x * splat(before) - splat(pivot)) * splat(after);
        return x - splat(pivot);
    }
};

// Where the elements of a row come from: memory, or the sum of two rows, rounded as it would be in memory.
template <class S>
struct Plain {
    const S* x;
    template <class Lanes>
    ONEPASS_INLINE Vec<Arith<S>> at(index i, Lanes lanes) const {
        return load(x + i, lanes);
    }
    ONEPASS_INLINE Arith<S> one(index i) const { return element(x + i); }
};
template <class S>
struct Added {
    const S *x, *residual;
    template <class Lanes>
    ONEPASS_INLINE Vec<Arith<S>> at(index i, Lanes lanes) const {
        return as_stored(load(x + i, lanes) + load(residual + i, lanes), x);
    }
    ONEPASS_INLINE Arith<S> one(index i) const { return as_stored(splat(element(x + i) + element(residual + i)), x).v[0]; }
};

// What is left of a block behind its last whole chunk: fewer than eight packs, the last one perhaps in part.
template <class T>
struct Tail {
    Vec<T> count, mean, m2;
};

// Elements start..start + n, n less than a chunk. Not centered: about 0, from a pivot of 0.
template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Tail<T> tail_moments(const Source& x, index start, index n, int part, const Shift<T, RANGED>& shift) {
    const index full = n / LANES<T>, last = n % LANES<T> - part * WIDTH<T>;
    start += part * WIDTH<T>;
    const Vec<T> end = last > 0 ? keep(shift(x.at(start + full * LANES<T>, First{last})), last) : Vec<T>{};
    Vec<T> mean = {};
    if constexpr (CENTERED) {
        Vec<T> sum = end;
        for (index i = 0; i < full; ++i) sum = sum + shift(x.at(start + i * LANES<T>, All{}));
        mean = sum * blend(splat(INVERSE<T>[full + 1]), splat(INVERSE<T>[full]), last);
    }
    const Vec<T> e = keep(end - mean, last);
    Vec<T> m2 = e * e;
    for (index i = 0; i < full; ++i) {
        const Vec<T> d = shift(x.at(start + i * LANES<T>, All{})) - mean;
        m2 = m2 + d * d;
    }
    return {blend(splat(T(full + 1)), splat(T(full)), last), mean, m2};
}

template <class T>
ONEPASS_INLINE Vec<T> sum8(const Vec<T> (&d)[CHUNK]) {
    return ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
}

// The sums of a block's deviations from the pivot, and of their squares.
struct BlockSums {
    double first, second;
};

template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE BlockSums block_sums(const Source& x, index start, index n, const Shift<T, RANGED>& shift) {
    const Vec<T> one = hidden_one<T>();
    Vec<T> total[PARTS] = {}, within[PARTS] = {}, between[PARTS] = {};
    const index chunks = n / (CHUNK * LANES<T>);
    for (index c = 0; c < chunks; ++c) {
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; ++j) {
            const index at = start + c * (CHUNK * LANES<T>)+j * WIDTH<T>;
            Vec<T> d[CHUNK];
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) d[i] = shift(x.at(at + i * LANES<T>, All{}));
            if constexpr (CENTERED) {
                const Vec<T> sum = sum8(d), mean = sum * splat(T(1) / CHUNK);
                total[j] = total[j] + sum;
                between[j] = between[j] + mean * mean;
#pragma GCC unroll 8
                for (int i = 0; i < CHUNK; ++i) d[i] = minus(d[i], mean, one);
            }
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) d[i] = d[i] * d[i];
            within[j] = within[j] + sum8(d);
        }
    }
    if constexpr (CENTERED)
        for (int j = 0; j < PARTS; ++j) within[j] = within[j] + between[j] * splat(T(CHUNK));
    if (const index rest = n - chunks * (CHUNK * LANES<T>))
        for (int j = 0; j < PARTS; ++j) {
            const Tail<T> tail = tail_moments<CENTERED>(x, start + n - rest, rest, j, shift);
            total[j] = total[j] + tail.count * tail.mean;
            within[j] = within[j] + (tail.m2 + tail.count * (tail.mean * tail.mean));
        }
    return {CENTERED ? double(sum_lanes(total)) : 0.0, double(sum_lanes(within))};
}

// The same about the mean that was found.
template <class Source, class T, bool RANGED>
__attribute__((noinline)) Moments block_again(const Source x, index start, index n, const Shift<T, RANGED> shift,
                                              double mean) {
    const double pivot = double(T(shift.pivot + mean / shift.after));
    const BlockSums sums = block_sums<true>(x, start, n, Shift<T, RANGED>{T(pivot), shift.before, shift.after});
    const double low = sums.first / double(n), m2 = sums.second - sums.first * low;
    return {double(n), 0.0, (pivot - shift.pivot) * shift.after + low, m2 < 0.0 ? 0.0 : m2};
}

// The mean counts from the pivot. M2 = sum d^2 - n mean^2 of such deviations loses digits where the pivot lies far from the
// mean, so it is taken only where that is nearer than the deviation: then at most one bit.
template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Moments block_moments(const Source& x, index start, index n, const Shift<T, RANGED>& shift) {
    const double inverse = 1.0 / double(n);   // which nothing has to wait for
    const BlockSums sums = block_sums<CENTERED>(x, start, n, shift);
    if constexpr (!CENTERED) return {double(n), 0.0, 0.0, sums.second};
    const double apart = sums.first * (sums.first * inverse), m2 = sums.second - apart, mean = sums.first / double(n);
    if (__builtin_expect(apart > m2, 0)) return block_again(x, start, n, shift, mean);
    return {double(n), 0.0, mean, m2};
}

// The mean of the row's first four elements; for a constant row exactly its constant. (All the rest waits for it: a mean of
// more costs more than it brings.)
template <class T, class Source>
ONEPASS_INLINE T choose_pivot(const Source& x, index n, T before) {
    if (n < 4) return x.one(0) * before;
    return ((x.one(0) * before + x.one(1) * before) + (x.one(2) * before + x.one(3) * before)) * T(0.25);
}

template <bool RANGED, bool CENTERED, class T, class Source>
ONEPASS_INLINE Moments row_moments(const Source& x, index n, const Range& range) {
    constexpr index SIZE = index(BLOCK) * CHUNK * LANES<T>;
    const T before = T(range.before), pivot = CENTERED ? choose_pivot(x, n, before) : T(0);
    const Shift<T, RANGED> shift = {pivot, before, T(range.after)};
    // A stack of finished subtrees, as a binary counter holds its ones.
    Moments stack[LEVELS];
    int depth = 0;
    for (index start = 0, number = 1; start < n; start += SIZE, ++number) {
        const Moments m = block_moments<CENTERED>(x, start, n - start < SIZE ? n - start : SIZE, shift);
        if (n <= SIZE) return {m.count, double(pivot), m.low, m.m2};
        stack[depth++] = m;
        for (index bits = number; !(bits & 1); bits >>= 1, --depth)
            stack[depth - 2] = merge(stack[depth - 2], stack[depth - 1]);
    }
    for (; depth > 1; --depth) stack[depth - 2] = merge(stack[depth - 2], stack[depth - 1]);
    // Every block's mean counts from the pivot. The low part lies behind `after`, as finish() expects it.
    const double low = stack[0].mean + stack[0].low;
    return {double(n), double(pivot), low, stack[0].m2};
}

template <bool CENTERED, class T, class Source>
__attribute__((noinline)) Moments ranged_moments(const Source& x, index n, Range range) {
    return row_moments<true, CENTERED, T>(x, n, range);
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
