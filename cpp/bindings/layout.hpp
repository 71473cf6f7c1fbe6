// From two arrays and the axes to reduce to a canonical view, with internal copies where the strides or the axes ask for them.
#pragma once

#include "bindings/array.hpp"
#include "plan/rows.hpp"

namespace onepass {

// x and y as the plan sees them. finish() brings the result to where the caller wanted it.
//
// The view's kind depends on shape and axes alone. Where blocks are not wanted, or no view fits, the reduced axes are moved
// to the end, and groups are rows of a copy; they stand in the same order as in the array.
class Layout {
public:
    Layout(const Array& x, const Array& out, const bool* reduced, bool want_blocks);   // empty out: x alone
    void finish() const;

    View view;
    Array x, y;
    bool moved = false;   // the reduced axes were moved to the end

private:
    py::object order_;   // of axes, where moved
    Array out_;
};

// A new array for statistics: x's shape with the reduced axes of length 1.
Array fresh_stats(const Array& x, const bool* reduced);

// Fills an array with NaN: what the statistics of nothing are.
void fill_nan(const Array& array);

}   // namespace onepass
