// Rows of sums: x + residual, rounded as it is written to `sum`, and normalized.
//
//   sum = x + residual,   y = (sum - mean) * rstd * weight + bias
//
// The moments are those of the rounded sums, so y is, bit for bit, what the norm of `sum` would be. (The addition in front
// of a norm, of every transformer: Vaswani et al. 2017.)
#include "kernels/ahead.hpp"
#include "kernels/narrow_rows.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Where the sum is not to be read again, it is written to `held`, too.
template <bool HELD, class S, class Source>
ONEPASS_INLINE void write_sum(const Source& x, S* sum, Arith<S>* held, index n, bool streamed, bool joined, Edge<S>& edge) {
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    const auto value = [=](auto v, index i, auto lanes) ONEPASS_FLAT {
        if constexpr (HELD) store(held + i, v, lanes);
        return v;
    };
    // (In 32 bits y alone is written across lines.)
    const bool across = sizeof(S) < sizeof(Arith<S>) && short_row<S>(2 * n, streamed);
    write_row<Arith<S>>(sum, across ? 0 : to_line(sum), n, source, value, streamed, joined, edge);
}

// Wide rows in bands, all sums of one first: two kinds of turns, each with fewer arrays, are quicker from beyond the second
// cache, too.
template <class S, class AffineAt>
__attribute__((noinline)) void norm_band(const RowsNorm<S>& a, index first, index rows, const AffineAt& affine_at,
                                         Line<Arith<S>>* lines) {
    Edge<S> edge;
    for (index row = first; row < first + rows; ++row) {
        const Added<S> x = {a.x + row * a.x_stride, a.residual + row * a.residual_stride};
        lines[row - first] = row_line(a, x, row);
        write_sum<false>(x, a.sum + row * a.sum_stride, a.held, a.cols, false, false, edge);
    }
    each_stretch<512>(a.y + first * a.y_stride, a.cols, [&](index from, index to) ONEPASS_FLAT {
        for (index row = first; row < first + rows; ++row)
            apply_row(Plain<S>{a.sum + row * a.sum_stride + from}, a.y + row * a.y_stride + from, to - from,
                      lines[row - first], affine_at(from), false, false, edge);
    });
}

// What one reading of a row sends for: all of the row so many rows ahead.
template <class S>
ONEPASS_INLINE Shares<S, 1, 2, Way::both> all_of_later(const RowsNorm<S>& a, const Added<S>& x, index ahead) {
    return {{x.x + ahead * a.x_stride, x.residual + ahead * a.residual_stride},
            0,
            {x.x + soon<S, WIDE_ROW>(a.cols, a.x_stride), x.residual + soon<S, WIDE_ROW>(a.cols, a.residual_stride)}};
}

// What the rows before have begun of the lines of y and of the sum.
template <class S>
struct Edges {
    bool joined, sums_joined;
    Edge<S> y, sum;
};

// Narrow rows are joined side by side, which takes room in the first cache for as many sums: the less, the more that memory
// brings needs. Where conversions take longer than that, wider ones.
constexpr index NARROW = 2 << 10;   // bytes, at most
template <bool STREAM, class S>
ONEPASS_INLINE index narrow_row(bool far) {   // bytes
    constexpr bool HALF = sizeof(S) == 2;
    if (HALF && NATIVE > 16 && !roomy_first_cache) return NATIVE == 64 && STREAM && far ? 1024 : NARROW;
    if (NATIVE < 64) return HALF || STREAM ? 1024 : NARROW;
    if (STREAM && far) return roomy_first_cache ? 384 : 416;
    return HALF ? 768 : STREAM ? 1024 : 1536;
}
template <bool STREAM, class S>
ONEPASS_INLINE bool narrow(const RowsNorm<S>& a) {
    return a.rows >= SIDE && (!STREAM || fill_lines<S>(a.cols)) &&
           a.cols * index(sizeof(S)) <= narrow_row<STREAM, S>(a.far);
}

// All but the last rows, fewer than SIDE; the result is the first of them.
template <bool STREAM, bool CENTERED, class S, class AffineAt>
__attribute__((noinline)) index norm_narrow(const RowsNorm<S>& given, const AffineAt affine_at, Edges<S>& edges) {
    constexpr bool HELD = STREAM || sizeof(S) < sizeof(float);
    const RowsNorm<S> a = given;   // which no store changes
    const index ahead = a.ahead < SIDE ? index(SIDE) : a.ahead,
                room = (a.cols + LANES<float> - 1) / LANES<float> * LANES<float>;
    alignas(PACK) float held[HELD ? SIDE * NARROW / index(sizeof(S)) : 1];
    index row = 0;
    const auto sum_of = [&](index i) ONEPASS_FLAT {
        if constexpr (HELD)
            return Plain<float>{held + (i - row) * room};
        else
            return Plain<S>{a.sum + i * a.sum_stride};
    };
    const auto affine_of = [=](index) ONEPASS_FLAT { return affine_at(0); };
    Gathered<STREAM, S> gathered(a.y, a.across);
    // Rows that all lie end to end are summed as one.
    const bool end_to_end = a.x_stride == a.cols && a.residual_stride == a.cols && a.sum_stride == a.cols && room == a.cols;
    const index at_once = end_to_end ? index(SIDE) : 1;
    for (; row + SIDE <= a.rows; row += SIDE) {
        for (index i = row; i < row + SIDE; i += at_once) {
            const Added<S> x = {a.x + i * a.x_stride, a.residual + i * a.residual_stride};
            write_sum<HELD>(sending<STREAM>(x, all_of_later(a, x, ahead)), a.sum + i * a.sum_stride,
                            HELD ? held + (i - row) * room : nullptr, at_once * a.cols, STREAM,
                            edges.sums_joined && i + at_once < a.rows, edges.sum);
        }
        Line<float> lines[SIDE];
        narrow_lines<CENTERED>(a, row, sum_of, lines);
        write_narrow<STREAM>(a, row, lines, sum_of, affine_of, gathered, edges.joined, edges.y);
    }
    gathered.finish(edges.y, edges.joined && row < a.rows);
    return row;
}

