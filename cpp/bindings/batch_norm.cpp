// Batch norm: the statistics of every axis but the channels', and the running statistics.
//
//   r = (1 - momentum) r + momentum * batch,   the batch variance M2 / (count - running_ddof)
#include <vector>

#include "bindings/layout.hpp"
#include "bindings/register.hpp"
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
    const auto channels = static_cast<std::size_t>(p.groups);
    std::vector<double> means, lows, m2s;
    const bool updates = running.training && (running.mean || running.var);
    if (updates) {
        for (auto* values : {&means, &lows, &m2s}) values->resize(channels);
        p.moments = {means.data(), lows.data(), m2s.data()};
    } else if (!running.training) {
        p.given_mean = running.mean.as<const T>();
        p.given_var = running.var.as<const T>();
    }
    const py::gil_scoped_release release;
    solve(p);
    if (!updates) return;
    const double freedom = double(p.rows) * double(p.span) - running.ddof;
    for (std::size_t c = 0; c < channels; ++c) {
        means[c] += lows[c];
        m2s[c] /= freedom;
    }
    if (running.mean) update<T>(running.mean, running.momentum, means);
    if (running.var) update<T>(running.var, running.momentum, m2s);
}

void check_running(const char* name, const Array& array, const Array& x, index channels, bool training) {
    if (!array) return;
    if (array.dtype != arith_of(x.dtype))
        throw py::type_error(std::string(name) + " has dtype " + name_of(array.dtype) + "; expected " +
                             name_of(arith_of(x.dtype)) + ", as x is " + name_of(x.dtype));
    require_shape(name, array, 1, &channels, "one element a channel");
    if (!array.aligned())
        throw py::value_error(std::string(name) + " is not aligned to its dtype; expected an aligned array");
    if (training) require_writeable(name, array);
}

py::object batch_norm(py::handle x_arg, py::handle weight_arg, py::handle bias_arg, py::handle mean_arg, py::handle var_arg,
                      py::handle training_arg, py::handle momentum_arg, py::handle ddof_arg, py::handle axis_arg,
                      py::handle eps_arg, py::handle out_arg, py::handle return_stats) {
    const Array x = input("x", x_arg);
    const int axis = parse_axis(axis_arg, x.ndim);
    const index channels = x.shape[axis];
    bool reduced[MAX_NDIM];
    for (int i = 0; i < x.ndim; ++i) reduced[i] = i != axis;

    Array weight = optional_input("weight", weight_arg), bias = optional_input("bias", bias_arg);
    require_weight("weight", weight, x.dtype, 1, &channels, "one element a channel");
    require_weight("bias", bias, x.dtype, 1, &channels, "one element a channel");
    Running running = {optional_input("running_mean", mean_arg), optional_input("running_var", var_arg),
                       truth("training", training_arg), real("momentum", momentum_arg), real("running_ddof", ddof_arg)};
    check_running("running_mean", running.mean, x, channels, running.training);
    check_running("running_var", running.var, x, channels, running.training);
    const double eps = real("eps", eps_arg);
    const bool stats = truth("return_stats", return_stats);
    if (!running.training && !(running.mean && running.var))
        throw py::value_error(std::string(running.mean ? "running_var" : "running_mean") +
                              " is None; expected an array where training=False (or pass training=True)");
    const index count = channels == 0 ? 0 : x.size / channels;
    if (running.training && running.var && x.size != 0 && !(double(count) > running.ddof))
        throw py::value_error("x has " + std::to_string(count) + " element" + (count == 1 ? "" : "s") +
                              " a channel; updating running_var with running_ddof=" + std::string(py::str(ddof_arg)) +
                              " expects more than that");
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
        weight = in_arithmetic(weight);
        bias = in_arithmetic(bias);
        if (!running.training) {
            running.mean = contiguous_copy(running.mean);
            running.var = contiguous_copy(running.var);
        }
        const Array operands[] = {x, out};
        const Layout at(operands, 2, reduced, Wanted::all);
        visit(x.dtype,
              [&](auto* type) { run<std::remove_pointer_t<decltype(type)>>(at, weight, bias, running, eps, mean, rstd); });
        at.finish(1);
    }
    py::object result = out_arg.is_none() ? out.object : py::reinterpret_borrow<py::object>(out_arg);
    if (!stats) return result;
    return py::make_tuple(result, mean.object, rstd.object);
}

}   // namespace

void register_batch_norm(py::module_& m) {
    m.def("batch_norm", batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("running_mean"),
          py::arg("running_var"), py::arg("training"), py::arg("momentum"), py::arg("running_ddof"), py::arg("axis"),
          py::arg("eps"), py::arg("out"), py::arg("return_stats"));
}

}   // namespace onepass
