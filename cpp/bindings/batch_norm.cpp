// Batch norm and its gradient: the statistics of every axis but the channels', and the running statistics.
//
//   r = (1 - momentum) r + momentum * batch,   the batch variance M2 / (count - running_ddof)
#include <algorithm>
#include <vector>

#include "bindings/cells.hpp"
#include "bindings/layout.hpp"
#include "bindings/register.hpp"
#include "plan/environment.hpp"
#include "plan/groups.hpp"

namespace onepass {
namespace {

// The running statistics of one call: arrays of one element a channel, any stride.
struct Running {
    Array mean, var;
    bool training;
    double momentum, ddof;
};

template <class T>
void update(const Array& running, double momentum, const std::vector<double>& batch) {
    for (index c = 0; c < running.shape[0]; ++c) {
        T& r = *reinterpret_cast<T*>(running.data + c * running.strides[0]);
        r = T((1.0 - momentum) * double(r) + momentum * batch[static_cast<std::size_t>(c)]);
    }
}

// The batch's moments, on their way into the running statistics.
struct Batch {
    std::vector<double> mean, low, m2;

    explicit Batch(index channels) {
        for (auto* values : {&mean, &low, &m2}) values->resize(static_cast<std::size_t>(channels));
    }
    MomentsOut out() { return {mean.data(), low.data(), m2.data()}; }
    void enter(const Running& running, double count) {
        for (std::size_t c = 0; c < mean.size(); ++c) {
            mean[c] += low[c];
            m2[c] /= count - running.ddof;
        }
        for (const auto& [array, values] :
             {std::pair<const Array*, const std::vector<double>*>{&running.mean, &mean}, {&running.var, &m2}}) {
            if (!*array) continue;
            if (array->dtype == Dtype::f64)
                update<double>(*array, running.momentum, *values);
            else
                update<float>(*array, running.momentum, *values);
        }
    }
};

template <class S>
void run(const Layout& at, const Array& weight, const Array& bias, const Running& running, double eps, const Array& mean,
         const Array& rstd) {
    using T = Arith<S>;
    Groups<S> p = groups_of(at.view, at.operand(0).as<const S>(), at.operand(1).as<S>());
    p.weight = weight.as<const T>();
    p.bias = bias.as<const T>();
    p.how = {0, eps};
    p.mean = mean.as<T>();
    p.rstd = rstd.as<T>();
    const bool updates = running.training && (running.mean || running.var);
    Batch batch(updates ? p.groups : 0);
    if (updates) {
        p.moments = batch.out();
    } else if (!running.training) {
        p.given_mean = running.mean.as<const T>();
        p.given_var = running.var.as<const T>();
    }
    const py::gil_scoped_release release;
    solve(p);
    if (updates) batch.enter(running, double(p.rows) * double(p.span));
}

// The statistics of the valid elements; all elements normalized.
void run_masked(const Array& x, const Array& out, int axis, const Mask& mask, const Array& weight, const Array& bias,
                const Running& running, double eps, const Array& mean, const Array& rstd) {
    const bool direct = out.contiguous() && out.aligned();
    CellCall call = cells_of(x, {}, direct ? out : fresh(out), axis, true, 1, mask);
    call.weight = weight;
    call.bias = bias;
    call.how = {0, eps};
    call.mean = mean;
    call.rstd = rstd;
    Batch batch(call.channels);
    call.moments = batch.out();
    run(call);
    if (mask.valid > 0) batch.enter(running, double(mask.valid));
    if (!direct) assign(out, call.y);
}

void check_running(const char* name, const Array& array, const Array& x, index channels, bool written) {
    if (!array) return;
    if (array.dtype != arith_of(x.dtype))
        throw py::type_error(std::string(name) + " has dtype " + name_of(array.dtype) + "; expected " +
                             name_of(arith_of(x.dtype)) + ", as x is " + name_of(x.dtype));
    require_shape(name, array, 1, &channels, A_CHANNEL);
    if (!array.aligned())
        throw py::value_error(std::string(name) + " is not aligned to its dtype; expected an aligned array");
    if (written) require_writeable(name, array);
}

void check_running(const Running& running, const Array& x, index channels, bool written) {
    check_running("running_mean", running.mean, x, channels, written);
    check_running("running_var", running.var, x, channels, written);
    if (!running.training && !(running.mean && running.var))
        throw py::value_error(std::string(running.mean ? "running_var" : "running_mean") +
                              " is None; expected an array where training=False (or pass training=True)");
}

Mask channel_mask(py::handle mask, const Array& x, int axis) {
    index shape[MAX_NDIM];
    const int ndim = without_axis(x, axis, shape);
    return input_mask(mask, ndim, shape, "the shape of x without its channel axis");
}

py::object batch_norm(py::handle x_arg, py::handle weight_arg, py::handle bias_arg, py::handle mean_arg, py::handle var_arg,
                      py::handle training_arg, py::handle momentum_arg, py::handle ddof_arg, py::handle axis_arg,
                      py::handle eps_arg, py::handle mask_arg, py::handle out_arg, py::handle return_stats) {
    const Environment environment;
    const Array x = input("x", x_arg);
    const int axis = parse_axis(axis_arg, x.ndim);
    const index channels = x.shape[axis];
    bool reduced[MAX_NDIM];
    for (int i = 0; i < x.ndim; ++i) reduced[i] = i != axis;

    Array weight = input_weight("weight", weight_arg, x, 1, &channels, A_CHANNEL);
    Array bias = input_weight("bias", bias_arg, x, 1, &channels, A_CHANNEL);
    Running running = {optional_input("running_mean", mean_arg), optional_input("running_var", var_arg),
                       truth("training", training_arg), real("momentum", momentum_arg), real("running_ddof", ddof_arg)};
    check_running(running, x, channels, running.training);
    const double eps = real("eps", eps_arg);
    const bool stats = truth("return_stats", return_stats);
    const Mask mask = channel_mask(mask_arg, x, axis);
    const index all = channels == 0 ? 0 : x.size / channels, count = mask.data ? mask.valid : all;
    // A batch without a valid element leaves the running statistics alone.
    if (running.training && running.var && x.size != 0 && !(double(count) > running.ddof) && !(mask.data && count == 0))
        throw py::value_error("x has " + std::to_string(count) + (mask.data ? " unmasked" : "") + " element" +
                              (count == 1 ? "" : "s") + " a channel; updating running_var with running_ddof=" +
                              std::string(py::str(ddof_arg)) + " expects more than that");
    const Array out = output("out", out_arg, x);
    const std::pair<const char*, const Array*> inputs[] = {
        {"weight", &weight}, {"bias", &bias}, {"running_mean", &running.mean}, {"running_var", &running.var}};
    if (!out_arg.is_none())
        for (const auto& [name, array] : inputs) require_apart("out", out, name, *array);
    if (running.training) {
        require_apart("running_mean", running.mean, "running_var", running.var);
        for (const auto& [name, array] : {inputs[2], inputs[3]})
            for (const auto& [other_name, other] : {std::pair<const char*, const Array*>{"x", &x}, inputs[0], inputs[1]})
                require_apart(name, *array, other_name, *other);
    }
    Array mean, rstd;
    if (stats) {
        mean = fresh_stats(x, reduced);
        rstd = fresh_stats(x, reduced);
    }
    if (x.size == 0) {
        fill_nan(mean);
        fill_nan(rstd);
    } else {
        weight = in_arithmetic(weight, x.dtype);
        bias = in_arithmetic(bias, x.dtype);
        if (!running.training) {
            running.mean = in_arithmetic(running.mean, x.dtype);
            running.var = in_arithmetic(running.var, x.dtype);
        }
        if (mask.data && running.training) {
            run_masked(x, out, axis, mask, weight, bias, running, eps, mean, rstd);
        } else {
            Array operands[] = {x, out};
            if (!running.training) in_order_of_result(operands, reduced);
            const Layout at(operands, 2, reduced, Wanted::all, Reads::turned);
            visit(x.dtype, [&](auto* type) {
                run<std::remove_pointer_t<decltype(type)>>(at, weight, bias, running, eps, mean, rstd);
            });
            at.finish(1);
        }
    }
    const py::object result = given_or(out_arg, out);
    if (!stats) return result;
    return py::make_tuple(result, mean.object, rstd.object);
}

py::tuple batch_norm_backward(py::handle dy_arg, py::handle x_arg, py::handle weight_arg, py::handle mean_arg,
                              py::handle var_arg, py::handle training_arg, py::handle axis_arg, py::handle eps_arg,
                              py::handle mask_arg) {
    const Environment environment;
    const Array x = input("x", x_arg), dy = input_dy(dy_arg, x);
    const int axis = parse_axis(axis_arg, x.ndim);
    const index channels = x.shape[axis];
    const Array weight = input_weight("weight", weight_arg, x, 1, &channels, A_CHANNEL);
    const Running running = {optional_input("running_mean", mean_arg), optional_input("running_var", var_arg),
                             truth("training", training_arg), 0, 0};
    check_running(running, x, channels, false);
    const double eps = real("eps", eps_arg);
    const Mask mask = channel_mask(mask_arg, x, axis);
    CellCall call = cells_of(x, dy, {}, axis, true, 1, running.training ? mask : Mask{});
    call.weight = in_arithmetic(weight, x.dtype);
    call.how = {0, eps};
    if (!running.training) {
        call.given_mean = in_arithmetic(running.mean, x.dtype);
        call.given_var = in_arithmetic(running.var, x.dtype);
    }
    return run_backward(call);
}

}   // namespace

void register_batch_norm(py::module_& m) {
    m.def("batch_norm", batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("running_mean"),
          py::arg("running_var"), py::arg("training"), py::arg("momentum"), py::arg("running_ddof"), py::arg("axis"),
          py::arg("eps"), py::arg("mask"), py::arg("out"), py::arg("return_stats"));
    m.def("batch_norm_backward", batch_norm_backward, py::arg("dy"), py::arg("x"), py::arg("weight"),
          py::arg("running_mean"), py::arg("running_var"), py::arg("training"), py::arg("axis"), py::arg("eps"),
          py::arg("mask"));
}

}   // namespace onepass
