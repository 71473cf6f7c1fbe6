// From arrays of one shape and the axes to reduce to a canonical view, with internal copies where the strides or the axes
// ask for them.
#pragma once

#include "bindings/array.hpp"
#include "plan/rows.hpp"

namespace onepass {

// The kinds of view that a function can use. Whatever has none of them is moved, so that groups are rows.
enum class Wanted { rows, rows_and_columns, all };
// Whether rows that are read may be loose (view.hpp), and rows that are written; or what is read of columns and blocks as
// well, and whether results may lie turned there, if it does; or all of these.
enum class Reads { dense, loose_rows, all_rows, loose, turned, all };

// The arrays as the plan sees them, which must outlive this; operands 0 and 2 are read, 1 and 3 written. finish() brings a
// result to where the caller wanted it. The view's kind depends on shape and axes alone; moved groups stand in the same
// order as in the array.
class Layout {
  public:
    Layout(const Array* operands, int count, const bool* reduced, Wanted wanted, Reads reads = Reads::dense);
    void finish(int operand) const;
    const Array& operand(int i) const { return used_[i] ? used_[i] : given_[i]; }
    // Whether it can be read or written as it lies.
    static bool fits(const Array& array, const bool* reduced, Wanted wanted, Reads reads);

    View view;

  private:
    const Array* given_;
    Array used_[MAX_OPERANDS];   // in place of those given
    py::object order_;           // of axes, where moved
};

// Where the order of axes has no say in the bits, that in which the result lies is the quickest: x and result, and the
// axes.
void in_order_of_result(Array (&operands)[2], bool* reduced);

// A new array for statistics: x's shape with the reduced axes of length 1.
Array fresh_stats(const Array& x, const bool* reduced);

// Fills an array with NaN: what the statistics of nothing are.
void fill_nan(const Array& array);

}   // namespace onepass
