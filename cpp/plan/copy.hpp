// Rows of elements from one place to another, wherever they lie.
#pragma once

#include <cstring>

#include "plan/view.hpp"

namespace onepass {

// n elements that lie STEP of them apart, brought side by side.
template <class E, index STEP>
void gather(const char* from, char* to, index n) {
    for (index i = 0; i < n; ++i) std::memcpy(to + i * index(sizeof(E)), from + i * STEP * index(sizeof(E)), sizeof(E));
}

// Strides in bytes, of elements that need not be aligned. (Those that compilers know become vector code.)
template <class E>
void copy_row(const char* from, index from_stride, char* to, index to_stride, index n) {
    constexpr index SIZE = index(sizeof(E));
    if (to_stride == SIZE) {
        if (from_stride == SIZE) return static_cast<void>(std::memcpy(to, from, std::size_t(n) * sizeof(E)));
        if (from_stride == -SIZE) return gather<E, -1>(from, to, n);
        if (from_stride == 2 * SIZE) return gather<E, 2>(from, to, n);
        if (from_stride == 0) return gather<E, 0>(from, to, n);
    }
    for (index i = 0; i < n; ++i, from += from_stride, to += to_stride) std::memcpy(to, from, sizeof(E));
}

}   // namespace onepass
