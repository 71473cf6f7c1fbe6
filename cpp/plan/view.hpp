// The canonical view: any array and any axes to reduce, brought down to three dimensions.
//
//   rows     kept    kept    REDUCED     layer norm, RMS norm
//   columns  kept    REDUCED kept        batch norm channels-last, layer norm over a channel axis
//   blocks   REDUCED kept    REDUCED     batch norm channels-first
//
// The last dimension is contiguous. Which view an array gets depends on its shape and the axes alone, never on its
// strides, so that strides cannot change a bit of the result; an array whose strides do not fit is copied first. The
// elements of loose arrays may lie apart, if they lie close or rows do. Of rows, whose bits are their own, more will fit:
// their first dimension may consist of several, for which no single stride will do.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

namespace onepass {

using index = std::ptrdiff_t;

inline constexpr index ceil_div(index a, index b) { return (a + b - 1) / b; }

// How many of `all` things an even part has, of at most `held` if there is a choice: a multiple of `step`.
inline constexpr index even_part(index all, index held, index step = 1) {
    const index n = std::max(held / step * step, step);
    return std::min(ceil_div(ceil_div(all, ceil_div(all, n)), step) * step, all);
}

constexpr int MAX_NDIM = 64;   // NumPy 2's own
constexpr int MAX_OPERANDS = 4;
constexpr int MAX_NESTED = 3;

// Spans of a block at least this long are rows for the row kernels, shorter ones columns. Rows of fewer columns than NARROW
// are folded: many are seen as one. Both are part of the result's bits.
constexpr index LONG_SPAN = 64, NARROW = 512;

enum class Kind { rows, columns, blocks, none };

struct View {
    Kind kind = Kind::none;
    index size[3] = {1, 1, 1};
    index stride[MAX_OPERANDS][3] = {};   // elements

    // Of the first dimension, what it consists of, but for the outermost, whose stride is its own.
    int nestings = 0;
    struct Nested {
        index size, stride[MAX_OPERANDS];
    } nested[MAX_NESTED] = {};

    index elements() const { return size[0] * size[1] * size[2]; }
    // Whether all of the first dimension follows the second one's end.
    bool even(int operand) const {
        index next = size[1] * stride[operand][1], outermost = size[0];
        for (int i = nestings - 1; i >= 0; --i) {
            if (nested[i].stride[operand] != next) return false;
            next *= nested[i].size;
            outermost /= nested[i].size;
        }
        return outermost == 1 || stride[operand][0] == next;
    }
    // Where what is at `first` in the first dimension begins.
    index offset(int operand, index first) const {
        index at = 0;
        for (int i = nestings - 1; i >= 0; first /= nested[i--].size)
            at += first % nested[i].size * nested[i].stride[operand];
        return at + first * stride[operand][0];
    }
};

struct Operands {
    int ndim = 0;
    const index* shape = nullptr;
    int count = 0;                             // arrays of that shape
    const index* strides[MAX_OPERANDS] = {};   // bytes
    index itemsize[MAX_OPERANDS] = {};
    bool loose[MAX_OPERANDS] = {};           // those of rows
    bool loose_columns[MAX_OPERANDS] = {};   // and those of columns and blocks
    bool turned = false;                     // there all of them, if rows of all lie beside each other
};

// Whether cache lines hold several elements of a row, or one of several rows: how far apart rows lie, and their elements.
inline bool near(index row, index element) {
    constexpr index CLOSE = 8;   // elements
    return std::min(std::abs(row), std::abs(element)) <= CLOSE;
}

// Kind::none where the strides do not fit. No size may be zero.
View canonical(const Operands& arrays, const bool* reduced);

}   // namespace onepass
