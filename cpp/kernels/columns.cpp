// Columns: the moments of each column of a block of rows in one read, and the columns normalized.
//
//   y = (x - mean) * rstd * weight + bias, the statistics an element a column
//
// Eight rows of one vector of columns are held in registers: their sum and that of their squares, about a pivot near the
// mean (sums.hpp has the formula). Blocks are merged elsewhere (groups.cpp).
// Lanes never meet, so the order of additions is that of the rows, whatever the vector's width.
// Invariant: the cut into blocks and chunks depends on the number of rows alone.
#include "kernels/ahead.hpp"
#include "kernels/sums.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

template <class T, bool RANGED>
struct ColumnShift {
    Vec<T> pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x, Vec<T> one) const {
        if constexpr (RANGED) return (x * before - pivot) * after;
        return minus(x, pivot, one);
    }
};
template <bool RANGED, bool CENTERED, class S, class Lanes>
ONEPASS_INLINE ColumnShift<Arith<S>, RANGED> shift_at(const ColumnsMoments<S>& a, index j, Lanes lanes) {
    ColumnShift<Arith<S>, RANGED> shift = {};
    if constexpr (CENTERED) shift.pivot = load(a.pivot + j, lanes);
    if constexpr (RANGED) {
        shift.before = load(a.before + j, lanes);
        shift.after = load(a.after + j, lanes);
    }
    return shift;
}

// Of `rows` <= CHUNK values in each lane, row i at x + at[i]. A whole chunk stays in registers.
template <bool WHOLE, bool CENTERED, class S, class T, bool RANGED, class Lanes>
ONEPASS_INLINE Sums<Vec<T>> chunk_sums(const S* x, const index* at, index rows, const ColumnShift<T, RANGED>& shift,
                                       Vec<T> one, Lanes lanes) {
    Sums<Vec<T>> sums = {};
    if constexpr (WHOLE) {
        Vec<T> d[CHUNK];
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = shift(load(x + at[i], lanes), one);
        if constexpr (CENTERED) sums.sum = sum8(d);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = d[i] * d[i];
        sums.squares = sum8(d);
    } else {
        for (index i = 0; i < rows; ++i) {
            const Vec<T> d = shift(load(x + at[i], lanes), one);
            if constexpr (CENTERED) sums.sum = sums.sum + d;
            sums.squares = sums.squares + d * d;
        }
    }
    return sums;
}

// Where the rows of a chunk begin.
struct Offsets {
    index at[CHUNK];
    ONEPASS_INLINE Offsets(index row, index rows, index stride) {
        for (index i = 0; i < CHUNK; ++i) at[i] = (i < rows ? row + i : 0) * stride;
    }
};

// One chunk of all columns. The first sets the pivots, every further one is added to the sums, which stand where mean and
// M2 will. What is sent for goes into CACHE: where that is the second one, each row sends for itself as well, shortly
// before it is read, and from afar each line is sent for twice: where all places for what is underway are taken, sending is
// in vain.
template <bool WHOLE, bool OPENS, bool RANGED, bool CENTERED, int CACHE = SECOND, class S>
ONEPASS_INLINE void chunk_of_columns(ColumnsMoments<S> a, index row, index rows) {
    using T = Arith<S>;
    constexpr bool PLACED = CENTERED && !OPENS;   // pivots are
    const Offsets offsets(row, rows, a.stride);
    const index* at = offsets.at;
    const Vec<T> one = hidden_one<T>();
    Ahead<S, CHUNK * WIDTH<T>> ahead(a.x + (row + CHUNK) * a.stride, a.stride, a.cols);
    Ahead<S, CHUNK * WIDTH<T>> farther(a.x + (row + 2 * CHUNK) * a.stride, a.stride, a.cols);
    each_vector<T>(to_line(a.x), a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const S* x = a.x + j;
        if (WHOLE && a.beyond) ahead.template step<CACHE>();
        if (WHOLE && CACHE == SECOND && a.far) {
            farther.template step<SECOND>();
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) send_soon(x + at[i]);
        }
        auto shift = shift_at<RANGED, PLACED>(a, j, lanes);
        if constexpr (OPENS && CENTERED) {
            shift.pivot = first_pivot<T>(rows, [&](index i) ONEPASS_FLAT {
                const Vec<T> v = load(x + at[i], lanes);
                if constexpr (RANGED) return v * shift.before;
                return v;
            });
        }
        Sums<Vec<T>> sums = chunk_sums<WHOLE, CENTERED>(x, at, rows, shift, one, lanes);
        if constexpr (OPENS)
            store(a.pivot + j, shift.pivot, lanes);
        else
            sums = Sums<Vec<T>>{load(a.low + j, lanes), load(a.m2 + j, lanes)} + sums;
        store(a.low + j, sums.sum, lanes);
        store(a.m2 + j, sums.squares, lanes);
    });
}

