#include "bindings/layout.hpp"

#include <limits>

namespace onepass {
namespace {

View view_of(const Array& x, const Array& y, const bool* reduced) {
    if (!x.aligned() || (y && !y.aligned())) return View{};
    Operands operands;
    operands.ndim = x.ndim;
    operands.shape = x.shape;
    operands.count = y ? 2 : 1;
    operands.strides[0] = x.strides;
    operands.strides[1] = y ? y.strides : nullptr;
    operands.itemsize[0] = operands.itemsize[1] = size_of(x.dtype);
    return canonical(operands, reduced);
}

}   // namespace

Layout::Layout(const Array& x_in, const Array& out, const bool* reduced, bool want_blocks) : x(x_in), y(out), out_(out) {
    view = view_of(x, y, reduced);
    if (view.kind == Kind::none) {
        x = contiguous_copy(x);
        if (y && !(y.contiguous() && y.aligned())) y = fresh(y);
        view = view_of(x, y, reduced);
    }
    if (view.kind != Kind::none && (view.kind != Kind::blocks || want_blocks)) return;

    moved = true;
    py::list order;
    for (const bool last : {false, true})
        for (int axis = 0; axis < x.ndim; ++axis)
            if (reduced[axis] == last) order.append(axis);
    order_ = py::tuple(order);
    x = copied(input("x", x_in.object.attr("transpose")(order_)));
    if (y) y = fresh(x);
    bool at_end[MAX_NDIM] = {};
    int kept = 0;
    for (int axis = 0; axis < x.ndim; ++axis) kept += reduced[axis] ? 0 : 1;
    for (int axis = kept; axis < x.ndim; ++axis) at_end[axis] = true;
    view = view_of(x, y, at_end);
}

void Layout::finish() const {
    if (!y || y.object.is(out_.object)) return;
    if (!moved) return assign(out_, y);
    assign(input("out", out_.object.attr("transpose")(order_)), y);
}

Array fresh_stats(const Array& x, const bool* reduced) {
    index shape[MAX_NDIM];
    for (int axis = 0; axis < x.ndim; ++axis) shape[axis] = reduced[axis] ? 1 : x.shape[axis];
    return fresh(arith_of(x.dtype), x.ndim, shape);
}

void fill_nan(const Array& array) {
    if (array) array.object.attr("fill")(std::numeric_limits<double>::quiet_NaN());
}

}   // namespace onepass
