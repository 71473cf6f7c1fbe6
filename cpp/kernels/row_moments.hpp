// The moments of one contiguous row in one read.
//
//   M2 = M2_a + M2_b + delta^2 n_a n_b / (n_a + n_b),   delta = mean_a - mean_b
//
// Chan, Golub & LeVeque (1979), at every joint: each lane joins its chunks of eight packs, held in registers, to what it
// has; then lanes are joined pairwise, and blocks in a binary tree. Everything counts from a pivot near the mean, where
// differences are exact.
// Invariant: which elements meet in which order depends on the length of the row alone.
#pragma once

#include "kernels/moments.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;     // packs
constexpr int BLOCK = 32;    // chunks: 16 KiB, half of a first-level cache
constexpr int LEVELS = 48;   // of the tree of blocks
template <class T>
constexpr index BLOCK_SIZE = index(BLOCK) * CHUNK * LANES<T>;   // elements

// Reciprocals of how many elements a lane holds in the last packs of a row, or all lanes in the last one.
template <class T>
constexpr T INVERSE[CHUNK * 2 + 1] = {0,         1,         T(1) / 2,  T(1) / 3,  T(1) / 4,  T(1) / 5,
                                      T(1) / 6,  T(1) / 7,  T(1) / 8,  T(1) / 9,  T(1) / 10, T(1) / 11,
                                      T(1) / 12, T(1) / 13, T(1) / 14, T(1) / 15, T(1) / 16};

// What joins a chunk to the c chunks before it: the reciprocal of their elements in a lane, and n_a n_b / (n_a + n_b).
template <class T>
struct Joints {
    T inverse[BLOCK] = {}, share[BLOCK] = {};
    constexpr Joints() {
        for (int c = 1; c < BLOCK; ++c) {
            inverse[c] = T(1) / T(CHUNK * c);
            share[c] = T(CHUNK * c) / T(c + 1);
        }
    }
};
template <class T>
constexpr Joints<T> JOINTS;

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

// What a chunk reads at i, `offset` elements behind its beginning.
template <class Source>
ONEPASS_INLINE auto of_chunk(const Source& source, index i, index) {
    return source.at(i, All{});
}

// A source whose elements are kept as they were converted, for the next reading.
template <class Source, class T>
struct Keeping {
    Source source;
    T* kept;
    template <class Lanes>
    ONEPASS_INLINE Vec<T> at(index i, Lanes lanes) const {
        const Vec<T> x = source.at(i, lanes);
        store(kept + i, x, lanes);
        return x;
    }
    ONEPASS_INLINE T one(index i) const { return source.one(i); }
};

// The sum of some deviations from the pivot, and M2 (not centered: the sum of squares, and no sum).
template <class V>
struct Subset {
    V sum, m2;
};
template <class V>
ONEPASS_INLINE auto lower(const Subset<V>& a) {
    return Subset<decltype(lower(a.sum))>{lower(a.sum), lower(a.m2)};
}
template <class V>
ONEPASS_INLINE auto upper(const Subset<V>& a) {
    return Subset<decltype(upper(a.sum))>{upper(a.sum), upper(a.m2)};
}
template <class V>
ONEPASS_INLINE Subset<V> swapped(const Subset<V>& a) {
    return {swapped(a.sum), swapped(a.m2)};
}
template <class T>
ONEPASS_INLINE Subset<T> lane(const Subset<Vector<T, 16>>& a, int i) {
    return {lane(a.sum, i), lane(a.m2, i)};
}

// Of equally many elements each, `half` half of the reciprocal of how many: the difference of their means is that of their
// sums over the number.
template <class V, class T>
ONEPASS_INLINE Subset<V> join(const Subset<V>& a, const Subset<V>& b, T half) {
    const V delta = a.sum - b.sum;
    return {a.sum + b.sum, (a.m2 + b.m2) + delta * delta * half};
}

// The last elements of a row, fewer than a pack: their mean first, then the squares about it.
template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Moments part_moments(const Source& x, index start, index n, const Shift<T, RANGED>& shift) {
    Vec<T> d[PARTS], mean = {};
    for (int j = 0; j < PARTS; ++j) {
        const index left = n - j * WIDTH<T>;
        d[j] = left > 0 ? keep(shift(x.at(start + j * WIDTH<T>, First{left})), left) : Vec<T>{};
    }
    if constexpr (CENTERED) mean = splat(sum_lanes(d) * INVERSE<T>[n]);
    for (int j = 0; j < PARTS; ++j) {
        const Vec<T> e = keep(d[j] - mean, n - j * WIDTH<T>);
        d[j] = e * e;
    }
    return {double(n), double(mean.v[0]), 0.0, double(sum_lanes(d))};
}

// What each lane has of a block's whole packs, chunk by chunk: there may be something else to do between two of them.
template <bool CENTERED, class Source, class T, bool RANGED>
struct LaneMoments {
    static constexpr index STEP = CHUNK * LANES<T>;

