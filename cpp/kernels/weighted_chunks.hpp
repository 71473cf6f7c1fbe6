// Chunks of weighted moments: ROWS elements of each of some columns, joined to what the columns have.
//
//   mean += sum(d) / count,  M2 += sum(d^2) - sum(d)^2 / count,  d = x - mean     (Welford's update of some elements at
//   once)
//
// where all that counts weighs the same; where it does not, each chunk's mean and M2 by themselves, and then the two joined
// (Chan, Golub & LeVeque 1979, with weights in the place of counts: West 1979).
// Invariant: what does not count is never part of a sum.
#pragma once

#include "kernels/ahead.hpp"
#include "kernels/kernels.hpp"
#include "simd/doubles.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int ROWS = 8;   // of a chunk

// What elements weigh, each for itself or all of a row the same: a mask's lanes that count, or weights.
template <class W, bool EACH>
struct Weights {
    const W* p;
    index row;
    template <class Lanes>
    ONEPASS_INLINE Vec<double> weight(index i, index j, Lanes lanes) const {
        if constexpr (sizeof(W) == 1)
            return splat(1.0);   // where it counts
        else if constexpr (EACH)
            return load(p + i * row + j, lanes);
        else
            return first(splat(any(lanes) ? p[i * row] : 0.0), lanes);
    }
    template <class Lanes>
    ONEPASS_INLINE Valid valid(index i, index j, Lanes lanes) const {
        if constexpr (sizeof(W) > 1)
            return above_zero(weight(i, j, lanes));
        else if constexpr (EACH)
            return load_valid(p + i * row + j, lanes);
        else
            return all_or_none(any(lanes) && p[i * row] != 0, lanes);
    }

  private:
    ONEPASS_INLINE static bool any(All) { return true; }
    ONEPASS_INLINE static bool any(First lanes) { return lanes.n > 0; }
    ONEPASS_INLINE static Vec<double> first(Vec<double> a, All) { return a; }
    ONEPASS_INLINE static Vec<double> first(Vec<double> a, First lanes) { return keep(a, lanes.n); }
};

// A block of rows of one problem, and where its sums go, an element a column.
template <class S>
struct Block {
    const S *x, *dy;
    index rows, cols, stride;
    const Arith<S>*before, *after;
    double *count, *pivot, *low, *m2, *sum, *product;
};

// float32 needs no range of its own in double: what was found is brought into it.
template <class S>
constexpr bool SINGLE = sizeof(Arith<S>) == sizeof(float);
template <class S, class Lanes>
ONEPASS_INLINE Vec<double> in_range(const Block<S>& a, index j, Lanes lanes, Vec<double> x, Vec<double> pivot) {
    return (x * load_doubles(a.before + j, lanes) - pivot) * load_doubles(a.after + j, lanes);
}
template <class S>
ONEPASS_INLINE void bring_into_range(const Block<S>& a) {
    each_vector<double>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const Vec<double> before = load_doubles(a.before + j, lanes), k = before * load_doubles(a.after + j, lanes);
        const auto scale = [&](double* sums, Vec<double> by)
                               ONEPASS_FLAT { store(sums + j, load(sums + j, lanes) * by, lanes); };
        scale(a.pivot, before);
        scale(a.low, k);
        scale(a.m2, k * k);
        if (a.dy) scale(a.product, k);
    });
}

// Nothing of nothing is nothing.
ONEPASS_INLINE Vec<double> share_of(Vec<double> part, Vec<double> whole) {
    return where(above_zero(whole), Vec<double>{part.v / whole.v});
}

// Of a column, with a chunk that has come to it: how much all of that weighs, its M2, and how far its mean has moved.
struct Joined {
    Vec<double> count, m2, moved;
};

// All that counts weighs the same: d is counted from the mean so far, and nothing waits for a mean of the chunk's own.
// Where that mean lies among the elements, squares about it are at most ROWS + 1 times those about the new one. (The
// columns of a row all begin at the row's first element, and are at most 2 ROWS FOLD times the row's M2: ten bits of the 29
// that double has and float32 has not.)
ONEPASS_INLINE Joined join(const Vec<double> (&d)[ROWS], const Valid (&valid)[ROWS], Vec<double> count, Vec<double> m2) {
    Vec<double> squared[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) squared[i] = d[i] * d[i];
    const Vec<double> total = count + count8(valid), sum = sum8(d), moved = share_of(sum, total);
    return {total, (m2 + sum8(squared)) - sum * moved, moved};
}

