// Groups of cells: the masked norms, weighted moments, and the gradients of batch, group and instance norm.
//
// An array is samples x channels x span, with the channels last or not. A cell is one channel of one sample. Its moments
// (and, for gradients, co-moments with dy) are taken in pieces of a size that the shape alone decides, pieces are merged
// into cells and cells into groups: `members` neighbouring channels of one sample, or one channel of all samples.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"
#include "plan/rows.hpp"

namespace onepass {

// Weights of elements, where there are any: a mask or weights, one for each element of x (in its order), or one for each
// place of a sample, the same for all its channels.
struct Weighing {
    const std::uint8_t* mask = nullptr;
    const double* weights = nullptr;
    bool by_element = false;
    bool skipna = false;

    explicit operator bool() const { return mask || weights || skipna; }
};

// How far apart samples lie, the rows of one (its channels, or with the channels last its places), and the elements of a
// row. y is dense.
struct Lie {
    static constexpr index DENSE = PTRDIFF_MIN;
    index sample = DENSE, row = DENSE, element = 1;

    bool operator==(const Lie& other) const {
        return sample == other.sample && row == other.row && element == other.element;
    }
};

template <class S>
struct Cells {
    using T = Arith<S>;
    const S *x = nullptr, *dy = nullptr;   // dy: the gradient is wanted
    S* y = nullptr;                        // y, or dx; null: moments alone
    index samples = 1, channels = 1, span = 1;
    bool channels_last = false;
    bool across = false;   // groups reach across samples
    index members = 1;
    Weighing weighing;
    const T *weight = nullptr, *bias = nullptr;            // an element a channel
    const T *given_mean = nullptr, *given_var = nullptr;   // an element a group
    Finish how = {0, 0};
    T *mean = nullptr, *rstd = nullptr;   // an element a group, or null
    double* count = nullptr;              // likewise, with
    MomentsOut moments;
    T *dweight = nullptr, *dbias = nullptr;   // an element a channel

    Lie x_lies, dy_lies;

    // Set by solve(), the last for what it does at a time.
    Lie y_lies;
    double *sums = nullptr, *bias_sums = nullptr;   // of dweight and dbias over the samples before these; or null

    // Whether samples follow each other everywhere. (Those of a part, some of the channels, do not.)
    bool dense() const { return x_lies == y_lies && dy_lies == y_lies && y_lies.sample == channels * span; }
    // Where a row of a sample begins, from column `col` on, and how far from it the next one does, of rows of `folds`.
    struct Spot {
        const S *x, *dy;
        S* y;
        index x_row, dy_row, y_row;
    };
    Spot spot(index sample, index row, index col, index folds = 1) const {
        const auto at = [&](auto* array, const Lie& lies) {
            return array ? array + sample * lies.sample + row * folds * lies.row + col : nullptr;
        };
        return {at(x, x_lies), at(dy, dy_lies), at(y, y_lies), folds * x_lies.row, folds * dy_lies.row, folds * y_lies.row};
    }

    index bytes() const { return samples * channels * span * index(sizeof(S)) * (dy ? 3 : y ? 2 : 1); }
    index groups() const { return across ? channels : samples * (channels / members); }
};

template <class S>
void solve(const Cells<S>& problem);

}   // namespace onepass
