// Groups that span many rows: the columns and the blocks view, and how both become one.
//
// A problem is rows x groups x span, and a group's statistics are over its rows and its span. Where the span is long
// (channels-first images) each piece is a row for the row kernels, and the rows' moments are merged. Where it is short or
// one (channels-last), all are columns for the column kernels, and the columns' moments are merged over the span. Narrow
// arrays are folded: many short rows are seen as one long one, whose columns are merged back.
#pragma once

#include "kernels/kernels.hpp"
#include "plan/rows.hpp"
#include "plan/view.hpp"

namespace onepass {

template <class S>
struct Groups {
    using T = Arith<S>;
    const S* x = nullptr;
    S* y = nullptr;   // null: moments alone
    index problems = 1, x_problem = 0, y_problem = 0;
    index rows = 1, groups = 1, span = 1;
    index x_row = 0, y_row = 0, x_group = 0, y_group = 0;
    index x_element = 1, y_element = 1;   // of y's, only where rows of both lie beside each other, with whole lines apart
    bool by_rows = false;
    bool centered = true;                                  // or about 0, as RMS norm has it
    bool weight_a_column = false;                          // weight and bias: an element for each element of a span as well
    const T *weight = nullptr, *bias = nullptr;            // an element a group
    const T *row_weight = nullptr, *row_bias = nullptr;    // an element a row: the normalized axis carries them
    const T *given_mean = nullptr, *given_var = nullptr;   // an element a group: no statistics are taken
    Finish how = {0, 0};
    T *mean = nullptr, *rstd = nullptr;   // an element a group of each problem, or null
    MomentsOut moments;                   // likewise
};

// Fills in x and y as operands 0 and 1 of a view of Kind::columns or Kind::blocks; of Kind::rows too, where the middle
// dimension holds the groups and the outer one is 1.
template <class S>
Groups<S> groups_of(const View& view, const S* x, S* y);

template <class S>
void solve(const Groups<S>& problem);

}   // namespace onepass
