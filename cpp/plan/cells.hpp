// Groups of cells: the masked norms, weighted moments, and the gradients of batch, group and instance norm.
//
// An array is samples x channels x span, each sample dense, with the channels last or not. A cell is one channel of one
// sample. Its moments (and, for gradients, co-moments with dy) are taken in pieces of a size that the shape alone decides,
// pieces are merged into cells and cells into groups: `members` neighbouring channels of one sample, or one channel of all
// samples.
#pragma once

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

    // Set by solve() for what it does at a time.
    index x_sample = 0;       // from one sample to the next
    double* sums = nullptr;   // of dweight, then of dbias, over the samples before these; or null

    index bytes() const { return samples * channels * span * index(sizeof(S)) * (dy ? 3 : y ? 2 : 1); }
    index groups() const { return across ? channels : samples * (channels / members); }
};

template <class S>
void solve(const Cells<S>& problem);

}   // namespace onepass
