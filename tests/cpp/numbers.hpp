// The numbers of the golden digests: integer arithmetic and exact conversions, as tests/golden.py defines them.
//
// An array's number and an element's place decide it alone: hash() is the output of SplitMix64 (Steele, Lea & Flood 2014).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "simd/types.hpp"

namespace golden {

using onepass::Arith, onepass::BFloat16, onepass::Float16;
using index = std::ptrdiff_t;

enum Number { X = 1, WEIGHT, BIAS, RESIDUAL, RUNNING_MEAN, RUNNING_VAR, DY, MASK, WEIGHTS };

// Binary digits of a number, and the exponents of groups whose squares overflow and vanish.
template <class S>
struct Type;
template <>
struct Type<double> {
    static constexpr int digits = 53, huge = 600, tiny = -600;
};
template <>
struct Type<float> {
    static constexpr int digits = 24, huge = 100, tiny = -100;
};
template <>
struct Type<Float16> {
    static constexpr int digits = 11, huge = 15, tiny = -14, least = -24;   // the exponent of the least subnormal
    static constexpr std::uint16_t infinity = 0x7c00, nan = 0x7e00;
};
template <>
struct Type<BFloat16> {
    static constexpr int digits = 8, huge = 100, tiny = -100, least = -133;
    static constexpr std::uint16_t infinity = 0x7f80, nan = 0x7fc0;
};

// To nearest even. A 16-bit float's bits count its last places: 2^(digits - 1) of them from one exponent to the next.
template <class S>
S stored(double value) {
    if constexpr (std::is_floating_point_v<S>) {
        return S(value);
    } else {
        using Of = Type<S>;
        if (std::isnan(value)) return {Of::nan};
        int exponent = 0;
        std::frexp(value, &exponent);
        const int last = value == 0 ? Of::least : std::max(exponent - Of::digits, int(Of::least));
        const double places = std::nearbyint(std::ldexp(std::fabs(value), -last));
        const double bits = std::ldexp(last - Of::least, Of::digits - 1) + places;
        return {std::uint16_t(int(std::min(bits, double(Of::infinity))) | (std::signbit(value) ? 0x8000 : 0))};
    }
}

inline std::uint64_t hash(Number array, index i) {
    std::uint64_t z = (std::uint64_t(array) << 32) + std::uint64_t(i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

inline std::int64_t upper(std::uint64_t h, int bits) { return std::int64_t(h >> (64 - bits)); }

// x, residual or dy. The groups that set the kinds are `inner` elements long and come round after `number` of them;
// number 0: all of kind 0.
template <class S>
std::vector<S> data(Number array, index n, index inner, index number) {
    constexpr int p = Type<S>::digits;
    std::vector<S> made;
    made.reserve(std::size_t(n));
    for (index i = 0; i < n; ++i) {
        const std::uint64_t h = hash(array, i);
        std::int64_t integer = upper(h, p) - (std::int64_t(1) << (p - 1));
        int exponent = 1 - p;
        switch (number ? i / inner % number % 8 : 0) {
            case 1:
                integer = (std::int64_t(1) << (p - 1)) + upper(h, p / 2);
                break;
            case 2:
                integer = 3;
                exponent = -2;
                break;
            case 3:
                exponent += Type<S>::huge;
                break;
            case 4:
                exponent -= int(h % 8);
                break;
            case 5:
                exponent += Type<S>::tiny;
                break;
        }
        made.push_back(stored<S>(std::ldexp(double(integer), exponent)));
    }
    return made;
}

// What stands beside x. A weight of 16 bits holds no more digits than these, so it is made in the type of the arithmetic.
template <class T>
std::vector<T> parameter(Number array, index n) {
    std::vector<T> made;
    made.reserve(std::size_t(n));
    for (index i = 0; i < n; ++i) {
        const std::uint64_t h = hash(array, i);
        std::int64_t integer = upper(h, 7) - 64;
        if (array == MASK)
            integer = (upper(h, 2) != 0) * 64;
        else if (array == WEIGHTS)
            integer = upper(h, 6);
        else if (array == WEIGHT || array == RUNNING_VAR)
            integer = (64 + upper(h, 6)) * (array == WEIGHT && h % 2 ? -1 : 1);
        made.push_back(T(std::ldexp(double(integer), -6)));
    }
    return made;
}

}   // namespace golden
