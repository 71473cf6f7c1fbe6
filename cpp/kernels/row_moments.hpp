// The moments of one contiguous row in one read, from sums about the mean of its first elements (sums.hpp). Each lane sums
// chunks of eight packs, held in registers; then lanes are added pairwise. The blocks of a long row, all about the same
// pivot, are joined in a binary tree (Chan, Golub & LeVeque 1979). Invariant: which elements meet in which order depends on
// the length of the row alone.
#pragma once

#include "kernels/sums.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int BLOCK = 32;    // chunks: 16 KiB, half of a first-level cache
constexpr int LEVELS = 48;   // of the tree of blocks
template <class T>
constexpr index BLOCK_SIZE = index(BLOCK) * CHUNK * LANES<T>;   // elements

template <class T, bool RANGED>
struct Shift {
    T pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x, Vec<T> one) const {
        if constexpr (RANGED) return (x * splat(before) - splat(pivot)) * splat(after);
        return minus(x, splat(pivot), one);
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

// What each lane has of a block, chunk by chunk: there may be something else to do between two of them. Not CENTERED: of
// the squares alone, about 0.
template <bool CENTERED, class Source, class T, bool RANGED>
struct LaneMoments {
    static constexpr index STEP = CHUNK * LANES<T>;

    Source x;
    Shift<T, RANGED> shift;
    index start, n, done = 0;   // elements
    Vec<T> one = hidden_one<T>();
    Sums<Vec<T>> all[PARTS] = {};

    ONEPASS_INLINE LaneMoments(const Source& x, index start, index n, const Shift<T, RANGED>& shift)
        : x(x), shift(shift), start(start), n(n) {}

    // A chunk in pieces, for what is done between them: the sums of a part, then its squares, and so on.
    static constexpr int PIECES = 2 * PARTS;
    ONEPASS_INLINE void piece(int k) {
        k % 2 == 0 ? take(k / 2) : square(k / 2);
        if (k + 1 == PIECES) done += STEP;
    }

    // Whether there is a whole chunk to do.
    ONEPASS_INLINE bool more() const { return done + STEP <= n; }
    ONEPASS_INLINE void rest() {
        for (; done + STEP <= n; done += STEP)
#pragma GCC unroll 4
            for (int j = 0; j < PARTS; ++j) chunk(j);
        for (; done + LANES<T> <= n; done += LANES<T>)
            for (int j = 0; j < PARTS; ++j) add(j, shift(x.at(start + done + j * WIDTH<T>, All{}), one));
        for (int j = 0; j < PARTS && done + j * WIDTH<T> < n; ++j) {
            const index left = n - done - j * WIDTH<T>;
            add(j, keep(shift(x.at(start + done + j * WIDTH<T>, First{left}), one), left));
        }
    }

  private:
    Vec<T> d[CHUNK];

    // A part of a chunk at once, which takes fewer registers than in pieces.
    ONEPASS_INLINE void chunk(int j) {
        const index at = start + done + j * WIDTH<T>;
        const auto deviation = [&](int i) ONEPASS_FLAT {
            return shift(of_chunk(x, at + i * LANES<T>, i * LANES<T> + j * WIDTH<T>), one);
        };
        if constexpr (CENTERED)
            all[j] = all[j] + tree_of<CHUNK>([&](int i) ONEPASS_FLAT {
                         const Vec<T> d = deviation(i);
                         return Sums<Vec<T>>{d, d * d};
                     });
        else
            all[j].squares = all[j].squares + tree_of<CHUNK>([&](int i) ONEPASS_FLAT {
                                 const Vec<T> d = deviation(i);
                                 return d * d;
                             });
    }
    ONEPASS_INLINE void take(int j) {
        const index at = start + done + j * WIDTH<T>;
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = shift(of_chunk(x, at + i * LANES<T>, i * LANES<T> + j * WIDTH<T>), one);
        if constexpr (CENTERED) all[j].sum = all[j].sum + sum8(d);
    }
    ONEPASS_INLINE void square(int j) {
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = d[i] * d[i];
        all[j].squares = all[j].squares + sum8(d);
    }
    ONEPASS_INLINE void add(int j, Vec<T> d) {
        if constexpr (CENTERED) all[j].sum = all[j].sum + d;
        all[j].squares = all[j].squares + d * d;
    }
};

template <class T>
ONEPASS_INLINE Moments moments_of(const Sums<Vec<T>> (&lanes)[PARTS], index n, double inverse) {
    const Sums<T> sums = fold<T>(lanes, Plus());
    return from_sums(double(sums.sum), double(sums.squares), double(n), inverse);
}

template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Moments block_moments(const Source& x, index start, index n, const Shift<T, RANGED>& shift) {
    LaneMoments<CENTERED, Source, T, RANGED> lanes(x, start, n, shift);
    lanes.rest();
    return moments_of(lanes.all, n, 1.0 / double(n));
}

// The pivot of a row, which all the rest of it waits for.
template <class T, class Number = Constants<false>, class Source>
ONEPASS_INLINE T choose_pivot(const Source& x, index n, T before) {
    return first_pivot<T, Number>(n, [&](index i) ONEPASS_FLAT { return x.one(i) * before; });
}

// Of n elements, from of_block(start, n) for blocks of `size`, all about the same pivot. The mean is the pivot, and what it
// lacks the low part. That lies behind `after`, as finish() expects it.
template <class OfBlock>
ONEPASS_INLINE Moments joined_blocks(index n, index size, double pivot, const OfBlock& of_block) {
    // A stack of finished subtrees, as a binary counter holds its ones.
    Moments stack[LEVELS];
    int depth = 0;
    for (index start = 0, number = 1; start < n; start += size, ++number) {
        const Moments m = of_block(start, n - start < size ? n - start : size);
        if (n <= size) return {m.count, pivot, m.mean, m.m2};
        stack[depth++] = m;
        for (index bits = number; !(bits & 1); bits >>= 1, --depth)
            stack[depth - 2] = merge(stack[depth - 2], stack[depth - 1]);
    }
    for (; depth > 1; --depth) stack[depth - 2] = merge(stack[depth - 2], stack[depth - 1]);
    return {double(n), pivot, stack[0].mean + stack[0].low, stack[0].m2};
}
template <bool CENTERED, class T, class Source, bool RANGED>
ONEPASS_INLINE Moments moments_about(const Source& x, index n, const Shift<T, RANGED>& shift) {
    // (What is read again may hold an outlier, which would swallow digits of all that is added to it.)
    constexpr index SIZE = RANGED ? BLOCK_SIZE<T> / 4 : BLOCK_SIZE<T>;
    return joined_blocks(n, SIZE, double(shift.pivot), [&](index start, index size) ONEPASS_FLAT {
        return block_moments<CENTERED>(x, start, size, shift);
    });
}

template <bool CENTERED, class T, class Source>
__attribute__((noinline)) Moments ranged_moments(const Source& x, index n, Range range, T pivot) {
    return moments_about<CENTERED, T>(x, n, Shift<T, true>{pivot, T(range.before), T(range.after)});
}

// m, or moments from a better pivot in place of those that were taken from one astray.
template <bool CENTERED, class T, class Number = Constants<false>, class Source>
ONEPASS_INLINE Moments settled(const Moments& m, const Source& x, index n, const Range& range) {
    if (!CENTERED || __builtin_expect(!astray<Number>(m), 1)) return m;
    return ranged_moments<true, T>(itself(x), n, range, T(m.mean + m.low / range.after));
}

// Of a row as it is, not settled yet.
template <bool CENTERED, class T, class Source>
ONEPASS_INLINE Moments first_moments(const Source& x, index n) {
    const T pivot = CENTERED ? choose_pivot(x, n, T(1)) : T(0);
    return moments_about<CENTERED, T>(x, n, Shift<T, false>{pivot, 1, 1});
}
// Of a row that is brought into range.
template <bool CENTERED, class T, class Source>
ONEPASS_INLINE Moments row_moments(const Source& x, index n, const Range& range) {
    const T pivot = CENTERED ? choose_pivot(itself(x), n, T(range.before)) : T(0);
    return settled<CENTERED, T>(ranged_moments<CENTERED, T>(itself(x), n, range, pivot), x, n, range);
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
