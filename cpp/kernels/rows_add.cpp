// Rows of sums: x + residual, rounded as it is written to `sum`, and normalized.
//
//   sum = x + residual,   y = (sum - mean) * rstd * weight + bias
//
// The moments are those of the rounded sums, so y is, bit for bit, what the norm of `sum` would be. (The addition in front
// of a norm, of every transformer: Vaswani et al. 2017.)
#include "kernels/ahead.hpp"
#include "kernels/row_norm.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

template <class S, class Source>
ONEPASS_INLINE void write_sum(const Source& x, S* sum, index n, bool streamed, bool joined, Edge<S>& edge) {
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    const auto value = [](auto v, index, auto) ONEPASS_FLAT { return v; };
    write_row<Arith<S>>(sum, n, source, value, streamed, joined, edge);
}

// The sum first: it may be written over x or residual. One that is streamed is added again for y, which is quicker than to
// read it.
template <bool STREAM, class S, class AffineAt>
ONEPASS_INLINE void norm_sums(const RowsNorm<S>& a, const AffineAt& affine_at) {
    const bool joined = rows_join<S>(STREAM, a.cols, a.y_stride), sums_joined = rows_join<S>(STREAM, a.cols, a.sum_stride);
    Edge<S> edge, sum_edge;
    for (index row = 0; row < a.rows; ++row) {
        const bool more = row + 1 < a.rows;
        const Added<S> x = {a.x + row * a.x_stride, a.residual + row * a.residual_stride};
        const auto reading = [&](int time) ONEPASS_FLAT {
            const S *later = x.x + a.ahead * a.x_stride, *later_residual = x.residual + a.ahead * a.residual_stride;
            return sending<STREAM>(x, Shares<S, 3, 2>{{later, later_residual}, a.cols * time / 3});
        };
        S *y = a.y + row * a.y_stride, *sum = a.sum + row * a.sum_stride;
        const Line<Arith<S>> line = row_line(a, reading(0), row);
        write_sum(reading(1), sum, a.cols, STREAM, sums_joined && more, sum_edge);
        if constexpr (STREAM)
            apply_row(reading(2), y, a.cols, line, affine_at(0), true, joined && more, edge);
        else
            apply_row(Plain<S>{sum}, y, a.cols, line, affine_at(0), false, false, edge);
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
