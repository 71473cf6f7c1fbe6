// Columns: the moments of each column of a block of rows in one read, and the columns normalized.
//
//   y = (x - mean) * rstd * weight + bias, the statistics an element a column
//
// Eight rows of one vector of columns are held in registers: their mean, then the squares about it, then one Welford step
// of eight rows at a time (Welford 1962; Chan, Golub & LeVeque 1979). Blocks are merged elsewhere (groups.cpp).
// Lanes never meet, so the order of additions is that of the rows, whatever the vector's width.
// Invariant: the cut into blocks and chunks depends on the number of rows alone.
#include "kernels/ahead.hpp"
#include "kernels/kernels.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;   // rows

template <class T, bool RANGED>
struct Shift {
    Vec<T> pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x) const {
        if constexpr (RANGED) return (x * before - pivot) * after;
        return x - pivot;
    }
};

template <class T>
struct Part {
    Vec<T> mean, m2;
};

// Moments of `rows` <= CHUNK values in each lane, row i at x + at[i]. A whole chunk stays in registers.
template <bool WHOLE, bool CENTERED, class S, class T, bool RANGED, class Lanes>
ONEPASS_INLINE Part<T> chunk_moments(const S* x, const index* at, index rows, const Shift<T, RANGED>& shift, Vec<T> one,
                                     Lanes lanes) {
    Part<T> part = {};
    if constexpr (WHOLE) {
        Vec<T> d[CHUNK];
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = shift(load(x + at[i], lanes));
        if constexpr (CENTERED) part.mean = sum8(d) * splat(T(1) / CHUNK);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) {
            if constexpr (CENTERED) d[i] = minus(d[i], part.mean, one);
            d[i] = d[i] * d[i];
        }
        part.m2 = sum8(d);
    } else {
        if constexpr (CENTERED) {
            for (index i = 0; i < rows; ++i) part.mean = part.mean + shift(load(x + at[i], lanes));
            part.mean = part.mean * splat(T(1) / T(rows));
        }
        for (index i = 0; i < rows; ++i) {
            const Vec<T> d = shift(load(x + at[i], lanes)) - part.mean;
            part.m2 = part.m2 + d * d;
        }
    }
    return part;
}

// One chunk of all columns. The first sets the pivots and the moments, every further one is merged into them.
template <bool WHOLE, bool FIRST, bool RANGED, bool CENTERED, class S>
ONEPASS_INLINE void chunk_of_columns(ColumnsMoments<S> a, index row, index rows) {
    using T = Arith<S>;
    index at[CHUNK];
    for (index i = 0; i < CHUNK; ++i) at[i] = (i < rows ? row + i : 0) * a.stride;
    const Vec<T> one = hidden_one<T>();
    const Vec<T> share = splat(T(rows) / T(row + rows)), spread = splat(T(row) * (T(rows) / T(row + rows)));
    Ahead<S, CHUNK * WIDTH<Arith<S>>> ahead(a.x + (row + CHUNK) * a.stride, a.stride, a.cols);
    each_vector<T>(to_line(a.x), a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const S* x = a.x + j;
        if (WHOLE && a.beyond) ahead.step();
        if (WHOLE && a.far)
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) send_soon(x + at[i]);
        Shift<T, RANGED> shift = {};
        if constexpr (RANGED) {
            shift.before = load(a.before + j, lanes);
            shift.after = load(a.after + j, lanes);
        }
        if constexpr (FIRST && CENTERED) {
            const auto value = [&](int i) ONEPASS_FLAT {
                const Vec<T> v = load(x + at[i], lanes);
                if constexpr (RANGED) return v * shift.before;
                return v;
            };
            if constexpr (WHOLE) {
                const Vec<T> d[CHUNK] = {value(0), value(1), value(2), value(3), value(4), value(5), value(6), value(7)};
                shift.pivot = sum8(d) * splat(T(1) / CHUNK);
            } else {
                shift.pivot = value(0);
            }
        } else if constexpr (CENTERED) {
            shift.pivot = load(a.pivot + j, lanes);
        }
        const Part<T> part = chunk_moments<WHOLE, CENTERED>(x, at, rows, shift, one, lanes);
        if constexpr (FIRST) {
            store(a.pivot + j, shift.pivot, lanes);
            store(a.low + j, part.mean, lanes);
            store(a.m2 + j, part.m2, lanes);
        } else {
            const Vec<T> mean = load(a.low + j, lanes), delta = part.mean - mean;
            store(a.low + j, mean + delta * share, lanes);
            store(a.m2 + j, (load(a.m2 + j, lanes) + part.m2) + delta * delta * spread, lanes);
        }
    });
}

