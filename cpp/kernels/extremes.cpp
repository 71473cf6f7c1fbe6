// Extremes: the least and the greatest of each row or column in one read, and the groups scaled from them to a range.
//
//   y = lower + (x - min) * ((upper - lower) / (max - min))
//
// (Min-max scaling, as Han, Kamber & Pei 2011 give it; scikit-learn's MinMaxScaler.)
//
// Invariant: no rounding leaves the range, reverses an order, or misses an end. Each step rises with x, so y does; min
// gives 0 * scale + lower; what rounds past upper is cut there, and max is given upper itself. The scale is the true
// quotient, rounded once, so that three roundings of what is scaled and one of y are all there are.
//
// The order in which numbers meet does not matter to their extremes, so any cut into pieces gives the same bits.
#include "kernels/ahead.hpp"
#include "kernels/moments.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"
#include "simd/halves.hpp"
#include "simd/order.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;   // rows of a column
constexpr int HELD = 4;    // vectors of a row

ONEPASS_INLINE Vec<float> filled(Vec<float> v, Vec<float>, All) { return v; }
ONEPASS_INLINE Vec<double> filled(Vec<double> v, Vec<double>, All) { return v; }
template <class T>
ONEPASS_INLINE Vec<T> filled(Vec<T> v, Vec<T> rest, First lanes) {
    return blend(v, rest, lanes.n);
}

// What the lanes of a vector have of a row. The instructions lose NaN in one of their arguments, and which one they are
// given is a matter of order. So it is caught apart: v - v is 0, or NaN for NaN and for infinities.
template <class T>
struct LaneExtremes {
    Vec<T> least, greatest, bad;
};
template <bool FAR, class S>
ONEPASS_INLINE LaneExtremes<Arith<S>> lanes_of(const Extremes<S>& a, index row) {
    using T = Arith<S>;
    const S* x = a.x + row * a.stride;
    const index cols = a.cols;
    const Shares<S, 1, FAR, Way::straight> later = {{x + (a.stride == cols ? BEHIND<S> : behind<S>(cols, a.stride))}};
    const Vec<T> first = splat(element(x));
    Vec<T> min[HELD] = {first, first, first, first}, max[HELD] = {first, first, first, first}, bad[HELD] = {};
    const auto take = [&](int k, Vec<T> v) ONEPASS_FLAT {
        min[k] = lesser(v, min[k]);
        max[k] = greater(v, max[k]);
        bad[k] = bad[k] + (v - v);
    };
    index i = 0;
    for (; i + HELD * WIDTH<T> <= cols; i += HELD * WIDTH<T>)
#pragma GCC unroll 4
        for (int k = 0; k < HELD; ++k) {
            later.at(i + k * WIDTH<T>);
            take(k, load(x + i + k * WIDTH<T>));
        }
    each_vector<T>(cols - i,
                   [&](index j, auto lanes) ONEPASS_FLAT { take(0, filled(load(x + i + j, lanes), first, lanes)); });
    return {lesser(lesser(min[0], min[1]), lesser(min[2], min[3])),
            greater(greater(max[0], max[1]), greater(max[2], max[3])), (bad[0] + bad[1]) + (bad[2] + bad[3])};
}

// As many rows at once as a vector has lanes: joined side by side, until each lane has those of a row. The result is the
// first of the last ones, which are fewer.
template <bool FAR, class S>
ONEPASS_INLINE index join_rows(const Extremes<S>& a) {
    const auto lower = [](Vec<float> x, Vec<float> y, int) ONEPASS_FLAT { return lesser(x, y); };
    const auto upper = [](Vec<float> x, Vec<float> y, int) ONEPASS_FLAT { return greater(x, y); };
    index row = 0;
    for (; row + SIDE <= a.rows; row += SIDE) {
        Vec<float> least[SIDE], greatest[SIDE], bad[SIDE];
        for (int i = 0; i < SIDE; ++i) {
            const LaneExtremes<float> of = lanes_of<FAR>(a, row + i);
            least[beside(i)] = of.least;
            greatest[beside(i)] = of.greatest;
            bad[beside(i)] = of.bad;
        }
        const Vec<float> nan = fold_beside(bad, Plus());   // or 0
        if (a.min) store(a.min + row, fold_beside(least, lower) + nan);
        if (a.max) store(a.max + row, fold_beside(greatest, upper) + nan);
    }
    return row;
}

