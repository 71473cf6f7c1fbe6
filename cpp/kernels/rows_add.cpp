// Rows of sums: x + residual, rounded as it is written to `sum`, and normalized.
//
//   sum = x + residual,   y = (sum - mean) * rstd * weight + bias
//
// The moments are those of the rounded sums, so y is, bit for bit, what the norm of `sum` would be. (The addition in front
// of a norm, of every transformer: Vaswani et al. 2017.)
#include "kernels/row_norm.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// A sum that is streamed is added again for y, which is quicker than to read it. Memory would rest meanwhile: so while a
// row is written, the next one is sent for.
template <class S>
struct Sent {
    Added<S> sum;
    index ahead;
    template <class Lanes>
    ONEPASS_INLINE Vec<Arith<S>> at(index i, Lanes lanes) const {
        __builtin_prefetch(sum.x + i + ahead, 0, 2);
        __builtin_prefetch(sum.residual + i + ahead, 0, 2);
        return sum.at(i, lanes);
    }
};

template <class S, class Source>
ONEPASS_INLINE void write_sum(const Source& x, S* sum, index n, bool streamed, bool joined, Edge<S>& edge) {
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    const auto value = [](auto v, index, auto) ONEPASS_FLAT { return v; };
    write_row<Arith<S>>(sum, n, source, value, streamed, joined, edge);
}

// The sum first: it may be written over x or residual.
template <class S, class Affine>
ONEPASS_INLINE void norm_sum(const RowsNorm<S>& a, index row, const Affine& affine, Edge<S>& edge, Edge<S>& sum_edge) {
    const Added<S> x = {a.x + row * a.x_stride, a.residual + row * a.residual_stride};
    S* y = a.y + row * a.y_stride;
    S* sum = a.sum + row * a.sum_stride;
    const Line<Arith<S>> line = row_line(a, x, row);
    if (a.stream) {
        const Sent<S> sent = {x, a.x_stride == a.cols && a.residual_stride == a.cols ? a.cols : 0};
        const bool more = row + 1 < a.rows;
        write_sum(sent, sum, a.cols, true, more && rows_join<S>(true, a.cols, a.sum_stride), sum_edge);
        apply_row(sent, y, a.cols, line, affine, true, more && rows_join<S>(true, a.cols, a.y_stride), edge);
    } else {
        write_sum(x, sum, a.cols, false, false, sum_edge);
        apply_row(Plain<S>{sum}, y, a.cols, line, affine, false, false, edge);
    }
}

template <class S>
void rows_add_norm(const RowsNorm<S>& a) {
    with_affine(a, [&](const auto& affine_at) ONEPASS_FLAT {
        Edge<S> edge, sum_edge;
        for (index row = 0; row < a.rows; ++row) norm_sum(a, row, affine_at(0), edge, sum_edge);
    });
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
