// The sums of the gradient of groups that span many rows: of x, its square, dy and dy x about a pivot, column by column.
//
//   low = sum(x - p),  m2 = sum((x - p)^2),  sum = sum(dy),  product = sum(dy (x - p))
//
// of which groups_backward.cpp makes moments, and sum and product about the mean (Chan, Golub & LeVeque 1983).
// Invariant: a row is seen as a matrix of FOLD columns, so rows and columns take the same path, and which elements meet in
// which order depends on the shape alone.
#pragma once

#include "kernels/ahead.hpp"
#include "kernels/sums.hpp"
#include "simd/halves.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int FOLD = 64;   // columns that a row becomes

// Where the sums of each column stand: those of x - pivot, of its square, of dy and of dy (x - pivot). What they become
// stands there as well: the mean, less the pivot, and M2, sum and product.
template <class T>
struct Places {
    T *pivot, *low, *m2, *sum, *product;
    ONEPASS_INLINE Places at(index j) const { return {pivot + j, low + j, m2 + j, sum + j, product + j}; }
};

template <class T>
struct Part {
    Vec<T> low, m2, sum, product;
};
template <class T, class Lanes>
ONEPASS_INLINE Part<T> load_part(const Places<T>& of, index j, Lanes lanes) {
    return {load(of.low + j, lanes), load(of.m2 + j, lanes), load(of.sum + j, lanes), load(of.product + j, lanes)};
}
template <class T, class Lanes>
ONEPASS_INLINE void store_part(const Places<T>& to, index j, const Part<T>& part, Lanes lanes) {
    store(to.low + j, part.low, lanes);
    store(to.m2 + j, part.m2, lanes);
    store(to.sum + j, part.sum, lanes);
    store(to.product + j, part.product, lanes);
}
template <class T>
ONEPASS_INLINE Part<T> operator+(const Part<T>& a, const Part<T>& b) {
    return {a.low + b.low, a.m2 + b.m2, a.sum + b.sum, a.product + b.product};
}

template <int OF_EACH>
ONEPASS_INLINE Part<float> lower_halves(const Part<float>& a, const Part<float>& b) {
    return {lower_halves<OF_EACH>(a.low, b.low), lower_halves<OF_EACH>(a.m2, b.m2), lower_halves<OF_EACH>(a.sum, b.sum),
            lower_halves<OF_EACH>(a.product, b.product)};
}
template <int OF_EACH>
ONEPASS_INLINE Part<float> upper_halves(const Part<float>& a, const Part<float>& b) {
    return {upper_halves<OF_EACH>(a.low, b.low), upper_halves<OF_EACH>(a.m2, b.m2), upper_halves<OF_EACH>(a.sum, b.sum),
            upper_halves<OF_EACH>(a.product, b.product)};
}

// Of one element, x - pivot and dy.
template <class T>
ONEPASS_INLINE Part<T> part_of(Vec<T> d, Vec<T> e) {
    return {d, d * d, e, e * d};
}
template <bool WHOLE, class T, class S, class Value, class Lanes>
ONEPASS_INLINE Part<T> part_of(const S* dy, index stride, index rows, const Value& value, Lanes lanes) {
    Part<T> part = {};
    if constexpr (WHOLE) {
        Vec<T> d[CHUNK], e[CHUNK];
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) {
            d[i] = value(i);
            e[i] = load(dy + i * stride, lanes);
        }
        part.low = sum8(d);
        part.sum = sum8(e);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) {
            e[i] = e[i] * d[i];
            d[i] = d[i] * d[i];
        }
        part.m2 = sum8(d);
        part.product = sum8(e);
    } else {
        for (index i = 0; i < rows; ++i) part = part + part_of<T>(value(i), load(dy + i * stride, lanes));
    }
    return part;
}

// What is sent for while x is read, if x comes from `far` away: what lies BEHIND it, and from `end` on `jump` further on.
template <class S>
struct Later {
    bool far;
    const S* end;
    index jump;
    // How far from x, where i is read.
    ONEPASS_INLINE index from(const S* x, index i) const {
        const index at = i + BEHIND<S>;
        return x + at < end ? at : at + jump;
    }
};

// Adds `rows` <= CHUNK rows of all columns. Lines are read whole: of rows that are pages apart sixteen lie in one set of
// the first-level cache, and what is left of them would be gone when its turn came. FOLDED: these are the columns of a
// folded row.
template <bool WHOLE, bool RANGED, bool FOLDED, class S>
ONEPASS_INLINE void add_chunk(const S* x, const S* dy, index stride, index dy_stride, index rows, index cols,
                              const Arith<S>* before, const Arith<S>* after, Places<Arith<S>> to, Later<S> later) {
    using T = Arith<S>;
    const Vec<T> one = hidden_one<T>();
    Ahead<S, CHUNK * WIDTH<T>> next_x(x + CHUNK * stride, stride, cols), next_dy(dy + CHUNK * dy_stride, dy_stride, cols);
    each_vector<T>(FOLDED ? 0 : to_line(x), cols, [&](index j, auto lanes) ONEPASS_FLAT {
        if (FOLDED && later.far) {
            const index n = WHOLE ? CHUNK : rows, at = later.from(x, j * n);
            send(x + at, x + j * n + SOON<S>, n * WIDTH<T>);
            send(dy + at, dy + j * n + SOON<S>, n * WIDTH<T>);
        } else if (WHOLE && later.far) {   // in two steps: of x and dy, a chunk is more than a roomy cache holds, too
            next_x.template step<SECOND>();
            next_dy.template step<SECOND>();
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) {
                send_soon(x + i * stride + j);
                send_soon(dy + i * dy_stride + j);
            }
        }
        const Vec<T> pivot = load(to.pivot + j, lanes);
        const auto value = [&](index i) ONEPASS_FLAT {
            const Vec<T> v = load(x + i * stride + j, lanes);
            if constexpr (RANGED) return (v * load(before + j, lanes) - pivot) * load(after + j, lanes);
            return minus(v, pivot, one);
        };
        store_part(to, j, load_part(to, j, lanes) + part_of<WHOLE, T>(dy + j, dy_stride, rows, value, lanes), lanes);
    });
}