template <bool FAR, class S>
ONEPASS_INLINE void extremes_of_rows(const Extremes<S>& a) {
    using T = Arith<S>;
    index row = 0;
    if constexpr (sizeof(T) == 4) row = join_rows<FAR>(a);
    for (; row < a.rows; ++row) {
        const LaneExtremes<T> of = lanes_of<FAR>(a, row);
        const bool finite = !any_nan(of.bad);
        if (a.min) a.min[row] = finite ? least_lane(of.least) : T(__builtin_nan(""));
        if (a.max) a.max[row] = finite ? -least_lane(Vec<T>{-of.greatest.v}) : T(__builtin_nan(""));
    }
}

template <class S>
void rows_extremes(const Extremes<S>& a) {
    a.far ? extremes_of_rows<true>(a) : extremes_of_rows<false>(a);
}

// One chunk of all columns, met with what the rows before it gave. A NaN there stays: it is the second argument.
template <bool WHOLE, class S>
ONEPASS_INLINE void chunk_of_columns(Extremes<S> a, index row, index rows) {
    using T = Arith<S>;
    index at[CHUNK];
    for (index i = 0; i < CHUNK; ++i) at[i] = (i < rows ? row + i : 0) * a.stride;
    Ahead<S, CHUNK * WIDTH<Arith<S>>> ahead(a.x + (row + CHUNK) * a.stride, a.stride, a.cols);
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const S* x = a.x + j;
        if (WHOLE && a.far) ahead.step();
        Vec<T> least, greatest, bad = {};
        if constexpr (WHOLE) {
            Vec<T> v[CHUNK], min[CHUNK / 2], max[CHUNK / 2];
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) v[i] = load(x + at[i], lanes);
#pragma GCC unroll 4
            for (int i = 0; i < CHUNK / 2; ++i) {
                min[i] = lesser(v[i], v[i + 4]);
                max[i] = greater(v[i], v[i + 4]);
                bad = bad + ((v[i] - v[i]) + (v[i + 4] - v[i + 4]));
            }
            least = lesser(lesser(min[0], min[1]), lesser(min[2], min[3]));
            greatest = greater(greater(max[0], max[1]), greater(max[2], max[3]));
        } else {
            least = greatest = load(x + at[0], lanes);
            for (index i = 0; i < rows; ++i) {
                const Vec<T> v = load(x + at[i], lanes);
                least = lesser(v, least);
                greatest = greater(v, greatest);
                bad = bad + (v - v);
            }
        }
        store(a.min + j, lesser(least, load(a.min + j, lanes)) + bad, lanes);
        store(a.max + j, greater(greatest, load(a.max + j, lanes)) + bad, lanes);
    });
}

template <class S>
void columns_extremes(const Extremes<S>& a) {
    using T = Arith<S>;
    const Vec<T> infinite = splat(T(__builtin_inf()));
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        store(a.min + j, infinite, lanes);
        store(a.max + j, Vec<T>{-infinite.v}, lanes);
    });
    index row = 0;
    for (; row + CHUNK <= a.rows; row += CHUNK) chunk_of_columns<true>(a, row, CHUNK);
    if (row < a.rows) chunk_of_columns<false>(a, row, a.rows - row);
}

// ---- from extremes to scales ----

// Where the differences of a group and its scale stay within the arithmetic as they are.
template <class T>
struct Plain;
template <>
struct Plain<float> {
    static constexpr double widest = 0x1.fffffep+127, flattest = 0x1p-126, steepest = 0x1p+126;
    static constexpr int power = 126;   // of two, either way a normal number
};
template <>
struct Plain<double> {
    static constexpr double widest = 0x1.fffffffffffffp+1023, flattest = 0x1p-900, steepest = 0x1p+900;
    static constexpr int power = 1022;
};

