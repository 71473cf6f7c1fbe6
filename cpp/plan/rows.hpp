// The rows view: every contiguous row is a group of its own.
#pragma once

#include "kernels/kernels.hpp"
#include "plan/view.hpp"

namespace onepass {

// Where the moments of groups go, an element a group, in true units: the mean is mean + low.
struct MomentsOut {
    double *mean = nullptr, *low = nullptr, *m2 = nullptr;
};

// x and y as operands 0 and 1 of a view of Kind::rows. A null y: moments alone.
template <class S>
struct Rows {
    View view;
    const S* x = nullptr;
    S* y = nullptr;
    const Arith<S>*weight = nullptr, *bias = nullptr;   // an element a column
    Finish how = {0, 0};
    Arith<S>*mean = nullptr, *rstd = nullptr;   // an element a row, or null
    MomentsOut moments;
};

template <class S>
void solve(const Rows<S>& problem);

// Whether a result should bypass the caches: it and its source do not fit in them, and it is not written over its source.
bool streams(const void* x, const void* y, index bytes);

}   // namespace onepass
