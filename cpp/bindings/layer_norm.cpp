#include <vector>

#include "bindings/layout.hpp"
#include "bindings/register.hpp"
#include "plan/groups.hpp"
#include "plan/rows.hpp"

namespace onepass {
namespace {

template <class S>
void run(const Layout& at, const Array& weight, const Array& bias, double eps, const Array& mean, const Array& rstd) {
    using T = Arith<S>;
    const T *w = weight.as<const T>(), *b = bias.as<const T>();
    T *mean_out = mean.as<T>(), *rstd_out = rstd.as<T>();
    const py::gil_scoped_release release;
    if (at.view.kind == Kind::rows) return solve(Rows<S>{at.view, at.x.as<const S>(), at.y.as<S>(), w, b, {0, eps}, mean_out, rstd_out, {}});
    Groups<S> p = groups_of(at.view, at.x.as<const S>(), at.y.as<S>());
    std::vector<T> filler;
    if (!w != !b) {
        filler.assign(static_cast<std::size_t>(p.rows), w ? T(0) : T(1));
        (w ? b : w) = filler.data();
    }
    p.row_weight = w;
    p.row_bias = b;
    p.how = {0, eps};
    p.mean = mean_out;
    p.rstd = rstd_out;
    solve(p);
}

py::object layer_norm(py::handle x_arg, py::handle weight_arg, py::handle bias_arg, py::handle axis, py::handle eps_arg,
                      py::handle out_arg, py::handle return_stats) {
    const Array x = input("x", x_arg);
    bool reduced[MAX_NDIM];
    const int axes = parse_axes(axis, x.ndim, reduced);
    index normalized[MAX_NDIM];
    for (int i = 0, k = 0; i < x.ndim; ++i)
        if (reduced[i]) normalized[k++] = x.shape[i];
    Array weight = optional_input("weight", weight_arg), bias = optional_input("bias", bias_arg);
    for (const auto& [name, array] : {std::pair<const char*, Array*>{"weight", &weight}, {"bias", &bias}}) {
        if (!*array) continue;
        require_weight_dtype(name, *array, x.dtype);
        require_shape(name, *array, axes, normalized, "the shape of x along axis");
    }
    const double eps = real("eps", eps_arg);
    const bool stats = truth("return_stats", return_stats);
    const Array out = output(out_arg, x);
    if (!out_arg.is_none()) {
        require_apart("out", out, "weight", weight);
        require_apart("out", out, "bias", bias);
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
        const Layout at(x, out, reduced, false);
        visit(x.dtype, [&](auto* type) { run<std::remove_pointer_t<decltype(type)>>(at, weight, bias, eps, mean, rstd); });
        at.finish();
    }
    py::object result = out_arg.is_none() ? out.object : py::reinterpret_borrow<py::object>(out_arg);
    if (!stats) return result;
    return py::make_tuple(result, mean.object, rstd.object);
}

}   // namespace

void register_layer_norm(py::module_& m) {
    m.def("layer_norm", layer_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("axis"), py::arg("eps"),
          py::arg("out"), py::arg("return_stats"));
}

}   // namespace onepass