// The sums of some columns become their moments.
template <class S, class T, class Lanes>
ONEPASS_INLINE Vec<T> finish_sums(const ColumnsMoments<S>& a, index j, const Sums<Vec<T>>& sums, Lanes lanes) {
    const Vec<T> mean = sums.sum * (T(1) / T(a.rows)), m2 = sums.squares - sums.sum * mean;
    store(a.low + j, mean, lanes);
    store(a.m2 + j, m2, lanes);
    return how_astray(mean, m2, T(a.rows));
}

// Once more, and from better pivots, the columns whose pivots were astray. (Others beside them keep theirs and so their
// bits, whatever the vector's width.)
template <bool RANGED, class S>
__attribute__((noinline)) void settle(const ColumnsMoments<S>& a) {
    using T = Arith<S>;
    const Vec<T> one = hidden_one<T>();
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const index n = a.cols - j < WIDTH<T> ? a.cols - j : WIDTH<T>;
        const T* after = RANGED ? a.after + j : nullptr;
        if (!better_pivots(a.pivot + j, a.low + j, a.m2 + j, after, n, T(a.rows))) return;
        const auto shift = shift_at<RANGED, true>(a, j, lanes);
        Sums<Vec<T>> sums = {};
        for (index row = 0; row < a.rows; row += CHUNK) {
            const index rows = a.rows - row < CHUNK ? a.rows - row : CHUNK;
            const Offsets offsets(row, rows, a.stride);
            const auto next = rows == CHUNK ? chunk_sums<true, true>(a.x + j, offsets.at, rows, shift, one, lanes)
                                            : chunk_sums<false, true>(a.x + j, offsets.at, rows, shift, one, lanes);
            sums = row ? sums + next : next;
        }
        finish_sums(a, j, sums, lanes);
    });
}

template <bool RANGED, bool CENTERED, class S>
void moments_of_block(const ColumnsMoments<S>& a) {
    using T = Arith<S>;
    index row = a.rows < CHUNK ? a.rows : CHUNK;
    if (row < CHUNK)
        chunk_of_columns<false, true, RANGED, CENTERED>(a, 0, row);
    else
        chunk_of_columns<true, true, RANGED, CENTERED>(a, 0, CHUNK);
    // (A loop of its own: that is quicker than to ask for each line.)
    if constexpr (!RANGED)
        for (; roomy_first_cache && row + CHUNK <= a.rows; row += CHUNK)
            chunk_of_columns<true, false, false, CENTERED, FIRST>(a, row, CHUNK);
    for (; row + CHUNK <= a.rows; row += CHUNK) chunk_of_columns<true, false, RANGED, CENTERED>(a, row, CHUNK);
    if (row < a.rows) chunk_of_columns<false, false, RANGED, CENTERED>(a, row, a.rows - row);
    if (!CENTERED) return;
    Vec<T> astray = {};
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const Sums<Vec<T>> sums = {load(a.low + j, lanes), load(a.m2 + j, lanes)};
        astray = greater(finish_sums(a, j, sums, lanes), astray);
    });
    if (any_positive(astray)) settle<RANGED>(a);
}

template <class S>
void columns_moments(const ColumnsMoments<S>& a) {
    if (a.before)
        a.centered ? moments_of_block<true, true>(a) : moments_of_block<true, false>(a);
    else
        a.centered ? moments_of_block<false, true>(a) : moments_of_block<false, false>(a);
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
