// Columns normalized: lines applied to them, an element a column.
//
//   y = (x - mean) * rstd * weight + bias
//
// (Ioffe & Szegedy 2015.) weight and bias may be elements of rows in place of columns.
// Invariant: each element has the same steps, whatever is streamed, sent for or shared between lines.
#include "kernels/ahead.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

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
        if constexpr (COLUMNS_PAIR<S> && AFFINE != Affine::row && !APART)
            if (row + 1 < a.rows && pair<S>(a.stream, a.y_stride)) {
                write_two<T>(y, a.y_stride, lead_of(y, line.mean, false), a.cols,
                             [&](int k, index j, auto lanes)
                                 ONEPASS_FLAT { return value(load(x + k * a.x_stride + j, lanes), j, lanes); });
                ++row;
                continue;
            }
        write_row<T>(y, lead_of(y, line.mean, a.stream), a.cols, source, value, a.stream, joined && row + 1 < a.rows, edge,
                     Nothing{},
                     Shares<S, 1, 1, Way::both, true>{
                         {x + behind<S>(a.cols, a.x_stride)}, 0, {x + soon<S, WIDE_COLUMNS>(a.cols, a.x_stride)}});
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
    kernels.columns_apply = columns_apply<S>;
}

}   // namespace

void add_columns_apply(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