// What the three readings of a row send for, each its third of a later row; where a line is several vectors, each of which
// would send for it, the first for all of x and the last for all of the residual.
template <bool STREAM, int TIME, class S, class Source>
ONEPASS_INLINE auto reading(const RowsNorm<S>& a, const Added<S>& x, const Source& source) {
    const S *later = x.x + a.ahead * a.x_stride, *later_residual = x.residual + a.ahead * a.residual_stride;
    if constexpr (WIDTH<Arith<S>> * index(sizeof(S)) == PACK)
        return sending<STREAM>(source, Shares<S, 3, 2, Way::twice>{{later, later_residual}, a.cols * TIME / 3});
    else
        return sending<(STREAM && TIME != 1)>(source, Shares<S, 1, 1, Way::half>{{TIME == 0 ? later : later_residual}});
}

// The sum first: it may be written over x or residual. One that is streamed would come from memory again.
template <bool STREAM, class S, class AffineAt>
ONEPASS_INLINE void norm_sums(const RowsNorm<S>& a, const AffineAt& affine_at) {
    // Adding once more is quicker than to wait for the line with nothing to write, but where it takes conversions.
    constexpr bool TWICE = !STREAM && sizeof(S) == sizeof(Arith<S>);
    using Affine = decltype(affine_at(0));
    if constexpr (TWICE && Affine::HAS_WEIGHT)
        if (wide(a)) {
            constexpr index BAND = 128;   // rows
            Line<Arith<S>> lines[BAND];
            for (index row = 0; row < a.rows; row += BAND)
                norm_band(a, row, a.rows - row < BAND ? a.rows - row : BAND, affine_at, lines);
            return;
        }
    Edges<S> edges = {rows_join<S>(STREAM, a.cols, a.y_stride), rows_join<S>(STREAM, a.cols, a.sum_stride), {}, {}};
    index row = 0;
    if constexpr (sizeof(Arith<S>) == 4)
        if (narrow<STREAM>(a))
            with_centered<Affine>(a, [&](auto centered) ONEPASS_FLAT {
                row = norm_narrow<STREAM, decltype(centered)::value>(a, affine_at, edges);
            });
    const bool sends_soon =
        STREAM && NATIVE == 64 && sent_soon<S>(a.cols);   // (of narrower vectors each line is sent for often)
    for (; row < a.rows; ++row) {
        const bool more = row + 1 < a.rows;
        const Added<S> x = {a.x + row * a.x_stride, a.residual + row * a.residual_stride};
        S *y = a.y + row * a.y_stride, *sum = a.sum + row * a.sum_stride;
        Line<Arith<S>> line;
        if constexpr (TWICE) line = row_line(a, x, row);
        const auto write = [&](const auto& source) ONEPASS_FLAT {
            write_sum<STREAM>(reading<STREAM, 0>(a, x, source), sum, a.held, a.cols, STREAM, edges.sums_joined && more,
                              edges.sum);
        };
        if (sends_soon)
            write(sending<STREAM>(x, Shares<S, 1, 2, Way::straight>{{x.x + SOON<S>, x.residual + SOON<S>}}));
        else
            write(x);
        const auto sums = [&] {
            if constexpr (STREAM)
                return Plain<Arith<S>>{a.held};
            else
                return Plain<S>{sum};
        }();
        if constexpr (!TWICE) line = row_line(a, reading<STREAM, 1>(a, x, sums), row);
        apply_row(reading<STREAM, 2>(a, x, sums), y, a.cols, line, affine_at(0), STREAM, edges.joined && more, edges.y);
    }
}

template <class S>
void rows_add_norm(const RowsNorm<S>& a) {
    with_affine(a, [&](const auto& affine_at)
                       ONEPASS_FLAT { a.stream ? norm_sums<true>(a, affine_at) : norm_sums<false>(a, affine_at); });
    if (a.stream) stream_fence();
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.rows_add_norm = rows_add_norm<S>;
}

}   // namespace

void add_rows_add(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
