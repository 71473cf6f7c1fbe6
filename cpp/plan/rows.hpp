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
    index pieces = 1;   // so many of the view's rows follow each other as one: the channels of a group
    const S* x = nullptr;
    S* y = nullptr;
    RowAffine<Arith<S>> affine = {nullptr, nullptr, 1, 1, 0};
    Finish how = {0, 0};
    bool centered = true;
    Arith<S>*mean = nullptr, *rstd = nullptr;   // an element a row, or null
    MomentsOut moments;
    // As operands 2 and 3 of the view: what is added to x first, and where the sum goes. Both or neither.
    const S* residual = nullptr;
    S* sum = nullptr;

    index rows() const { return view.size[0] * view.size[1] / pieces; }
    index cols() const { return view.size[2] * pieces; }
};

template <class S>
void solve(const Rows<S>& problem);

// How many bytes a source and its result may have together to be left in the caches; `computes`: for longer than memory
// takes.
index kept_in_caches(int threads, bool computes);

// Each array `by` elements further on, or null where it is.
template <class... Arrays>
void go_on(index by, Arrays*&... arrays) {
    ((arrays = arrays ? arrays + by : nullptr), ...);
}

// Whether a result should bypass the caches: it and its source do not fit in them, and it is not written over its source.
template <class S>
bool streams(const S* x, const S* y, index bytes, int threads, bool computes = sizeof(S) != sizeof(Arith<S>)) {
    return x != y && bytes > kept_in_caches(threads, computes);
}

// Whether so many bytes are more than the nearer caches hold, or all of them; or more than others leave of the last one.
bool beyond_nearer_caches(index bytes);
bool beyond_caches(index bytes);
bool mostly_beyond_caches(index bytes);
// Whether rows of columns are written whole, however wide, and not in pieces beside their parameters: from memory, which
// likes them so, and where these would not leave much of the first cache anyway.
bool writes_whole(bool stream, index bytes);
// Whether it pays to send for what moments read. (Straight into the first cache it pays later: from the third it is as
// quick without, and what is sent for takes places from what is read. So do columns, eight rows side by side, from a small
// one, unless they are converted.)
bool moments_send(index bytes);
bool columns_send(index bytes, bool converted);

// How many rows of `cols` elements further on a row is sent for, to lie SENT_FAR or SENT_NEAR away at least.
index rows_ahead(index sent, index cols, index size);

}   // namespace onepass
