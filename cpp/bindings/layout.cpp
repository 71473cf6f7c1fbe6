#include "bindings/layout.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>

namespace onepass {
namespace {

bool written(int operand) { return operand % 2 == 1; }

View view_of(const Array* arrays, int count, const bool* reduced, Wanted wanted, Reads reads) {
    Operands operands;
    bool aligned = true;
    operands.turned = reads == Reads::turned || reads == Reads::all;
    const bool loose_columns = reads == Reads::loose || operands.turned;
    const bool loose_results = reads == Reads::all_rows || reads == Reads::all;
    operands.ndim = arrays[0].ndim;
    operands.shape = arrays[0].shape;
    operands.count = count;
    for (int i = 0; i < count; ++i) {
        aligned = aligned && arrays[i].aligned();
        operands.strides[i] = arrays[i].strides;
        operands.itemsize[i] = size_of(arrays[i].dtype);
        operands.loose[i] = written(i) ? loose_results : reads != Reads::dense;
        operands.loose_columns[i] = loose_columns && !written(i);
    }
    View view = canonical(operands, reduced);
    if (view.kind == Kind::columns && view.size[1] == 1 && wanted == Wanted::rows) {   // groups of one element
        view.kind = Kind::rows;
        view.size[1] = view.size[2];
        view.size[2] = 1;
        for (int i = 0; i < count; ++i) view.stride[i][1] = 1;
    }
    const bool usable = view.kind == Kind::rows || (view.kind == Kind::columns && wanted != Wanted::rows) ||
                        (view.kind == Kind::blocks && wanted == Wanted::all);
    if (!(usable && aligned)) view.kind = Kind::none;
    return view;
}

}   // namespace

Layout::Layout(const Array* operands, int count, const bool* reduced, Wanted wanted, Reads reads)
    : view(view_of(operands, count, reduced, wanted, reads)), given_(operands) {
    if (view.kind != Kind::none) return;

    // (Results elsewhere may be enough.)
    std::copy_n(given_, count, used_);
    for (const bool read : {false, true}) {
        for (int i = 0; i < count; ++i)
            if (read != written(i) && !(given_[i].contiguous() && given_[i].aligned()))
                used_[i] = read ? copied(given_[i]) : fresh(given_[i]);
        view = view_of(used_, count, reduced, wanted, reads);
        if (view.kind != Kind::none) return;
    }

    py::list order;
    bool at_end[MAX_NDIM] = {};
    for (const bool last : {false, true})
        for (int axis = 0; axis < given_[0].ndim; ++axis)
            if (reduced[axis] == last) {
                at_end[order.size()] = last;
                order.append(axis);
            }
    order_ = py::tuple(order);
    for (int i = 0; i < count; ++i) {
        const Array moved = transposed(given_[i], order_);
        used_[i] = written(i) ? fresh(moved) : copied(moved);
    }
    view = view_of(used_, count, at_end, wanted, reads);
}

bool Layout::fits(const Array& array, const bool* reduced, Wanted wanted, Reads reads) {
    return view_of(&array, 1, reduced, wanted, reads).kind != Kind::none;
}

void Layout::finish(int i) const {
    if (!used_[i] || used_[i].object.is(given_[i].object)) return;
    assign(order_ ? transposed(given_[i], order_) : given_[i], used_[i]);
}

void in_order_of_result(Array (&operands)[2], bool* reduced) {
    const Array& result = operands[1];
    if (result.contiguous()) return;
    int order[MAX_NDIM];
    bool moved[MAX_NDIM];
    std::iota(order, order + result.ndim, 0);
    std::stable_sort(order, order + result.ndim,
                     [&](int a, int b) { return std::abs(result.strides[a]) > std::abs(result.strides[b]); });
    if (std::is_sorted(order, order + result.ndim)) return;
    py::tuple axes(static_cast<std::size_t>(result.ndim));
    for (int i = 0; i < result.ndim; ++i) {
        axes[static_cast<std::size_t>(i)] = order[i];
        moved[i] = reduced[order[i]];
    }
    std::copy_n(moved, result.ndim, reduced);
    for (Array& operand : operands) operand = transposed(operand, axes);
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
