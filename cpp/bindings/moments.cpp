#include "bindings/moments.hpp"

#include <limits>

#include "bindings/cells.hpp"
#include "bindings/register.hpp"
#include "plan/environment.hpp"
#include "plan/groups.hpp"
#include "plan/rows.hpp"

namespace onepass {

MomentsArrays fresh_moments(const Array& x, const bool* reduced) {
    index shape[MAX_NDIM], count = 1;
    int kept = 0;
    for (int i = 0; i < x.ndim; ++i) {
        if (reduced[i])
            count *= x.shape[i];
        else
            shape[kept++] = x.shape[i];
    }
    MomentsArrays m = {double(count), fresh(Dtype::f64, kept, shape), fresh(Dtype::f64, kept, shape),
                       fresh(Dtype::f64, kept, shape)};
    if (count == 0) {
        fill_nan(m.mean);
        m.low.object.attr("fill")(0.0);
        m.m2.object.attr("fill")(0.0);
    }
    return m;
}

MomentsArrays moments_of(const Array& x, const bool* reduced) {
    MomentsArrays m = fresh_moments(x, reduced);
    if (x.size == 0) return m;
    const Layout at(&x, 1, reduced, Wanted::all, Reads::loose);
    visit(x.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        const MomentsOut out = m.out();
        const py::gil_scoped_release release;
        if (at.view.kind == Kind::rows) {
            Rows<S> p;
            p.view = at.view;
            p.x = at.operand(0).as<const S>();
            p.moments = out;
            return solve(p);
        }
        Groups<S> p = groups_of<S>(at.view, at.operand(0).as<const S>(), nullptr);
        p.moments = out;
        solve(p);
    });
    return m;
}

