// Gradients of rows that are groups of their own and have one weight and one bias: those of the rows view, or the columns
// of the columns view.
#pragma once

#include "kernels/kernels.hpp"
#include "plan/view.hpp"

namespace onepass {

// x, dx and dy as operands 0, 1 and 2 of a view of Kind::rows or Kind::columns; or of several, each beside the one before,
// with weights and sums that go on as they do.
template <class S>
struct RowGradients {
    View view;
    index groups = 1;   // views; those of rows only
    const S *x = nullptr, *dy = nullptr;
    S* dx = nullptr;
    const Arith<S>* weight = nullptr;   // an element a column, or null
    Finish how = {0, 0};
    bool centered = true;
    Arith<S>*dweight = nullptr, *dbias = nullptr;   // an element a column; dbias only where centered
};

template <class S>
void solve(const RowGradients<S>& problem);

}   // namespace onepass
