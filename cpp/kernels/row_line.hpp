// The line that a row is normalized with, from its moments in the range that holds them.
#pragma once

#include "kernels/ahead.hpp"
#include "kernels/row_moments.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

template <class T>
struct Line {
    T mean, low, scale, before, after;
    bool ranged;   // before or after is not 1
};

// Whether n values are all zero. (Of what is not, some is soon found to be something else.)
template <class T, class Value>
ONEPASS_INLINE bool all_zero(index n, const Value& value) {
    constexpr index TILE = 256;
    for (index from = 0; from < n; from += TILE) {
        Vec<T> least = {};
        each_vector<T>(n - from < TILE ? n - from : TILE, [&](index i, auto lanes) ONEPASS_FLAT {
            least = lesser(least, where_equal(value(from + i, lanes), Vec<T>{}, Vec<T>{}, splat(T(-1))));
        });
        if (least_lane(least) != 0) return false;
    }
    return true;
}

// Whether all of a row is, which is seldom asked.
template <class T, class Source>
__attribute__((noinline)) bool is_zero(const Source& x, index n) {
    return all_zero<T>(n, [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); });
}

// Of a row of n, from the first moments `m` of its elements as they are; `f` are the statistics behind the line.
template <bool CENTERED, class T, class Number = Constants<false>, class Source>
ONEPASS_INLINE Line<T> line_of(Moments m, const Source& x, index n, const Finish& how, double inverse, Finished& f) {
    Range range = {1.0, 1.0};
    m = settled<CENTERED, T, Number>(m, x, n, range);
    f = finish<T, Number>(inverse, m.mean, m.low, m.m2, how, 1.0, 1.0);
    const bool ranged = !f.in_range && !(seem_zero(m.mean, m.low, m.m2, how) && is_zero<T>(itself(x), n));
    if (__builtin_expect(ranged, 0)) {
        range = other_range<T>(m.m2);
        m = row_moments<CENTERED, T>(x, n, range);
        f = finish<T>(inverse, m.mean, m.low, m.m2, how, range.before, range.after);
    }
    return {T(f.mean), T(f.low), T(f.scale), T(range.before), T(range.after), ranged};
}

template <bool CENTERED, class T, class Source>
ONEPASS_INLINE Line<T> line_of(const Source& x, index n, const Finish& how, Finished& f) {
    const double inverse = inverse_freedom(double(n), how);   // which nothing has to wait for
    return line_of<CENTERED, T>(first_moments<CENTERED, T>(x, n), x, n, how, inverse, f);
}

// (x * before - mean) * after - low, without the steps that a row has no need of: they would change no bit.
template <class T, bool LOW, bool RANGED>
struct Deviation {
    Vec<T> mean, low, before, after;
    ONEPASS_INLINE explicit Deviation(const Line<T>& line)
        : mean(splat(line.mean)), low(splat(line.low)), before(splat(line.before)), after(splat(line.after)) {}
    ONEPASS_INLINE Vec<T> operator()(Vec<T> v) const {
        if constexpr (RANGED) v = v * before;
        v = v - mean;
        if constexpr (RANGED) v = v * after;
        if constexpr (LOW) v = v - low;
        return v;
    }
};

}   // namespace
}   // namespace onepass::ONEPASS_ISA
