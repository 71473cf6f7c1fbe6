// Moments from sums about a pivot.
//
//   mean = p + s / n,  M2 = q - s^2 / n,   s = sum(x - p),  q = sum((x - p)^2)
//
// for any p; and where p is near the mean, no digit is lost by it: beside what it would be about the mean itself, q is
// 1 + n (p - mean)^2 / M2 times as large, and so is what it is rounded by (Chan, Golub & LeVeque 1983). p is the mean of a
// few first elements: two, four or eight, so that of equal ones it is exactly what they are. Where that makes q more than
// two and a half times as large, p was astray, and the same elements are read once more, from the mean that was found. (It
// was found well enough: of n elements, m of them with the mean p, M2 is at least m (p - mean)^2.)
//
// Invariant: what is read again depends on the elements alone, not on what lies beside them.
#pragma once

#include "kernels/moments.hpp"
#include "simd/order.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;   // vectors that are summed at once

// Of some elements, the sum of their deviations from the pivot, and of the squares of these.
template <class V>
struct Sums {
    V sum, squares;
};
template <class V>
ONEPASS_INLINE Sums<V> operator+(const Sums<V>& a, const Sums<V>& b) {
    return {a.sum + b.sum, a.squares + b.squares};
}
template <class V>
ONEPASS_INLINE auto lower(const Sums<V>& a) {
    return Sums<decltype(lower(a.sum))>{lower(a.sum), lower(a.squares)};
}
template <class V>
ONEPASS_INLINE auto upper(const Sums<V>& a) {
    return Sums<decltype(upper(a.sum))>{upper(a.sum), upper(a.squares)};
}
template <class V>
ONEPASS_INLINE Sums<V> swapped(const Sums<V>& a) {
    return {swapped(a.sum), swapped(a.squares)};
}
template <class T>
ONEPASS_INLINE Sums<T> lane(const Sums<Vector<T, 16>>& a, int i) {
    return {lane(a.sum, i), lane(a.squares, i)};
}

// value(0) .. value(N - 1) as sum8() adds them, but each called in its turn, and what it was added to held: as few
// registers as can be. (What is used once compilers put off until it is used: all values would come first, and where
// registers are too few for them, they go to memory and back.)
template <class T>
ONEPASS_INLINE Sums<Vec<T>> held(const Sums<Vec<T>>& a) {
    return {held(a.sum), held(a.squares)};
}
template <int N, class Value>
ONEPASS_INLINE auto tree_of(const Value& value, int first = 0) {
    if constexpr (N == 1) {
        return value(first);
    } else {
        const auto lower = tree_of<N / 2>(value, first);
        const auto upper = tree_of<N / 2>(value, first + N / 2);
        return held(lower + upper);
    }
}

// Of a whole chunk, in the order in which it lies.
template <class T>
ONEPASS_INLINE Vec<T> in_order(const Vec<T> (&d)[CHUNK]) {
    Vec<T> sum = d[0];
#pragma GCC unroll 8
    for (int i = 1; i < CHUNK; ++i) sum = sum + d[i];
    return sum;
}

// The pivot of n elements, value(i) for i in 0..n: numbers, or a vector's lanes each for itself.
template <class T, class Number = Constants<false>, class Value>
ONEPASS_INLINE auto first_pivot(index n, const Value& value) {
    const auto two = [&](index i) ONEPASS_FLAT { return value(i) + value(i + 1); };
    if (n >= CHUNK) return ((two(0) + two(2)) + (two(4) + two(6))) * Number()(T(1) / CHUNK);
    if (n >= 4) return (two(0) + two(2)) * T(0.25);
    return n < 2 ? value(0) : two(0) * T(0.5);
}

// Moments from sums; `inverse` is 1 / count, and the mean counts from the pivot.
ONEPASS_INLINE Moments from_sums(double sum, double squares, double count, double inverse) {
    const double mean = sum * inverse;
    return {count, mean, 0.0, squares - sum * mean};
}

// Positive where the pivot was astray, from what the mean has beyond it.
template <class V, class T>
ONEPASS_INLINE V how_astray(V beyond, V m2, T count, T most = T(1.5)) {
    return beyond * (beyond * count) - m2 * most;
}
template <class Number = Constants<false>>
ONEPASS_INLINE bool astray(const Moments& m) {
    return how_astray(m.low, m.m2, m.count, Number()(1.5)) > 0;
}

template <class T>
ONEPASS_INLINE bool any_positive(Vec<T> a) {
    return least_lane(Vec<T>{} - a) < 0;
}

// Of a vector of columns of `count` elements each, or of fewer, n, those whose pivots were astray get better ones. Were
// there any? (In most vectors none is, which is seen at once.)
template <class T>
ONEPASS_INLINE bool better_pivots(T* pivot, const T* beyond, const T* m2, const T* after, index n, T count) {
    if (n == WIDTH<T> && !any_positive(greater(how_astray(load(beyond), load(m2), count), Vec<T>{}))) return false;
    bool any = false;
    for (index i = 0; i < n; ++i) {
        if (!(how_astray(beyond[i], m2[i], count) > 0)) continue;
        pivot[i] += after ? beyond[i] / after[i] : beyond[i];
        any = true;
    }
    return any;
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
