// Scaling between extremes: every group from its least and greatest to a range.
#pragma once

#include "plan/groups.hpp"

namespace onepass {

template <class S>
struct MinMax {
    View view;
    Groups<S> at;   // where x, y and the groups of a problem lie; nothing else of it is used
    Ends<Arith<S>> ends;

    const S* x(index problem) const { return at.x + (view.nestings ? view.offset(0, problem) : problem * at.x_problem); }
    S* y(index problem) const { return at.y + view.offset(1, problem); }
};

// Fills in x and y as operands 0 and 1 of any view.
template <class S>
MinMax<S> min_max_of(const View& view, const S* x, S* y, Ends<Arith<S>> ends);

template <class S>
void solve(const MinMax<S>& problem);

}   // namespace onepass
