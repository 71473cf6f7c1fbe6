// Group norm, and instance norm: group norm with a group for each channel. Their masked forms, and their gradients.
#include "bindings/cells.hpp"
#include "bindings/layout.hpp"
#include "bindings/register.hpp"
#include "plan/environment.hpp"
#include "plan/groups.hpp"
#include "plan/rows.hpp"

namespace onepass {
namespace {

struct GroupNorm {
    py::handle x, weight, bias, axis, eps, mask, out, return_stats;
    py::handle num_groups;   // None: as many as there are channels
};

struct Problem {
    Array x, out, weight, bias, mean, rstd;
    index groups, channels, spatial;   // spatial: elements of one channel of one sample
    double eps;
};

Array reshaped(const Array& array, int ndim, const index* shape) {
    py::tuple sizes(static_cast<std::size_t>(ndim));
    for (int i = 0; i < ndim; ++i) sizes[static_cast<std::size_t>(i)] = shape[i];
    return input("array", array.object.attr("reshape")(sizes));
}

// The same where it is known to be possible. (NumPy takes half of a small call for such an object.)
Array seen_as(Array array, int ndim, const index* shape, const index* strides) {
    array.ndim = ndim;
    array.shape = shape;
    array.strides = strides;
    return array;
}

// Channels first: the channel axis split in two, (groups, channels of a group), makes every group a row. Where a group's
// channels do not follow each other, they are its pieces.
template <class S>
void channels_first(const Problem& p) {
    const index of_group = p.channels / p.groups, step = size_of(p.x.dtype);
    index shape[MAX_NDIM + 1] = {p.x.shape[0], p.groups, of_group, p.spatial};
    const index strides[] = {p.channels * p.spatial * step, of_group * p.spatial * step, p.spatial * step, step};
    bool reduced[MAX_NDIM + 1] = {false, false, true, true};
    int ndim = 4;
    Array split[] = {seen_as(p.x, ndim, shape, strides), seen_as(p.out, ndim, shape, strides)};
    const Array whole[] = {p.x, p.out};
    const auto dense = [](const Array& array) { return array.contiguous() && array.aligned(); };
    if (!(dense(p.x) && dense(p.out))) {
        ndim = p.x.ndim + 1;
        for (int i = 3; i < ndim; ++i) {
            shape[i] = p.x.shape[i - 1];
            reduced[i] = true;
        }
        for (Array& array : split) array = reshaped(array, ndim, shape);
    }
    // (Where all axes after the first two are reduced, of either.)
    const auto fits = [&](const Array& array) { return Layout::fits(array, reduced, Wanted::rows, Reads::all_rows); };
    const bool pieces = !p.x.contiguous() && p.spatial > 1 && !fits(split[0]) && fits(whole[0]);
    const Layout at(pieces ? whole : split, 2, reduced, Wanted::rows, Reads::all_rows);
    Rows<S> rows;
    rows.view = at.view;
    if (pieces) rows.pieces = p.channels / p.groups;
    rows.x = at.operand(0).as<const S>();
    rows.y = at.operand(1).as<S>();
    rows.affine = {p.weight.as<const Arith<S>>(), p.bias.as<const Arith<S>>(), p.spatial, p.groups, 0};
    rows.how = {0, p.eps};
    rows.mean = p.mean.as<Arith<S>>();
    rows.rstd = p.rstd.as<Arith<S>>();
    {
        const py::gil_scoped_release release;
        solve(rows);
    }
    at.finish(1);
}

// Channels last: columns of each sample's own, merged over the channels of a group.
template <class S>
void channels_last(const Problem& p) {
    bool reduced[MAX_NDIM] = {};
    for (int i = 1; i + 1 < p.x.ndim; ++i) reduced[i] = true;
    const Array operands[] = {p.x, p.out};
    const Layout at(operands, 2, reduced, Wanted::rows_and_columns);
    Groups<S> groups = groups_of(at.view, at.operand(0).as<const S>(), at.operand(1).as<S>());
    groups.groups = p.groups;
    groups.span = p.channels / p.groups;
    groups.x_group = groups.y_group = groups.span;
    groups.weight = p.weight.as<const Arith<S>>();
    groups.bias = p.bias.as<const Arith<S>>();
    groups.weight_a_column = true;
    groups.how = {0, p.eps};
    groups.mean = p.mean.as<Arith<S>>();
    groups.rstd = p.rstd.as<Arith<S>>();
    {
        const py::gil_scoped_release release;
        solve(groups);
    }
    at.finish(1);
}

index parse_groups(py::handle num_groups, index channels) {
    if (num_groups.is_none()) return channels;
    const index groups = integer("num_groups", num_groups, "an int");
    if (groups < 1 || channels % groups != 0)
        throw py::value_error("num_groups is " + std::to_string(groups) + "; expected a divisor of the " +
                              std::to_string(channels) + " channels of x");
    return groups;
}

int parse_channel_axis(py::handle axis_arg, const Array& x, bool instance) {
    if (x.ndim < (instance ? 3 : 2))
        throw py::value_error("x has shape " + shape_text(x.ndim, x.shape) + "; expected (samples, channels, " +
                              (instance ? "at least one spatial axis)" : "any spatial axes)") + ", or channels last");
    const int axis = parse_axis(axis_arg, x.ndim);
    if (axis == 0) throw py::value_error("axis is 0, the samples' axis; expected that of the channels, 1 or -1");
    return axis;
}

Mask sample_mask(py::handle mask, const Array& x, int axis) {
    index shape[MAX_NDIM];
    const int ndim = without_axis(x, axis, shape);
    return input_mask(mask, ndim, shape, "the shape of x without its channel axis");
}

// Channels are first or last; an axis in between moves to the front.
Array channels_in_front(const Array& x, int axis) { return input("array", numpy().attr("moveaxis")(x.object, axis, 1)); }

void masked(Problem& p, int axis, const Mask& mask) {
    const bool direct = p.out.contiguous() && p.out.aligned();
    CellCall call = cells_of(p.x, {}, direct ? p.out : fresh(p.out), axis, false, p.channels / p.groups, mask);
    call.weight = p.weight;
    call.bias = p.bias;
    call.how = {0, p.eps};
    call.mean = p.mean;
    call.rstd = p.rstd;
    run(call);
    if (!direct) assign(p.out, call.y);
}

py::object group_norm(const GroupNorm& call) {
    const Environment environment;
    const bool instance = call.num_groups.is_none();
    Array x = input("x", call.x);
    int axis = parse_channel_axis(call.axis, x, instance);
    const index channels = x.shape[axis], groups = parse_groups(call.num_groups, channels);
    const Array weight = input_weight("weight", call.weight, x, 1, &channels, A_CHANNEL);
    const Array bias = input_weight("bias", call.bias, x, 1, &channels, A_CHANNEL);
    const double eps = real("eps", call.eps);
    const bool stats = truth("return_stats", call.return_stats);
    const Mask mask = sample_mask(call.mask, x, axis);
    Array out = output("out", call.out, x);
    const py::object result = given_or(call.out, out);
    if (!call.out.is_none()) {
        require_apart("out", out, "weight", weight);
        require_apart("out", out, "bias", bias);
    }
    Problem p = {{}, {}, {}, {}, {}, {}, groups, channels, 1, eps};
    if (stats) {
        index shape[MAX_NDIM];
        for (int i = 0; i < x.ndim; ++i) shape[i] = i == 0 ? x.shape[0] : i == axis ? groups : 1;
        p.mean = fresh(arith_of(x.dtype), x.ndim, shape);
        p.rstd = fresh(arith_of(x.dtype), x.ndim, shape);
    }
    if (x.size == 0) {
        fill_nan(p.mean);
        fill_nan(p.rstd);
    } else {
        p.spatial = x.size / (x.shape[0] * channels);
        p.weight = in_arithmetic(weight, x.dtype);
        p.bias = in_arithmetic(bias, x.dtype);
        const bool last = axis == x.ndim - 1 && axis != 1 && p.spatial > 1 && channels > 1 && x.shape[0] * channels > 1;
        if (axis != 1 && !last) {   // in between, or nothing in between: as if first
            x = channels_in_front(x, axis);
            out = channels_in_front(out, axis);
            axis = 1;
        }
        p.x = x;
        p.out = out;
        if (mask.data)
            masked(p, axis, mask);
        else
            visit(x.dtype, [&](auto* type) {
                using S = std::remove_pointer_t<decltype(type)>;
                last ? channels_last<S>(p) : channels_first<S>(p);
            });
    }
    if (!stats) return result;
    return py::make_tuple(result, p.mean.object, p.rstd.object);
}

struct GroupNormBackward {
    py::handle dy, x, weight, axis, eps, mask;
    py::handle num_groups;
};

py::tuple group_norm_backward(const GroupNormBackward& call) {
    const Environment environment;
    Array x = input("x", call.x), dy = input_dy(call.dy, x);
    int axis = parse_channel_axis(call.axis, x, call.num_groups.is_none());
    const index channels = x.shape[axis], groups = parse_groups(call.num_groups, channels);
    const Array weight = input_weight("weight", call.weight, x, 1, &channels, A_CHANNEL);
    const double eps = real("eps", call.eps);
    const Mask mask = sample_mask(call.mask, x, axis);
    const int given_axis = axis;
    if (axis != 1 && axis != x.ndim - 1) {
        x = channels_in_front(x, axis);
        dy = channels_in_front(dy, axis);
        axis = 1;
    }
    CellCall cells = cells_of(x, dy, {}, axis, false, channels == 0 ? 1 : channels / groups, mask);
    cells.weight = in_arithmetic(weight, x.dtype);
    cells.how = {0, eps};
    py::tuple result = run_backward(cells);
    if (axis == given_axis) return result;
    const Array dx = fresh(x, x.ndim, input("x", call.x).shape);
    assign(channels_in_front(dx, given_axis), cells.y);
    return py::make_tuple(dx.object, result[1], result[2]);
}

void require_groups(py::handle num_groups) {
    if (num_groups.is_none()) throw py::type_error("num_groups is NoneType; expected an int");
}

}   // namespace

void register_group_norm(py::module_& m) {
    const auto group = [](py::handle x, py::handle num_groups, py::handle weight, py::handle bias, py::handle axis,
                          py::handle eps, py::handle mask, py::handle out, py::handle return_stats) {
        require_groups(num_groups);
        return group_norm({x, weight, bias, axis, eps, mask, out, return_stats, num_groups});
    };
    const auto instance = [](py::handle x, py::handle weight, py::handle bias, py::handle axis, py::handle eps,
                             py::handle mask, py::handle out, py::handle return_stats) {
        return group_norm({x, weight, bias, axis, eps, mask, out, return_stats, Py_None});
    };
    const auto group_backward = [](py::handle dy, py::handle x, py::handle num_groups, py::handle weight, py::handle axis,
                                   py::handle eps, py::handle mask) {
        require_groups(num_groups);
        return group_norm_backward({dy, x, weight, axis, eps, mask, num_groups});
    };
    const auto instance_backward = [](py::handle dy, py::handle x, py::handle weight, py::handle axis, py::handle eps,
                                      py::handle mask) {
        return group_norm_backward({dy, x, weight, axis, eps, mask, Py_None});
    };
    m.def("group_norm", group, py::arg("x"), py::arg("num_groups"), py::arg("weight"), py::arg("bias"), py::arg("axis"),
          py::arg("eps"), py::arg("mask"), py::arg("out"), py::arg("return_stats"));
    m.def("instance_norm", instance, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("axis"), py::arg("eps"),
          py::arg("mask"), py::arg("out"), py::arg("return_stats"));
    m.def("group_norm_backward", group_backward, py::arg("dy"), py::arg("x"), py::arg("num_groups"), py::arg("weight"),
          py::arg("axis"), py::arg("eps"), py::arg("mask"));
    m.def("instance_norm_backward", instance_backward, py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("axis"),
          py::arg("eps"), py::arg("mask"));
}

}   // namespace onepass