struct Quotient {
    double width, scale;
};

// (upper - lower) / (max - min) as if the differences were exact: double needs what they leave over, float does not.
template <class T>
__attribute__((always_inline)) inline Quotient quotient(Ends<T> ends, double min, double max, double after) {
    if constexpr (sizeof(T) == sizeof(double)) {
        const Pair over = two_sum(ends.upper, -ends.lower), under = two_sum(max, -min);
        const double width = under.high * after, q = over.high / width;
        const double left = (__builtin_fma(-q, width, over.high) + over.low) - q * (under.low * after);
        return {width, q + left / width};
    } else {
        const double width = (max - min) * after;
        return {width, (double(ends.upper) - double(ends.lower)) / width};
    }
}

template <class T>
__attribute__((always_inline)) inline bool is_plain(const Quotient& q) {
    return (q.width == 0.0) |
           ((q.width <= Plain<T>::widest) & (q.scale >= Plain<T>::flattest) & (q.scale <= Plain<T>::steepest));
}

// Powers of two bring the width of the group to [1, 2); of a group that is not finite nothing comes out but NaN.
template <class T>
__attribute__((noinline)) bool rescale(const FinishExtremes<T>& a, index g) {
    const T min = a.min[g], max = a.max[g];
    if (!(max - max == 0 && min - min == 0)) {
        a.by.min[g] = a.by.max[g] = a.by.scale[g] = T(__builtin_nan(""));
        return true;
    }
    const double width = double(max) - double(min);
    int exponent = 0, halved = 0;
    if (width <= Plain<double>::widest) {
        (void)__builtin_frexp(width, &exponent);
    } else {
        (void)__builtin_frexp(double(max) / 2 - double(min) / 2, &exponent);
        halved = 1;
    }
    constexpr int power = Plain<T>::power;
    const int whole = 1 - exponent - halved, part = whole > power ? power : whole < -power ? -power : whole;
    const T before = T(__builtin_ldexp(1.0, part)), after = T(__builtin_ldexp(1.0, whole - part));
    a.by.before[g] = before;
    a.by.after[g] = after;
    a.by.min[g] = min * before;
    a.by.scale[g] = T(quotient(a.ends, double(min * before), double(max * before), double(after)).scale);
    return false;
}

template <class T>
bool finish_extremes(const FinishExtremes<T>& a) {
    constexpr index TILE = 64;
    bool all = true;
    for (index start = 0; start < a.groups; start += TILE) {
        const index n = a.groups - start < TILE ? a.groups - start : TILE;
        const Ends<T> ends = a.ends;
        const T *from_min = a.min + start, *from_max = a.max + start;
        // Through arrays of its own, so that the loop becomes vector code.
        T max[TILE], scale[TILE];
        long plain[TILE];
        for (index g = 0; g < n; ++g) {
            const Quotient q = quotient(ends, double(from_min[g]), double(from_max[g]), 1.0);
            plain[g] = is_plain<T>(q) ? 1 : 0;
            // A constant group: its one number is the lower end, not the upper.
            scale[g] = q.width == 0.0 ? T(0) : T(q.scale);
            max[g] = q.width == 0.0 ? T(__builtin_nan("")) : from_max[g];
        }
        for (index g = 0; g < n; ++g) {
            a.by.min[start + g] = from_min[g];
            a.by.max[start + g] = max[g];
            a.by.scale[start + g] = scale[g];
            a.by.before[start + g] = a.by.after[start + g] = T(1);
        }
        for (index g = 0; g < n; ++g)
            if (!plain[g]) all &= rescale(a, start + g);
    }
    return all;
}

// ---- apply ----

template <class T>
struct Line {
    Vec<T> min, max, scale, before, after;
};

