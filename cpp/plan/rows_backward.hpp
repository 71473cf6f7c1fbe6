// Gradients in the rows view: every contiguous row is a group of its own, and all rows have one weight and one bias.
#pragma once

#include "kernels/kernels.hpp"
#include "plan/view.hpp"

namespace onepass {

// x, dx and dy as operands 0, 1 and 2 of a view of Kind::rows.
template <class S>
struct RowGradients {
    View view;
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
