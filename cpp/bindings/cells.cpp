#include "bindings/cells.hpp"

#include <type_traits>

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
    const py::module_ numpy = py::module_::import("numpy");
    mask.object = numpy.attr("ascontiguousarray")(array);
    mask.data = static_cast<const std::uint8_t*>(py::reinterpret_borrow<py::array>(mask.object).data());
    mask.valid = numpy.attr("count_nonzero")(mask.object).cast<index>();
    return mask;
}

int without_axis(const Array& x, int axis, index* shape) {
    int n = 0;
    for (int i = 0; i < x.ndim; ++i)
        if (i != axis) shape[n++] = x.shape[i];
    return n;
}

CellCall cells_of(const Array& x, const Array& dy, const Array& y, int axis, bool across, index members) {
    CellCall call = {};
    call.x = contiguous_copy(x);
    if (dy) call.dy = contiguous_copy(dy);
    call.y = y;
    call.samples = call.span = 1;
    for (int i = 0; i < axis; ++i) call.samples *= x.shape[i];
    for (int i = axis + 1; i < x.ndim; ++i) call.span *= x.shape[i];
    call.channels = x.shape[axis];
    call.across = across;
    call.members = members;
    if (across && call.span == 1) {
        std::swap(call.samples, call.span);
        call.channels_last = true;
    } else if (!across && axis == x.ndim - 1 && axis > 1) {
        call.samples = x.shape[0];
        for (int i = 1; i < axis; ++i) call.span *= x.shape[i];
        call.channels_last = true;
    }
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