template <bool RANGED, class T>
ONEPASS_INLINE Vec<T> scaled(Vec<T> x, const Line<T>& by, Vec<T> lower, Vec<T> upper) {
    Vec<T> v = x;
    if constexpr (RANGED) v = v * by.before;
    v = v - by.min;
    if constexpr (RANGED) v = v * by.after;
    v = v * by.scale + lower;
    return where_equal(x, by.max, upper, lesser(upper, v));   // (a NaN of v stays: it is the second argument)
}

template <bool RANGED, class S>
ONEPASS_INLINE void scale_row(const Scale<S>& a, index row, bool joined, Edge<S>& edge) {
    using T = Arith<S>;
    const S* x = a.x + row * a.x_stride;
    const Vec<T> lower = splat(a.ends.lower), upper = splat(a.ends.upper);
    const Line<T> by = {splat(a.by.min[row]), splat(a.by.max[row]), splat(a.by.scale[row]),
                        splat(RANGED ? a.by.before[row] : T(1)), splat(RANGED ? a.by.after[row] : T(1))};
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return load(x + i, lanes); };
    const auto value = [&](Vec<T> v, index, auto) ONEPASS_FLAT { return scaled<RANGED>(v, by, lower, upper); };
    const Shares<S, 1, 1, Way::straight> later = {{x + behind<S>(a.cols, a.x_stride)}};
    S* y = a.y + row * a.y_stride;
    const index lead = short_row<S>(a.cols, a.stream) ? 0 : to_line(y);
    write_row<T>(y, lead, a.cols, source, value, a.stream, joined, edge, Nothing{}, later);
}

template <class S>
void rows_scale(const Scale<S>& a) {
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const bool more = joined && row + 1 < a.rows;
        if (a.by.before && (a.by.before[row] != 1 || a.by.after[row] != 1))
            scale_row<true>(a, row, more, edge);
        else
            scale_row<false>(a, row, more, edge);
    }
    if (a.stream) stream_fence();
}

// By value: what is referred to, any store might change.
template <bool RANGED, bool ACROSS, class S>
void scale_columns(Scale<S> a) {
    using T = Arith<S>;
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    const Vec<T> lower = splat(a.ends.lower), upper = splat(a.ends.upper);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const S* x = a.x + row * a.x_stride;
        const Scales<T> of = a.by;
        const auto source = [&](index j, auto lanes) ONEPASS_FLAT { return load(x + j, lanes); };
        const auto value = [&](Vec<T> v, index j, auto lanes) ONEPASS_FLAT {
            Line<T> by = {load<ACROSS>(of.min + j, lanes),
                          load<ACROSS>(of.max + j, lanes),
                          load<ACROSS>(of.scale + j, lanes),
                          {},
                          {}};
            if constexpr (RANGED) {
                by.before = load(of.before + j, lanes);
                by.after = load(of.after + j, lanes);
            }
            return scaled<RANGED>(v, by, lower, upper);
        };
        S* y = a.y + row * a.y_stride;
        write_row<T>(y, lead_of(y, of.min, a.stream), a.cols, source, value, a.stream, joined && row + 1 < a.rows, edge,
                     Nothing{},
                     Shares<S, 1, 1, Way::both, true>{
                         {x + behind<S>(a.cols, a.x_stride)}, 0, {x + soon<S, WIDE_COLUMNS>(a.cols, a.x_stride)}});
    }
    if (a.stream) stream_fence();
}

template <class S>
void columns_scale(const Scale<S>& a) {
    if constexpr (MAY_CROSS<S, Arith<S>>)
        if (!a.by.before && across(a.y, a.y_stride, a.by.min, a.stream)) return scale_columns<false, true>(a);
    a.by.before ? scale_columns<true, false>(a) : scale_columns<false, false>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.rows_extremes = rows_extremes<S>;
    kernels.columns_extremes = columns_extremes<S>;
    kernels.finish_extremes = finish_extremes<Arith<S>>;
    kernels.rows_scale = rows_scale<S>;
    kernels.columns_scale = columns_scale<S>;
}

}   // namespace

void add_extremes(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
