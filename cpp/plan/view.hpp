// The canonical view: any array and any axes to reduce, brought down to three dimensions.
//
//   rows     kept    kept    REDUCED     layer norm, RMS norm
//   columns  kept    REDUCED kept        batch norm channels-last, layer norm over a channel axis
//   blocks   REDUCED kept    REDUCED     batch norm channels-first
//
// The last dimension is contiguous. Which view an array gets depends on its shape and the axes alone, never on its
// strides, so that strides cannot change a bit of the result; an array whose strides do not fit is copied first.
#pragma once

#include <cstddef>

namespace onepass {

using index = std::ptrdiff_t;

constexpr int MAX_NDIM = 64;   // NumPy 2's own
constexpr int MAX_OPERANDS = 4;

// Spans of a block at least this long are rows for the row kernels, shorter ones columns. Rows of fewer columns than NARROW
// are folded: many are seen as one. Both are part of the result's bits.
constexpr index LONG_SPAN = 64, NARROW = 512;

enum class Kind { rows, columns, blocks, none };

struct View {
    Kind kind = Kind::none;
    index size[3] = {1, 1, 1};
    index stride[MAX_OPERANDS][3] = {};   // elements

    index elements() const { return size[0] * size[1] * size[2]; }
};

struct Operands {
    int ndim = 0;
    const index* shape = nullptr;
    int count = 0;                             // arrays of that shape
    const index* strides[MAX_OPERANDS] = {};   // bytes
    index itemsize[MAX_OPERANDS] = {};
};

// Kind::none where the strides do not fit. No size may be zero.
View canonical(const Operands& arrays, const bool* reduced);

}   // namespace onepass
