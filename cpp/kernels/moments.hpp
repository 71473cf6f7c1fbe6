// Merging moments, and finishing them into the line that is applied.
//
//   count = na + nb,  delta = mean_b - mean_a
//   mean  = mean_a + delta nb / count
//   M2    = M2_a + M2_b + delta^2 na nb / count
//
// Chan, Golub & LeVeque (1979); with nb = 1 it is Welford's update (1962). Means are kept as an unevaluated sum mean + low
// (Knuth's TwoSum, 1969), so that a mean of 1e7 does not swallow the digits of a deviation of 0.1.
//
// Scalar code, inlined with internal linkage into each unit that includes it; no branches, so that loops over columns
// become vector code.
#pragma once

#include "kernels/kernels.hpp"

namespace onepass {
namespace {

struct Pair {
    double high, low;
};

__attribute__((always_inline)) inline Pair two_sum(double a, double b) {
    const double s = a + b, t = s - a;
    return {s, (a - (s - t)) + (b - t)};
}

__attribute__((always_inline)) inline Moments merge(const Moments& a, const Moments& b) {
    const double count = a.count + b.count;
    const double delta = (b.mean - a.mean) + (b.low - a.low);
    const double share = b.count / count;
    const Pair mean = two_sum(a.mean, a.low + delta * share);
    return {count, mean.high, mean.low, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

// n parts at once about their common mean, each part's mean (pivot - pivot of the first) * after + low. Parts may be empty.
inline Moments merge_parts(const double* count, const double* pivot, const double* low, const double* m2, index n,
                           double after) {
    index first = 0;
    while (first + 1 < n && count[first] == 0) ++first;
    const double base = n ? pivot[first] : 0.0;
    const auto mean_of = [&](index i) { return (pivot[i] - base) * after + low[i]; };
    Moments all = {0.0, base, 0.0, 0.0};
    Pair sum = {0.0, 0.0};
    const auto add = [&](double value) {
        const Pair next = two_sum(sum.high, value);
        sum = {next.high, sum.low + next.low};
    };
    for (index i = 0; i < n; ++i) {
        all.count += count[i];
        if (count[i] != 0) add(count[i] * mean_of(i));
    }
    if (all.count == 0) return all;
    all.low = (sum.high + sum.low) / all.count;
    sum = {0.0, 0.0};
    for (index i = 0; i < n; ++i) {
        const double d = mean_of(i) - all.low;
        if (count[i] != 0) add(m2[i] + count[i] * (d * d));
    }
    all.m2 = sum.high + sum.low;
    return all;
}

// What the arithmetic type T can hold: squares of deviations are trusted while the variance lies within [tiny, huge].
// Deviations from a mean of at least `edge` cannot be so small that their squares vanish.
template <class T>
struct Limits;
template <>
struct Limits<float> {
    static constexpr float least_normal = __FLT_MIN__, most = __FLT_MAX__;
    static constexpr double huge = 3.4e38, tiny = 0x1p-100, edge = 0x1p-25;
    static constexpr double shrink = 0x1p-80, grow = 0x1p+99;
    static constexpr double negligible = 0x1p+54;   // 1 / (eps / 8)^2
};
template <>
struct Limits<double> {
    static constexpr double least_normal = __DBL_MIN__, most = __DBL_MAX__;
    static constexpr double huge = 1.79e308, tiny = 0x1p-900, edge = 0x1p-396;
    static constexpr double shrink = 0x1p-600, grow = 0x1p+600;
    static constexpr double negligible = 0x1p+112;
};

// Constants, from memory or as operands of instructions. A load that lies, within its page, where stores are pending waits
// for them, and streamed ones pend for long: with constants from memory a streamed row of a gradient took up to half as
// long again, by where a linker had put them. (Elsewhere operands are not quicker, and no loop with them is vector code.)
template <bool OPERANDS>
struct Constants {
    template <class T>
    __attribute__((always_inline)) T operator()(T constant) const {
#if defined(__x86_64__)
        if constexpr (OPERANDS) {
            std::uint64_t bits = 0;
            __builtin_memcpy(&bits, &constant, sizeof constant);
            __asm__("" : "+r"(bits));
            __builtin_memcpy(&constant, &bits, sizeof constant);
        }
#endif
        return constant;
    }
};

struct Finished {
    double mean, low, scale, true_mean, rstd;
    bool in_range;
};

// What M2 is multiplied with for the variance: a division less in the way of every row.
__attribute__((always_inline)) inline double inverse_freedom(double count, const Finish& how) {
    return 1.0 / (count - how.ddof);
}

// m is of (x * before - pivot) * after, its mean before `after` and its low part behind it.
template <class T, class Number = Constants<false>>
__attribute__((always_inline)) inline Finished finish(double inverse, double m_mean, double m_low, double m_m2,
                                                      const Finish& how, double before, double after) {
    const Number number = {};
    const double k = before * after;
    const double var = m_m2 * inverse;
    const double total = var + how.eps * k * k;
    const double rstd = number(1.0) / __builtin_sqrt(total);
    const Pair mean = two_sum(m_mean, m_low / after);
    // Where deviations are small enough to need `after`, the low part may be too small to go without it.
    // (Of zeros it is never -0, so that their bits do not tell in which range they were taken.)
    const double high = after == 1.0 ? static_cast<double>(static_cast<T>(mean.high)) : m_mean + number(0.0);
    const double low = after == 1.0 ? (mean.high - high) + mean.low : m_low;
    Finished f;
    f.mean = high;
    // A remainder this far below the deviation changes no digit of the result; without it one subtraction is saved.
    f.low = low * low * number(Limits<T>::negligible) <= var ? 0.0 : low;
    f.scale = total == 0.0 ? 0.0 : rstd;   // a constant group without eps gives 0, not 0 * inf
    f.true_mean = mean.high / before;
    f.rstd = rstd * k;
    // (A negative or NaN eps is no matter of range: what follows is IEEE's. The first of the three is the usual one, and
    // spares the others.)
    f.in_range = m_m2 <= number(Limits<T>::huge) &&
                 (total >= number(Limits<T>::tiny) || !(__builtin_fabs(total) < Limits<T>::tiny) ||
                  __builtin_fabs(mean.high) >= Limits<T>::edge);
    return f;
}

// Whether a group's moments are those of zeros, which no other range would tell more of: unless the squares that they are
// sums of have vanished.
__attribute__((always_inline)) inline bool seem_zero(double mean, double low, double m2, const Finish& how) {
    return mean == 0 && low == 0 && m2 == 0 && how.eps == 0;
}

// Moments of a group that was brought into range, back in the units of its elements.
__attribute__((always_inline)) inline void to_true_units(const Range& range, double& mean, double& low, double& m2) {
    if (range.before == 1.0 && range.after == 1.0) {   // the usual one, without five divisions
        const Pair sum = two_sum(mean, low);
        mean = sum.high;
        low = sum.low;
        return;
    }
    const double k = range.before * range.after;
    const Pair sum = two_sum(mean, low / range.after);   // before it is scaled: the low part alone may be too large
    mean = sum.high / range.before;
    low = sum.low / range.before;
    m2 = m2 / k / k;
}

// The range to try again with, for moments that were not in range.
template <class T>
__attribute__((always_inline)) inline Range other_range(double m2) {
    if (m2 <= Limits<T>::huge) return {1.0, Limits<T>::grow};
    return {Limits<T>::shrink, 1.0};
}

}   // namespace
}   // namespace onepass