// Whatever it weighs: d is counted from the pivot, and the squares from the chunk's own mean.
ONEPASS_INLINE Joined join(const Vec<double> (&d)[ROWS], const Vec<double> (&w)[ROWS], const Valid (&valid)[ROWS],
                           Vec<double> count, Vec<double> m2, Vec<double> low) {
    Vec<double> part[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) part[i] = w[i] * d[i];
    const Vec<double> weight = sum8(w), mean = share_of(sum8(part), weight), total = count + weight;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        const Vec<double> from_mean = d[i] - mean;
        part[i] = where(valid[i], w[i] * (from_mean * from_mean));
    }
    const Vec<double> share = share_of(weight, total), delta = where(above_zero(weight), mean - low);
    return {total, (m2 + sum8(part)) + delta * delta * (count * share), delta * share};
}

// ROWS elements of each of some columns. `lanes` are the columns', of(i) those of row i.
template <bool SKIPNA, bool GRADIENT, class S, class W, bool EACH, class Lanes, class Of>
ONEPASS_INLINE void add_chunk(const Block<S>& a, const Weights<W, EACH>& weights, index row, index j, Lanes lanes,
                              const Of& of) {
    constexpr bool STEADY = sizeof(W) == 1 && SINGLE<S>;
    const Vec<double> pivot = load(a.pivot + j, lanes), low = load(a.low + j, lanes);
    const Vec<double> count = load(a.count + j, lanes), m2 = load(a.m2 + j, lanes);
    Vec<double> d[ROWS], w[ROWS], e[ROWS], about[ROWS];
    Valid valid[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        const index at = (row + i) * a.stride + j;
        const Vec<double> x = load_doubles(a.x + at, of(i));
        const Vec<double> from_pivot = SINGLE<S> ? x - pivot : in_range(a, j, lanes, x, pivot);
        valid[i] = weights.valid(row + i, j, of(i));
        if constexpr (SKIPNA) valid[i] = both(valid[i], not_nan(x));
        d[i] = where(valid[i], STEADY ? from_pivot - low : from_pivot);
        if constexpr (!STEADY) w[i] = where(valid[i], weights.weight(row + i, j, of(i)));
        if constexpr (GRADIENT) {
            e[i] = load_doubles(a.dy + at, of(i));
            about[i] = e[i] * where(not_zero(e[i]), from_pivot - low);
        }
    }
    Joined to;
    if constexpr (STEADY)
        to = join(d, valid, count, m2);
    else
        to = join(d, w, valid, count, m2, low);
    store(a.count + j, to.count, lanes);
    store(a.low + j, low + to.moved, lanes);
    store(a.m2 + j, to.m2, lanes);
    if constexpr (GRADIENT) {
        const Vec<double> sum = load(a.sum + j, lanes) + sum8(e);
        store(a.product + j, (load(a.product + j, lanes) + sum8(about)) - to.moved * sum, lanes);
        store(a.sum + j, sum, lanes);
    }
}

// All of a block, on sums that are 0. What lies so many rows `ahead` is sent for.
template <bool SKIPNA, bool GRADIENT, class S, class W, bool EACH>
__attribute__((noinline)) void add_block(const Block<S>& block, const Weights<W, EACH>& of, index ahead) {
    const Block<S> a = block;   // in registers: stores could change what is referred to
    const Weights<W, EACH> weights = of;
    constexpr index STEP = ROWS * WIDTH<double>;
    for (index row = 0; row < a.rows; row += ROWS) {
        index j = 0;
        if (row + ROWS <= a.rows) {
            const index later = row + ahead;
            Ahead<S, STEP> next(a.x + later * a.stride, a.stride, a.cols);
            Ahead<S, STEP> next_dy((GRADIENT ? a.dy : a.x) + later * a.stride, a.stride, a.cols);
            Ahead<W, STEP> next_weights(weights.p + later * weights.row, weights.row, a.cols);
            for (; j + WIDTH<double> <= a.cols; j += WIDTH<double>) {
                next.step();
                if constexpr (GRADIENT) next_dy.step();
                if constexpr (EACH) next_weights.step();
                add_chunk<SKIPNA, GRADIENT>(a, weights, row, j, All{}, [](int) ONEPASS_FLAT { return All{}; });
            }
        }
        for (; j < a.cols; j += WIDTH<double>)
            add_chunk<SKIPNA, GRADIENT>(a, weights, row, j, First{a.cols - j},
                                        [&](int i) ONEPASS_FLAT { return First{row + i < a.rows ? a.cols - j : 0}; });
    }
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
