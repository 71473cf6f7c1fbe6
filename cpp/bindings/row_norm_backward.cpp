#include "bindings/layout.hpp"
#include "bindings/row_norm.hpp"
#include "plan/environment.hpp"
#include "plan/rows_backward.hpp"

namespace onepass {
namespace {

// Operands of the layout.
struct Operand {
    enum { x, dx, dy };
};

template <class S>
void run(const Layout& at, const Array& weight, double eps, bool centered, const Array& dweight, const Array& dbias) {
    using T = Arith<S>;
    RowGradients<S> p;
    p.view = at.view;
    p.x = at.operand(Operand::x).as<const S>();
    p.dx = at.operand(Operand::dx).as<S>();
    p.dy = at.operand(Operand::dy).as<const S>();
    p.weight = weight.as<const T>();
    p.how = {0, eps};
    p.centered = centered;
    p.dweight = dweight.as<T>();
    p.dbias = dbias.as<T>();
    const py::gil_scoped_release release;
    solve(p);
}

}   // namespace

py::object row_norm_backward(const RowNormBackward& call) {
    const Environment environment;
    const Array x = input("x", call.x), dy = input_dy(call.dy, x);
    const Normalized axes(x, call.axis);
    const Array weight = axes.input_weight("weight", call.weight, x);
    const double eps = eps_of(call.eps, call.centered, x.dtype);

    const Array dx = fresh(x), dweight = fresh(arith_of(x.dtype), axes.ndim, axes.shape);
    Array dbias;
    if (call.centered) dbias = fresh(dweight);
    if (x.size == 0) {
        dweight.object.attr("fill")(0);
        if (dbias) dbias.object.attr("fill")(0);
    } else {
        const Array w = in_arithmetic(weight, x.dtype), operands[] = {x, dx, dy};
        const Layout at(operands, 3, axes.reduced, Wanted::rows_and_columns, Reads::loose_rows);
        visit(x.dtype,
              [&](auto* type) { run<std::remove_pointer_t<decltype(type)>>(at, w, eps, call.centered, dweight, dbias); });
        at.finish(Operand::dx);
    }
    if (!call.centered) return py::make_tuple(dx.object, dweight.object);
    return py::make_tuple(dx.object, dweight.object, dbias.object);
}

}   // namespace onepass