template <bool RANGED, bool CENTERED, class S>
void block_moments(const ColumnsMoments<S>& a) {
    if (a.rows < CHUNK) return chunk_of_columns<false, true, RANGED, CENTERED>(a, 0, a.rows);
    chunk_of_columns<true, true, RANGED, CENTERED>(a, 0, CHUNK);
    index row = CHUNK;
    for (; row + CHUNK <= a.rows; row += CHUNK) chunk_of_columns<true, false, RANGED, CENTERED>(a, row, CHUNK);
    if (row < a.rows) chunk_of_columns<false, false, RANGED, CENTERED>(a, row, a.rows - row);
}

template <class S>
void columns_moments(const ColumnsMoments<S>& a) {
    if (a.before)
        a.centered ? block_moments<true, true>(a) : block_moments<true, false>(a);
    else
        a.centered ? block_moments<false, true>(a) : block_moments<false, false>(a);
}

// ---- apply ----

enum class Affine { none, bias, column, row };

// By value: what is referred to, any store might change.
template <Affine AFFINE, bool LOW, bool RANGED, bool APART, bool ACROSS, class S>
void apply(Apply<S> a) {
    using T = Arith<S>;
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const S* x = a.x + row * a.x_stride;
        const Lines<T> line = a.line;
        const Vec<T> row_weight = splat(AFFINE == Affine::row ? line.row_weight[row] : T(1));
        const Vec<T> row_bias = splat(AFFINE == Affine::row ? line.row_bias[row] : T(0));
        const Shares<S, 1, APART ? 2 : 0, Way::straight> next = {{x + a.x_stride, a.y + (row + 1) * a.y_stride}};
        const auto source = [&](index j, auto lanes) ONEPASS_FLAT {
            next.at(j);
            return load(x + j, lanes);
        };
        const auto value = [&](Vec<T> v, index j, auto lanes) ONEPASS_FLAT {
            if constexpr (RANGED) v = v * load<ACROSS>(line.before + j, lanes);
            v = v - load<ACROSS>(line.mean + j, lanes);
            if constexpr (RANGED) v = v * load<ACROSS>(line.after + j, lanes);
            if constexpr (LOW) v = v - load<ACROSS>(line.low + j, lanes);
            v = v * load<ACROSS>(line.scale + j, lanes);
            if constexpr (AFFINE == Affine::column) v = v * load<ACROSS>(line.weight + j, lanes);
            if constexpr (AFFINE == Affine::column || AFFINE == Affine::bias) v = v + load<ACROSS>(line.bias + j, lanes);
            if constexpr (AFFINE == Affine::row) v = v * row_weight + row_bias;
            return v;
        };
        S* y = a.y + row * a.y_stride;
        write_row<T>(y, lead_of(y, line.mean, a.stream), a.cols, source, value, a.stream, joined && row + 1 < a.rows, edge,
                     Nothing{}, Shares<S, 1, 1, Way::both>{{x + behind<S>(a.cols, a.x_stride)}, 0, {x}});
    }
    if (a.stream) stream_fence();
}

template <Affine AFFINE, class S>
ONEPASS_INLINE void choose_apply(const Apply<S>& a) {
    if (a.line.before) return apply<AFFINE, true, true, false, false>(a);
    int low = 0;   // (a bool would keep the loop from becoming vector code)
    for (index j = 0; j < a.cols; ++j) low |= a.line.low[j] != 0;
    if (a.apart) return low ? apply<AFFINE, true, false, true, false>(a) : apply<AFFINE, false, false, true, false>(a);
    if constexpr (MAY_CROSS<S, Arith<S>>)
        if (across(a.y, a.y_stride, a.line.mean, a.stream))
            return low ? apply<AFFINE, true, false, false, true>(a) : apply<AFFINE, false, false, false, true>(a);
    low ? apply<AFFINE, true, false, false, false>(a) : apply<AFFINE, false, false, false, false>(a);
}

template <class S>
void columns_apply(const Apply<S>& a) {
    if (a.line.row_weight) return choose_apply<Affine::row>(a);
    if (a.line.weight) return choose_apply<Affine::column>(a);
    if (a.line.bias) return choose_apply<Affine::bias>(a);
    choose_apply<Affine::none>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_moments = columns_moments<S>;
    kernels.columns_apply = columns_apply<S>;
}

}   // namespace

void add_columns(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
