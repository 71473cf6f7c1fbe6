// Rows that are groups of channels, or parts of groups: their moments, and lines applied to them.
//
//   y = (x - mean) * rstd * weight + bias,   weight and bias of a channel
//
// (Wu & He 2018; Ulyanov, Vedaldi & Lempitsky 2016; Ioffe & Szegedy 2015.) A channel is a whole row, or a segment of one.
#include "kernels/narrow_rows.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// What comes behind the standardized value: weight and bias of a channel.
template <class T>
struct ByRow {
    T weight, bias;
    bool across;
    template <class S>
    ONEPASS_INLINE index lead(const S* y, bool) const {
        return across ? 0 : to_line(y);
    }
    template <class Lanes>
    ONEPASS_INLINE Vec<T> operator()(Vec<T> v, index, Lanes) const {
        return v * splat(weight) + splat(bias);
    }
};

// (Sent for twice: moments are quicker than memory, so that some of what is sent for is lost. If not joined, AGAIN.)
template <bool FAR, bool AGAIN = false, class S>
ONEPASS_INLINE auto reading(const Plain<S>& x) {
    return sending<FAR>(
        x, Shares<S, 1, 2, Way::both, AGAIN>{{x.x + BEHIND<S>, x.x + 2 * BEHIND<S>}, 0, {x.x + SOON<S>, x.x + SOON<S>}});
}

// Weight and bias of segment i of a row.
template <bool FAR, class S>
ONEPASS_INLINE ByRow<Arith<S>> channel_of(const RowsNorm<S>& a, index segments, index row, index i) {
    using T = Arith<S>;
    const RowAffine<T>& of = a.affine;
    const index channel = (of.first + row) % of.period * segments + i;
    return {of.weight ? of.weight[channel] : T(1), of.bias ? of.bias[channel] : T(0), short_row<S>(of.segment, FAR)};
}

// Rows that are narrow enough to be joined side by side, the wider the longer they compute: what is joined takes room in
// the first cache, which memory needs as well.
template <bool FAR, class S>
ONEPASS_INLINE bool narrow(const RowsNorm<S>& a) {
    const index most = NATIVE == 16 || sizeof(S) == 2 ? 4096 : FAR ? 1280 : 2048;   // bytes
    return a.rows >= SIDE && (!FAR || fill_lines<S>(a.cols)) && a.cols * index(sizeof(S)) <= most;
}

// Narrow rows that are a segment each, all but the last, fewer than SIDE; the result is the first of them.
template <bool FAR, class S>
__attribute__((noinline)) index norm_narrow(const RowsNorm<S>& given, bool joined, Edge<S>& edge) {
    const RowsNorm<S> a = given;   // which no store to y changes
    const auto source_of = [&](index i) ONEPASS_FLAT { return Plain<S>{a.x + i * a.x_stride}; };
    const auto affine_of = [&](index i) ONEPASS_FLAT { return channel_of<FAR>(a, 1, i, 0); };
    Gathered<FAR, S> gathered(a.y, a.across);
    index row = 0;
    for (; row + SIDE <= a.rows; row += SIDE) {
        Line<float> lines[SIDE];
        const auto reading_of = [&](index i) ONEPASS_FLAT { return reading<FAR>(source_of(i)); };
        narrow_lines<true>(a, row, reading_of, lines);
        write_narrow<FAR>(a, row, lines, source_of, affine_of, gathered, joined, edge);
    }
    gathered.finish(edge, joined && row < a.rows);
    return row;
}

// A weight and a bias for every segment of a row. It is read twice: from a cache; or, where results are streamed, from FAR
// away, and both readings send for all of a later row (rows.cpp says why), one of them twice as far as the other: straight
// the second, in two steps the first, as it was quicker.
template <bool FAR, class S>
ONEPASS_INLINE void norm_segments(const RowsNorm<S>& a) {
    using T = Arith<S>;
    const RowAffine<T>& of = a.affine;
    const index segments = a.cols / of.segment;
    const bool joined = rows_join<S>(FAR, a.cols, a.y_stride) && of.segment >= 2 * Edge<S>::LINE;
    Edge<S> edge;
    index row = 0;
    if constexpr (sizeof(T) == 4)
        if (segments == 1 && narrow<FAR>(a)) row = norm_narrow<FAR>(a, joined, edge);
    for (; row < a.rows; ++row) {
        const S* x = a.x + row * a.x_stride;
        const index ahead = a.ahead * a.x_stride;
        const S *next = x + ahead, *farther = x + 2 * ahead;
        const auto first = sending<FAR>(
            Plain<S>{x}, Shares<S, 1, 1, Way::both, true>{
                             {roomy_first_cache ? next : farther}, 0, {x + soon<S, WIDE_ROW>(a.cols, a.x_stride)}});
        const Line<T> line = row_line<true>(a, first, row);
        for (index i = 0; i < segments; ++i) {
            const index from = i * of.segment;
            const bool more = row + 1 < a.rows || i + 1 < segments;
            const auto second =
                sending<FAR>(Plain<S>{x + from}, Shares<S, 1, 1, Way::half>{{roomy_first_cache ? farther : next}, from});
            apply_row(second, a.y + row * a.y_stride + from, of.segment, line, channel_of<FAR>(a, segments, row, i), FAR,
                      joined && more, edge);
        }
    }
    if (FAR) stream_fence();
}

