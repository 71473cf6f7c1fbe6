// The types in memory, and those of the arithmetic. Declarations only: units of every instruction set read this.
#pragma once

#include <cstdint>

namespace onepass {

// 16-bit floats are only ever stored: they are computed with in float32.
struct Float16 {
    std::uint16_t bits;
};
struct BFloat16 {
    std::uint16_t bits;
};

template <class S>
struct ArithOf {
    using type = S;
};
template <>
struct ArithOf<Float16> {
    using type = float;
};
template <>
struct ArithOf<BFloat16> {
    using type = float;
};
template <class S>
using Arith = typename ArithOf<S>::type;

}   // namespace onepass
