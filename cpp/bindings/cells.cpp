#include "bindings/cells.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <type_traits>
#include <utility>

#include "plan/cut.hpp"

namespace onepass {

Mask input_mask(py::handle object, int ndim, const index* shape, const char* what) {
    Mask mask;
    if (object.is_none()) return mask;
    const py::object array = input_bool("mask", object);
    const auto view = py::reinterpret_borrow<py::array>(array);
    bool same = view.ndim() == ndim;
    for (int i = 0; same && i < ndim; ++i) same = view.shape(i) == shape[i];
    if (!same)
        throw py::value_error("mask has shape " + shape_text(static_cast<int>(view.ndim()), view.shape()) + "; expected " +
                              shape_text(ndim, shape) + ", " + what);
    mask.object = numpy().attr("ascontiguousarray")(array);
    mask.data = static_cast<const std::uint8_t*>(py::reinterpret_borrow<py::array>(mask.object).data());
    mask.valid = numpy().attr("count_nonzero")(mask.object).cast<index>();
    return mask;
}

int without_axis(const Array& x, int axis, index* shape) {
    int n = 0;
    for (int i = 0; i < x.ndim; ++i)
        if (i != axis) shape[n++] = x.shape[i];
    return n;
}

namespace {

// Axes of an array that are one: how far its elements lie apart, in elements; 1 where there is a single one.
std::optional<index> as_one(const Array& array, int first, int end) {
    const index size = size_of(array.dtype);
    index stride = size, next = 0;
    bool any = false;
    for (int i = end - 1; i >= first; --i) {
        if (array.shape[i] == 1) continue;
        if (any && array.strides[i] != next) return {};
        if (!std::exchange(any, true)) stride = array.strides[i];
        next = array.strides[i] * array.shape[i];
    }
    return stride / size;
}

// The array, whose axes up to `samples` count samples, and those up to `rows` the rows of one; or a dense copy, where that
// is not how it lies, or not to be had in parts.
Array as_it_lies(const Array& array, int samples, int rows, bool parts, Lie& lies) {
    if (array.contiguous() || !array.aligned()) return contiguous_copy(array);
    const auto sample = as_one(array, 0, samples), row = as_one(array, samples, rows),
               element = as_one(array, rows, array.ndim);
    // (What has no elements beside it may be asked for as a row.)
    const bool alone = std::all_of(array.shape + rows, array.shape + array.ndim, [](index size) { return size == 1; });
    if (!sample || !row || !element || (alone && row != 1)) return contiguous_copy(array);
    if (*element != 1 && !(parts && near(*row, *element))) return contiguous_copy(array);
    lies = {*sample, *row, *element};
    return array;
}

}   // namespace

CellCall cells_of(const Array& x, const Array& dy, const Array& y, int axis, bool across, index members, const Mask& mask) {
    const auto size = [&](int first, int end) {
        return std::accumulate(x.shape + first, x.shape + end, index(1), std::multiplies<index>());
    };
    CellCall call = {};
    call.channels_last = across ? size(axis + 1, x.ndim) == 1 : axis == x.ndim - 1 && axis > 1;
    const int samples = !call.channels_last ? axis : across ? 0 : 1, rows = call.channels_last ? axis : axis + 1;   // ends
    call.y = y;
    call.samples = size(0, samples);
    call.span = call.channels_last ? size(samples, rows) : size(rows, x.ndim);
    call.channels = x.shape[axis];
    call.across = across;
    call.members = members;
    call.weighing.mask = mask.data;
    call.x = x;
    call.dy = dy;
    if (x.size == 0) return call;
    // Kernels need not have all side by side, but where they count on it; nor is all of an array always one part.
    const bool parts = !(across && call.channels_last);
    const bool dense = mask.data || (call.channels_last && folds_for(call.span, call.channels) > 1);
    const auto as_read = [&](const Array& array, Lie& lies) {
        return dense && !parts ? contiguous_copy(array) : as_it_lies(array, samples, rows, parts, lies);
    };
    call.x = as_read(x, call.x_lies);
    if (dy) call.dy = as_read(dy, call.dy_lies);
    return call;
}

void run(const CellCall& call) {
    visit(call.x.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        using T = Arith<S>;
        Cells<S> p;
        p.x = call.x.as<const S>();
        p.dy = call.dy.as<const S>();
        p.y = call.y.as<S>();
        p.x_lies = call.x_lies;
        p.dy_lies = call.dy_lies;
        p.samples = call.samples;
        p.channels = call.channels;
        p.span = call.span;
        p.channels_last = call.channels_last;
        p.across = call.across;
        p.members = call.members;
        p.weighing = call.weighing;
        p.weight = call.weight.as<const T>();
        p.bias = call.bias.as<const T>();
        p.given_mean = call.given_mean.as<const T>();
        p.given_var = call.given_var.as<const T>();
        p.how = call.how;
        p.mean = call.mean.as<T>();
        p.rstd = call.rstd.as<T>();
        p.count = call.count;
        p.moments = call.moments;
        p.dweight = call.dweight.as<T>();
        p.dbias = call.dbias.as<T>();
        const py::gil_scoped_release release;
        solve(p);
    });
}

py::tuple run_backward(CellCall& call) {
    call.y = fresh(call.x);
    call.dweight = fresh(arith_of(call.x.dtype), 1, &call.channels);
    call.dbias = fresh(arith_of(call.x.dtype), 1, &call.channels);
    if (call.x.size != 0) {
        run(call);
    } else {
        for (const Array* sum : {&call.dweight, &call.dbias}) sum->object.attr("fill")(0.0);
    }
    return py::make_tuple(call.y.object, call.dweight.object, call.dbias.object);
}

}   // namespace onepass