// Half a chunk, from its row `first` on, as sum8() adds them.
template <class T, class S, class Value, class Lanes>
ONEPASS_INLINE Part<T> half_of(const S* dy, index stride, int first, const Value& value, Lanes lanes) {
    const auto row = [&](int i) ONEPASS_FLAT { return part_of<T>(value(i), held(load(dy + i * stride, lanes))); };
    return (row(first) + row(first + 1)) + (row(first + 2) + row(first + 3));
}

// Adds a whole chunk of columns in two halves, a piece of its columns at a time: x and dy often lie alike within pages, so
// that of rows that are pages apart all sixteen lines would lie in one set of the first-level cache, which holds eight or
// twelve; what the processor fetches ahead of them would be gone before it is read.
template <class S>
ONEPASS_INLINE void add_halves(const S* x, const S* dy, index stride, index dy_stride, index cols,
                               const Places<Arith<S>>& to) {
    using T = Arith<S>;
    constexpr index PIECE = 1024 / sizeof(T);
    alignas(PACK) T room[4][PIECE];
    const Places<T> half = {nullptr, room[0], room[1], room[2], room[3]};
    const Vec<T> one = hidden_one<T>();
    for (index from = 0, end = to_line(x); from < cols; from = end, end += PIECE) {
        if (end > cols) end = cols;
        const auto each_half = [&](int first, const auto& put) ONEPASS_FLAT {
            each_vector<T>(end - from, [&](index i, auto lanes) ONEPASS_FLAT {
                const index j = from + i;
                const Vec<T> pivot = load(to.pivot + j, lanes);
                const auto value = [&](int k) ONEPASS_FLAT { return minus(load(x + k * stride + j, lanes), pivot, one); };
                put(i, half_of<T>(dy + j, dy_stride, first, value, lanes), lanes);
            });
        };
        each_half(0, [&](index i, const Part<T>& part, auto lanes) ONEPASS_FLAT { store_part(half, i, part, lanes); });
        each_half(CHUNK / 2, [&](index i, const Part<T>& part, auto lanes) ONEPASS_FLAT {
            store_part(to, from + i, load_part(to, from + i, lanes) + (load_part(half, i, lanes) + part), lanes);
        });
    }
}

// All rows, from pivots that are known. The sums that they are added to are 0.
template <bool RANGED, bool FOLDED, class S>
ONEPASS_INLINE void add_rows_of(const S* x, const S* dy, index stride, index dy_stride, index rows, index cols,
                                const Arith<S>* before, const Arith<S>* after, const Places<Arith<S>>& to,
                                const Later<S>& later) {
    for (index j = 0; j < cols; ++j) to.low[j] = to.m2[j] = to.sum[j] = to.product[j] = 0;
    index row = 0;
    if constexpr (!RANGED && !FOLDED && sizeof(S) == sizeof(Arith<S>))   // (16 bits are converted, and that for longer)
        for (; !later.far && row + CHUNK <= rows; row += CHUNK)
            add_halves(x + row * stride, dy + row * dy_stride, stride, dy_stride, cols, to);
    for (; row + CHUNK <= rows; row += CHUNK)
        add_chunk<true, RANGED, FOLDED>(x + row * stride, dy + row * dy_stride, stride, dy_stride, CHUNK, cols, before,
                                        after, to, later);
    if (row < rows)
        add_chunk<false, RANGED, FOLDED>(x + row * stride, dy + row * dy_stride, stride, dy_stride, rows - row, cols,
                                         before, after, to, later);
}

// Sums of `count` elements become moments. Was a pivot astray?
template <class T>
ONEPASS_INLINE bool finish_sums(const Places<T>& of, index cols, T count) {
    Vec<T> astray = {};
    each_vector<T>(cols, [&](index j, auto lanes) ONEPASS_FLAT {
        Part<T> part = load_part(of, j, lanes);
        const Vec<T> mean = part.low * (T(1) / count);
        part.product = part.product - part.sum * mean;
        part.m2 = part.m2 - part.low * mean;
        part.low = mean;
        store_part(of, j, part, lanes);
        astray = greater(how_astray(mean, part.m2, count), astray);
    });
    return any_positive(astray);
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
