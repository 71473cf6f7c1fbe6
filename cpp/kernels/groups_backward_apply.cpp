// dx of groups that span many rows: lines applied to x and dy, an element a column or a row.
//
//   dx = (dy weight - shift - (x - mean) slope) gain
//
// with shift = mean(g), slope = mean(g (x - mean)) rstd^2 and gain = rstd, in the terms of groups_backward.cpp, which takes
// the sums of which they are made (Ioffe & Szegedy 2015).
// Invariant: each element has the same steps, whatever is streamed, sent for or shared between lines.
#include "kernels/ahead.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// A parameter of the line: the same for a whole row, or an element a column.
template <class T>
struct Held {
    Vec<T> v;
    template <class Lanes>
    ONEPASS_INLINE Vec<T> at(index, Lanes) const {
        return v;
    }
};
template <class T, bool ACROSS>
struct Loaded {
    const T* p;
    template <class Lanes>
    ONEPASS_INLINE Vec<T> at(index j, Lanes lanes) const {
        return load<ACROSS>(p + j, lanes);
    }
};
enum class Parameters { by_row, by_column, across };

// PLAIN: the statistics were given, or did not see these elements. LOW: with the mean's low part.
template <bool PLAIN, bool WEIGHT, bool LOW, bool RANGED, Parameters PARAMETERS, class S>
void write_gradient(Gradient<S> a) {
    using T = Arith<S>;
    constexpr bool BY_ROW = PARAMETERS == Parameters::by_row;
    const bool joined = rows_join<S>(a.stream, a.cols, a.stride);
    // (Rows that wait for no parameters are read fast enough.)
    constexpr int SENT = BY_ROW ? 0 : PLAIN ? 1 : 2;
    const index dy_behind = behind<S>(a.cols, a.dy_stride), x_behind = behind<S>(a.cols, a.x_stride);
    const index dy_soon = soon<S, WIDE_COLUMNS>(a.cols, a.dy_stride), x_soon = soon<S, WIDE_COLUMNS>(a.cols, a.x_stride);
    Edge<S> edge;
    index channel = a.first;
    for (index row = 0; row < a.rows; ++row) {
        const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
        const index line = a.wraps ? channel : row;
        const auto of = [&](const T* p, index i) ONEPASS_FLAT {
            if constexpr (BY_ROW)
                return Held<T>{splat(p[i])};
            else
                return Loaded<T, PARAMETERS == Parameters::across>{p};
        };
        const auto mean = of(a.mean, line), low = of(a.low, line), shift = of(a.shift, line), slope = of(a.slope, line),
                   gain = of(a.gain, line), before = of(a.before, line), after = of(a.after, line);
        const auto weight = WEIGHT ? of(a.weight, channel) : gain;
        if (BY_ROW && ++channel == a.channels) channel = 0;
        const auto row_source = [&](int k, index j, auto lanes) ONEPASS_FLAT {
            Both<T> of = {{}, load(dy + k * a.dy_stride + j, lanes)};
            if constexpr (!PLAIN) of.x = load(x + k * a.x_stride + j, lanes);
            return of;
        };
        const auto source = [&](index j, auto lanes) ONEPASS_FLAT { return row_source(0, j, lanes); };
        const auto value = [&](Both<T> of, index j, auto lanes) ONEPASS_FLAT {
            Vec<T> g = of.dy;
            if constexpr (WEIGHT) g = g * weight.at(j, lanes);
            if constexpr (!PLAIN) {
                Vec<T> v = of.x;
                if constexpr (RANGED) v = v * before.at(j, lanes);
                v = v - mean.at(j, lanes);
                if constexpr (RANGED) v = v * after.at(j, lanes);
                if constexpr (LOW) v = v - low.at(j, lanes);
                g = (g - shift.at(j, lanes)) - v * slope.at(j, lanes);
            }
            g = g * gain.at(j, lanes);
            if constexpr (RANGED) g = (g * before.at(j, lanes)) * after.at(j, lanes);
            return g;
        };
        S* dx = a.dx + row * a.stride;
        if (BY_ROW && WITH_MASKS && a.cols <= WIDTH<T> && !a.stream) {
            const First lanes = {a.cols};
            store(dx, value(source(0, lanes), 0, lanes), lanes);
            continue;
        }
        if constexpr (COLUMNS_PAIR<S> && !BY_ROW)
            if (row + 1 < a.rows && pair<S>(a.stream, a.stride)) {
                write_two<T>(dx, a.stride, lead_of(dx, a.mean, false), a.cols,
                             [&](int k, index j, auto lanes)
                                 ONEPASS_FLAT { return value(row_source(k, j, lanes), j, lanes); });
                ++row;
                continue;
            }
        const Shares<S, 1, SENT, Way::both, true> later = {{dy + dy_behind, x + x_behind}, 0, {dy + dy_soon, x + x_soon}};
        write_row<T>(dx, BY_ROW ? to_line(dx) : lead_of(dx, a.mean, a.stream), a.cols, source, value, a.stream,
                     joined && row + 1 < a.rows, edge, Nothing{}, later);
    }
    if (a.stream) stream_fence();
}

template <bool PLAIN, bool WEIGHT, Parameters PARAMETERS, class S>
ONEPASS_INLINE void choose_steps(const Gradient<S>& a) {
    if (a.ranged)
        write_gradient<PLAIN, WEIGHT, !PLAIN, true, PARAMETERS>(a);
    else if (!PLAIN && a.lows)
        write_gradient<PLAIN, WEIGHT, !PLAIN, false, PARAMETERS>(a);
    else
        write_gradient<PLAIN, WEIGHT, false, false, PARAMETERS>(a);
}
template <Parameters PARAMETERS, class S>
void choose_gradient(const Gradient<S>& a) {
    if (a.plain)
        a.weight ? choose_steps<true, true, PARAMETERS>(a) : choose_steps<true, false, PARAMETERS>(a);
    else
        a.weight ? choose_steps<false, true, PARAMETERS>(a) : choose_steps<false, false, PARAMETERS>(a);
}
template <class S>
void columns_gradient(const Gradient<S>& a) {
    if constexpr (MAY_CROSS<S, Arith<S>>)
        if (across(a.dx, a.stride, a.mean, a.stream)) return choose_gradient<Parameters::across>(a);
    choose_gradient<Parameters::by_column>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_gradient = columns_gradient<S>;
    kernels.rows_gradient = choose_gradient<Parameters::by_row, S>;
}

}   // namespace

void add_groups_backward_apply(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
