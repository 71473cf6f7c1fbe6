#include "bindings/row_norm.hpp"

#include <limits>
#include <optional>
#include <vector>

#include "bindings/layout.hpp"
#include "plan/environment.hpp"
#include "plan/groups.hpp"
#include "plan/rows.hpp"

namespace onepass {
namespace {

// Operands of the layout.
enum { X, Y, RESIDUAL, SUM };

template <class S>
void run(const Layout& at, bool adds, const Array& weight, const Array& bias, double eps, bool centered, const Array& mean,
         const Array& rstd) {
    using T = Arith<S>;
    const T *w = weight.as<const T>(), *b = bias.as<const T>();
    T *mean_out = mean.as<T>(), *rstd_out = rstd.as<T>();
    const py::gil_scoped_release release;
    if (at.view.kind == Kind::rows) {
        Rows<S> p;
        p.view = at.view;
        p.x = at.operand(X).as<const S>();
        p.y = at.operand(Y).as<S>();
        p.affine = {w, b, 1, 1, 0};
        p.how = {0, eps};
        p.centered = centered;
        p.mean = mean_out;
        p.rstd = rstd_out;
        if (adds) {
            p.residual = at.operand(RESIDUAL).as<const S>();
            p.sum = at.operand(SUM).as<S>();
        }
        return solve(p);
    }
    Groups<S> p = groups_of(at.view, at.operand(X).as<const S>(), at.operand(Y).as<S>());
    std::vector<T> filler;
    if (!w != !b) {
        filler.assign(static_cast<std::size_t>(p.rows), w ? T(0) : T(1));
        (w ? b : w) = filler.data();
    }
    p.row_weight = w;
    p.row_bias = b;
    p.how = {0, eps};
    p.centered = centered;
    p.mean = mean_out;
    p.rstd = rstd_out;
    solve(p);
}

}   // namespace

double eps_of(py::handle eps, bool centered, Dtype dtype) {
    if (centered || !eps.is_none()) return real("eps", eps);
    return arith_of(dtype) == Dtype::f64 ? std::numeric_limits<double>::epsilon()
                                         : double(std::numeric_limits<float>::epsilon());
}

Normalized::Normalized(const Array& x, py::handle axis) {
    ndim = parse_axes(axis, x.ndim, reduced);
    for (int i = 0, k = 0; i < x.ndim; ++i)
        if (reduced[i]) shape[k++] = x.shape[i];
}

Array Normalized::input_weight(const char* name, py::handle object, const Array& x) const {
    return onepass::input_weight(name, object, x, ndim, shape, "the shape of x along axis");
}

py::object row_norm(const RowNorm& call) {
    const Environment environment;
    const Array x = input("x", call.x), residual = optional_input("residual", call.residual);
    const bool adds = !call.residual.is_none();
    if (adds) {
        require_dtype("residual", residual, x.dtype);
        require_shape("residual", residual, x.ndim, x.shape, "the shape of x");
    }
    const Normalized axes(x, call.axis);
    const bool* reduced = axes.reduced;
    const Array weight = axes.input_weight("weight", call.weight, x), bias = axes.input_weight("bias", call.bias, x);
    const double eps = eps_of(call.eps, call.centered, x.dtype);
    const bool stats = truth("return_stats", call.return_stats);
    const Array out = output("out", call.out, x);
    Array sum;
    if (adds) {
        sum = output("sum_out", call.sum_out, x, &residual);
        if (!call.out.is_none()) require_apart("out", out, "residual", residual);
        if (!call.sum_out.is_none()) require_apart("sum_out", sum, "out", out);
    }
    for (const auto& [name, array] : {std::pair<const char*, const Array*>{"weight", &weight}, {"bias", &bias}}) {
        if (!call.out.is_none()) require_apart("out", out, name, *array);
        if (adds && !call.sum_out.is_none()) require_apart("sum_out", sum, name, *array);
    }
    Array mean, rstd;
    if (stats) {
        if (call.centered) mean = fresh_stats(x, reduced);
        rstd = fresh_stats(x, reduced);
    }
    if (x.size == 0) {
        fill_nan(mean);
        fill_nan(rstd);
    } else {
        const Array w = in_arithmetic(weight, x.dtype), b = in_arithmetic(bias, x.dtype);
        const Array operands[] = {x, out, residual, sum}, of_sum[] = {sum, out};
        // Only rows are added and normalized in one go; for columns, whose bits are their own, the sum comes first.
        const Layout plain(operands, 2, reduced, Wanted::rows_and_columns, adds ? Reads::loose_rows : Reads::all);
        const bool fused = adds && plain.view.kind == Kind::rows;
        if (adds && !fused) {
            const Flags flags;
            numpy().attr("add")(x.object, residual.object, sum.object);
        }
        std::optional<Layout> added;
        if (fused) {
            added.emplace(operands, 4, reduced, Wanted::rows, Reads::loose_rows);
        } else if (adds) {
            added.emplace(of_sum, 2, reduced, Wanted::rows_and_columns, Reads::all);
        }
        const Layout& at = added ? *added : plain;
        visit(x.dtype, [&](auto* type) {
            run<std::remove_pointer_t<decltype(type)>>(at, fused, w, b, eps, call.centered, mean, rstd);
        });
        at.finish(Y);
        if (fused) at.finish(SUM);
    }
    const py::object y = given_or(call.out, out);
    if (adds) return py::make_tuple(y, given_or(call.sum_out, sum));
    if (!stats) return y;
    if (call.centered) return py::make_tuple(y, mean.object, rstd.object);
    return py::make_tuple(y, rstd.object);
}

}   // namespace onepass
