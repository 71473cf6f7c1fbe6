#include "bindings/layout.hpp"
#include "bindings/moments.hpp"
#include "bindings/register.hpp"
#include "plan/environment.hpp"
#include "plan/groups.hpp"
#include "plan/rows.hpp"

namespace onepass {
namespace {

py::object standardize(py::handle x_arg, py::handle axis, py::handle ddof_arg, py::handle eps_arg, py::handle out_arg,
                       py::handle return_moments) {
    const Environment environment;
    const Array x = input("x", x_arg);
    bool reduced[MAX_NDIM];
    parse_axes(axis, x.ndim, reduced);
    const Finish how = {real("ddof", ddof_arg), real("eps", eps_arg)};
    const bool wants_moments = truth("return_moments", return_moments);
    const Array out = output("out", out_arg, x);
    MomentsArrays moments = {};
    if (wants_moments && x.size == 0) moments = moments_of(x, reduced);
    if (x.size != 0) {
        const Array operands[] = {x, out};
        const Layout at(operands, 2, reduced, Wanted::all, Reads::turned);
        // (Without eps the moments that x is normalized with are those that are returned.)
        const bool once = wants_moments && at.view.kind != Kind::rows && how.eps == 0 && how.ddof == 0;
        if (wants_moments) moments = once ? fresh_moments(x, reduced) : moments_of(x, reduced);   // before x is written to
        visit(x.dtype, [&](auto* type) {
            using S = std::remove_pointer_t<decltype(type)>;
            const py::gil_scoped_release release;
            if (at.view.kind == Kind::rows) {
                Rows<S> p;
                p.view = at.view;
                p.x = at.operand(0).as<const S>();
                p.y = at.operand(1).as<S>();
                p.how = how;
                return solve(p);
            }
            Groups<S> p = groups_of(at.view, at.operand(0).as<const S>(), at.operand(1).as<S>());
            p.how = how;
            if (once) p.moments = moments.out();
            solve(p);
        });
        at.finish(1);
    }
    py::object result = out_arg.is_none() ? out.object : py::reinterpret_borrow<py::object>(out_arg);
    if (!wants_moments) return result;
    return py::make_tuple(result, moments.tuple());
}

}   // namespace

void register_standardize(py::module_& m) {
    m.def("standardize", standardize, py::arg("x"), py::arg("axis"), py::arg("ddof"), py::arg("eps"), py::arg("out"),
          py::arg("return_moments"));
}

}   // namespace onepass
