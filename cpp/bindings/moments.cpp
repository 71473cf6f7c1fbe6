#include "bindings/moments.hpp"

#include "bindings/register.hpp"
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
    const Layout at(&x, 1, reduced, Wanted::all);
    visit(x.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        const MomentsOut out = {m.mean.as<double>(), m.low.as<double>(), m.m2.as<double>()};
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

py::tuple moments(py::handle x_arg, py::handle axis) {
    const Array x = input("x", x_arg);
    bool reduced[MAX_NDIM];
    parse_axes(axis, x.ndim, reduced);
    return moments_of(x, reduced).tuple();
}

}   // namespace

void register_moments(py::module_& m) { m.def("moments", moments, py::arg("x"), py::arg("axis")); }

}   // namespace onepass