namespace {

// What the elements of x weigh: a boolean array or one of float64, of x's shape or one that broadcasts to it. None: all
// weigh 1.
struct ElementWeights {
    py::object array = py::none();
    py::object count = py::none();   // where all groups have the same
    bool along = false;              // an element for each place along the axis, the same for all groups
};

// And neither NaN, which either extreme would be, nor infinite. (Two passes by NumPy are quicker than one that compilers do
// not make vector code of.)
bool not_negative(const py::object& weights) {
    const auto extreme = [&](const char* which) {
        return numpy().attr(which)(weights, py::arg("initial") = 0.0).cast<double>();
    };
    return extreme("min") >= 0 && extreme("max") <= std::numeric_limits<double>::max();
}

ElementWeights parse_weights(py::handle mask_arg, py::handle weights_arg, const Array& x, const bool* reduced, int axes) {
    ElementWeights result;
    const py::object shape = x.object.attr("shape");
    py::object mask;
    if (!mask_arg.is_none()) {
        mask = input_bool("mask", mask_arg);
        try {
            mask = numpy().attr("broadcast_to")(mask, shape);
        } catch (py::error_already_set&) {
            throw py::value_error("mask has shape " + std::string(py::str(mask.attr("shape"))) +
                                  "; expected one that broadcasts to " + shape_text(x.ndim, x.shape) + ", the shape of x");
        }
        result.array = mask;
    }
    if (weights_arg.is_none()) return result;
    const Array weights = input("weights", weights_arg);
    if (weights.dtype != Dtype::f64 && weights.dtype != x.dtype)
        throw py::type_error(std::string("weights has dtype ") + name_of(weights.dtype) + "; expected float64" +
                             (x.dtype == Dtype::f64 ? "" : std::string(" or ") + name_of(x.dtype)) + ", as x is " +
                             name_of(x.dtype));
    int axis = 0;
    while (!reduced[axis]) ++axis;
    bool along = axes == 1 && weights.ndim == 1 && weights.shape[0] == x.shape[axis], whole = weights.ndim == x.ndim;
    for (int i = 0; whole && i < x.ndim; ++i) whole = weights.shape[i] == x.shape[i];
    if (!along && !whole)
        throw py::value_error("weights has shape " + shape_text(weights.ndim, weights.shape) + "; expected " +
                              shape_text(x.ndim, x.shape) + ", the shape of x" +
                              (axes == 1 ? ", or " + shape_text(1, x.shape + axis) + ", its length along axis" : ""));
    py::object wide = numpy().attr("ascontiguousarray")(weights.object, py::arg("dtype") = "float64");
    if (!not_negative(wide))
        throw py::value_error("weights has elements that are negative, NaN or infinite; expected finite ones, 0 or more");
    if (mask_arg.is_none() && (x.ndim == 1 || !whole)) result.count = numpy().attr("sum")(wide);
    if (!whole) {
        result.along = mask_arg.is_none();
        py::tuple at(static_cast<std::size_t>(x.ndim));
        for (int i = 0; i < x.ndim; ++i) at[static_cast<std::size_t>(i)] = i == axis ? x.shape[axis] : 1;
        wide = wide.attr("reshape")(at);
    }
    result.array = mask ? numpy().attr("where")(mask, wide, 0.0) : wide;
    return result;
}

constexpr index WIDE = 64;   // columns

// Reduced axes in front of all others are columns; of any other choice, groups become rows.
py::tuple weighted_moments(const Array& x, const bool* reduced, const ElementWeights& weights, bool skipna) {
    MomentsArrays m = fresh_moments(x, reduced);
    const Array count = fresh(Dtype::f64, m.mean.ndim, m.mean.shape);
    if (x.size != 0) {
        py::list order;
        bool columns = !reduced[x.ndim - 1];
        for (int i = 0; i + 1 < x.ndim; ++i) columns = columns && reduced[i] >= reduced[i + 1];
        for (const bool last : {false, true})
            for (int i = 0; i < x.ndim; ++i)
                if (reduced[i] == (columns ? !last : last)) order.append(i);
        const auto in_order = [&](const py::object& array) {
            return py::object(array.attr("transpose")(py::tuple(order)));
        };
        // (Narrower columns are folded, for which their weights have to lie as they do.)
        const bool by_place = weights.along && (!columns || m.mean.size >= WIDE);
        CellCall call = {};
        call.x = contiguous_copy(input("x", in_order(x.object)));
        call.samples = 1;
        call.channels = m.mean.size;
        call.span = x.size / m.mean.size;
        call.channels_last = columns;
        call.weighing.by_element = !by_place;
        call.weighing.skipna = skipna;
        py::array held;
        if (!weights.array.is_none()) {
            held = py::reinterpret_borrow<py::array>(
                by_place ? weights.array
                         : py::object(numpy().attr("ascontiguousarray")(
                               in_order(numpy().attr("broadcast_to")(weights.array, x.object.attr("shape"))))));
            if (held.dtype().kind() == 'b')
                call.weighing.mask = static_cast<const std::uint8_t*>(held.data());
            else
                call.weighing.weights = static_cast<const double*>(held.data());
        }
        call.count = count.as<double>();
        call.moments = m.out();
        run(call);
    } else {
        count.object.attr("fill")(0.0);
    }
    const py::object counts = weights.count.is_none() || skipna ? count.object : weights.count;
    return py::make_tuple(counts, m.mean.object, m.low.object, m.m2.object);
}

py::tuple moments(py::handle x_arg, py::handle axis, py::handle mask, py::handle weights, py::handle skipna_arg) {
    const Environment environment;
    const Array x = input("x", x_arg);
    bool reduced[MAX_NDIM];
    const int axes = parse_axes(axis, x.ndim, reduced);
    const bool skipna = truth("skipna", skipna_arg);
    if (mask.is_none() && weights.is_none() && !skipna) return moments_of(x, reduced).tuple();
    const Flags flags;
    const ElementWeights parsed = parse_weights(mask, weights, x, reduced, axes);
    return weighted_moments(x, reduced, parsed, skipna);
}

}   // namespace

void register_moments(py::module_& m) {
    m.def("moments", moments, py::arg("x"), py::arg("axis"), py::arg("mask"), py::arg("weights"), py::arg("skipna"));
}

}   // namespace onepass