    Source x;
    Shift<T, RANGED> shift;
    index start, chunks, packs, done = 0;
    Vec<T> one = hidden_one<T>();
    Subset<Vec<T>> all[PARTS] = {};

    ONEPASS_INLINE LaneMoments(const Source& x, index start, index n, const Shift<T, RANGED>& shift)
        : x(x),
          shift(shift),
          start(start),
          chunks(index(std::size_t(n) / STEP)),
          packs(index(std::size_t(n) % STEP / LANES<T>)) {}

    ONEPASS_INLINE index count() const { return CHUNK * chunks + packs; }

    // A chunk in pieces: the sums of a part, then the squares about their means, and so on.
    static constexpr int PIECES = 2 * PARTS;
    ONEPASS_INLINE void piece(int k) {
        k % 2 == 0 ? take(k / 2) : square(k / 2);
        if (k + 1 == PIECES) ++done;
    }
    ONEPASS_INLINE void chunk() {
#pragma GCC unroll 8
        for (int k = 0; k < PIECES; ++k) piece(k);
    }

    ONEPASS_INLINE void rest() {
        while (done < chunks) chunk();
        if (!packs) return;
        const T share = T(CHUNK * chunks) * T(packs) / T(count());
        for (int j = 0; j < PARTS; ++j) {
            const index at = start + chunks * STEP + j * WIDTH<T>;
            Vec<T> sum = {}, mean = {}, m2 = {};
            if constexpr (CENTERED) {
                for (index i = 0; i < packs; ++i) sum = sum + shift(x.at(at + i * LANES<T>, All{}));
                mean = sum * splat(INVERSE<T>[packs]);
                const Vec<T> delta = mean - all[j].sum * splat(JOINTS<T>.inverse[chunks]);
                m2 = delta * delta * splat(share);
                all[j].sum = all[j].sum + sum;
            }
            for (index i = 0; i < packs; ++i) {
                const Vec<T> d = shift(x.at(at + i * LANES<T>, All{})) - mean;
                m2 = m2 + d * d;
            }
            all[j].m2 = all[j].m2 + m2;
        }
    }

  private:
    Vec<T> d[CHUNK], sum;

    ONEPASS_INLINE void take(int j) {
        const index at = start + done * STEP + j * WIDTH<T>;
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = shift(of_chunk(x, at + i * LANES<T>, i * LANES<T> + j * WIDTH<T>));
        if constexpr (CENTERED) sum = sum8(d);
    }
    ONEPASS_INLINE void square(int j) {
        Vec<T> between = {};
        if constexpr (CENTERED) {
            const Vec<T> mean = sum * splat(T(1) / CHUNK);
            const Vec<T> delta = mean - all[j].sum * splat(JOINTS<T>.inverse[done]);
            between = delta * delta * splat(JOINTS<T>.share[done]);
            all[j].sum = all[j].sum + sum;
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) d[i] = minus(d[i], mean, one);
        }
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = d[i] * d[i];
        all[j].m2 = all[j].m2 + (CENTERED ? sum8(d) + between : sum8(d));
    }
};

// Half of the reciprocal of `count`, the elements of a lane; of none, nobody asks.
template <class T>
ONEPASS_INLINE T half_inverse(index count) {
    return T(0.5) / T(count ? count : 1);
}

// The lanes and the last elements of a block of n, and `half` that of its lanes' count. The mean counts from the pivot.
template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Moments moments_of(const LaneMoments<CENTERED, Source, T, RANGED>& of, index n, T half) {
    const index last = n % LANES<T>;
    Moments whole = {double(n - last), 0.0, 0.0, 0.0};
    if (of.count()) {
        const Subset<T> sums =
            fold<T>(of.all, [=](auto a, auto b, int level) ONEPASS_FLAT { return join(a, b, half / T(1 << level)); });
        whole.mean = CENTERED ? double(sums.sum) / whole.count : 0.0;
        whole.m2 = double(sums.m2);
    }
    return last ? merge(whole, part_moments<CENTERED>(of.x, of.start + n - last, last, of.shift)) : whole;
}

template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Moments block_moments(const Source& x, index start, index n, const Shift<T, RANGED>& shift) {
    LaneMoments<CENTERED, Source, T, RANGED> lanes(x, start, n, shift);
    lanes.rest();
    return moments_of(lanes, n, half_inverse<T>(lanes.count()));
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
    constexpr index SIZE = BLOCK_SIZE<T>;
    const T before = T(range.before), pivot = CENTERED ? choose_pivot(x, n, before) : T(0);
    const Shift<T, RANGED> shift = {pivot, before, T(range.after)};
    // A stack of finished subtrees, as a binary counter holds its ones.
    Moments stack[LEVELS];
    int depth = 0;
    for (index start = 0, number = 1; start < n; start += SIZE, ++number) {
        const Moments m = block_moments<CENTERED>(x, start, n - start < SIZE ? n - start : SIZE, shift);
        if (n <= SIZE) return {m.count, double(pivot), m.mean, m.m2};
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