template <class S>
void rows_norm_segments(const RowsNorm<S>& a) {
    a.stream ? norm_segments<true>(a) : norm_segments<false>(a);
}

template <class S>
ONEPASS_INLINE void put_moments(const RowsMoments<S>& a, index row, const Moments& m) {
    a.mean[row] = m.mean;
    a.low[row] = m.low;
    a.m2[row] = m.m2;
}

// (From memory, wider rows leave no time for that.)
template <bool FAR, class S>
ONEPASS_INLINE bool narrow(const RowsMoments<S>& a) {
    return a.cols * index(sizeof(S)) <= (FAR ? 1024 : 2048);
}

// All but the last rows, fewer than SIDE; the result is the first of them.
template <bool FAR, class S>
__attribute__((noinline)) index narrow_moments(const RowsMoments<S>& a) {
    const double count = double(a.cols), of_count = 1.0 / count;
    index first = 0;
    for (; first + SIDE <= a.rows; first += SIDE) {
        const auto row = [&](int i) ONEPASS_FLAT { return Plain<S>{a.x + (first + i) * a.stride}; };
        const auto sums_of = [&](int i, float pivot)
                                 ONEPASS_FLAT { return lanes_of<true>(reading<FAR>(row(i)), a.cols, pivot); };
        Joined joined;
        join_beside<true>(a.cols, row, sums_of, joined);
        for (int i = 0; i < SIDE; ++i)
            put_moments(a, first + i, settled<true, float>(joined.of(i, count, of_count), row(i), a.cols, a.range));
    }
    return first;
}

template <bool FAR, class S>
ONEPASS_INLINE void moments_of_rows(const RowsMoments<S>& a) {
    using T = Arith<S>;
    const bool ranged = a.range.before != 1 || a.range.after != 1;
    index row = 0;
    if constexpr (sizeof(T) == 4)
        if (!ranged && narrow<FAR>(a)) row = narrow_moments<FAR>(a);
    for (; row < a.rows; ++row) {
        const Plain<S> x = {a.x + row * a.stride};
        put_moments(a, row,
                    ranged ? row_moments<true, T>(x, a.cols, a.range)
                           : settled<true, T>(first_moments<true, T>(reading<FAR, true>(x), a.cols), x, a.cols, a.range));
    }
}

template <class S>
void rows_moments(const RowsMoments<S>& a) {
    a.far ? moments_of_rows<true>(a) : moments_of_rows<false>(a);
}

template <bool FAR, class S>
ONEPASS_INLINE void apply_lines(const Apply<S>& a) {
    using T = Arith<S>;
    const Lines<T>& of = a.line;
    const bool joined = rows_join<S>(FAR, a.cols, a.y_stride);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const T before = of.before ? of.before[row] : T(1), after = of.after ? of.after[row] : T(1);
        const Line<T> line = {of.mean[row], of.low[row], of.scale[row], before, after, before != 1 || after != 1};
        const ByRow<T> affine = {of.weight ? of.weight[row] : T(1), of.bias ? of.bias[row] : -T(0),
                                 short_row<S>(a.cols, FAR)};
        const S* x = a.x + row * a.x_stride;
        apply_row(sending<FAR>(Plain<S>{x}, Shares<S, 1, 1, Way::straight>{{x + BEHIND<S>}}), a.y + row * a.y_stride,
                  a.cols, line, affine, FAR, joined && row + 1 < a.rows, edge);
    }
    if (FAR) stream_fence();
}

template <class S>
void rows_apply(const Apply<S>& a) {
    a.stream ? apply_lines<true>(a) : apply_lines<false>(a);
}

template <class S>
void widen_all(const S* x, Arith<S>* y, index n) {
    each_vector<Arith<S>>(n, [&](index i, auto lanes) ONEPASS_FLAT { store(y + i, load(x + i, lanes), lanes); });
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.rows_norm_segments = rows_norm_segments<S>;
    kernels.rows_moments = rows_moments<S>;
    kernels.rows_apply = rows_apply<S>;
    kernels.widen = widen_all<S>;
}

}   // namespace

void add_rows_apply(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
