#include <limits>

#include "bindings/layout.hpp"
#include "bindings/register.hpp"
#include "plan/environment.hpp"
#include "plan/extremes.hpp"

namespace onepass {
namespace {

// The greatest finite number.
double greatest(Dtype dtype) {
    const double of[] = {double(std::numeric_limits<float>::max()), std::numeric_limits<double>::max(), 65504.0,
                         0x1.fep+127};
    return of[int(dtype)];
}

[[noreturn]] void wrong_range(py::handle object, const std::string& expected) {
    throw py::value_error("feature_range is " + std::string(py::repr(object)) + "; expected " + expected);
}

// The ends as the arithmetic for x has them.
Ends<double> parse_range(py::handle object, Dtype dtype) {
    const std::string expected = "two real numbers, the lower and the upper end";
    const bool text = PyUnicode_Check(object.ptr()) || PyBytes_Check(object.ptr());
    if (text || !PySequence_Check(object.ptr()))
        throw py::type_error("feature_range is " + std::string(Py_TYPE(object.ptr())->tp_name) + "; expected " + expected);
    const auto range = py::reinterpret_borrow<py::sequence>(object);
    const index length = PySequence_Size(object.ptr());
    PyErr_Clear();   // (an array of no dimension is a sequence without a length)
    if (length != 2) wrong_range(object, expected);
    Ends<double> ends = {real("feature_range[0]", py::object(range[0])), real("feature_range[1]", py::object(range[1]))};
    const double most = greatest(dtype);
    // (So written that NaN is none of what is expected.)
    if (!(ends.lower >= -most && ends.upper <= most && ends.lower < ends.upper))
        wrong_range(object, "a lower end below the upper one, both finite in " + std::string(name_of(dtype)));
    // Adding 0 makes a zero the positive one, so that the sign of a result's zero does not hang on x.
    if (arith_of(dtype) == Dtype::f32) ends = {double(float(ends.lower)), double(float(ends.upper))};
    ends = {ends.lower + 0.0, ends.upper + 0.0};
    if (ends.lower == ends.upper)
        wrong_range(object, "two numbers that differ in " + std::string(name_of(arith_of(dtype))));
    if (!(ends.upper - ends.lower <= greatest(arith_of(dtype))))
        wrong_range(object, "a range whose width is finite in " + std::string(name_of(arith_of(dtype))));
    return ends;
}

py::object min_max_scale(py::handle x_arg, py::handle axis, py::handle range, py::handle out_arg) {
    const Environment environment;
    const Array x = input("x", x_arg);
    bool reduced[MAX_NDIM];
    parse_axes(axis, x.ndim, reduced);
    const Ends<double> ends = parse_range(range, x.dtype);
    const Array out = output("out", out_arg, x);
    if (x.size != 0) {
        Array operands[] = {x, out};
        in_order_of_result(operands, reduced);   // no element meets another but to be compared
        const Layout at(operands, 2, reduced, Wanted::all, Reads::loose);
        visit(x.dtype, [&](auto* type) {
            using S = std::remove_pointer_t<decltype(type)>;
            using T = Arith<S>;
            const py::gil_scoped_release release;
            solve(min_max_of(at.view, at.operand(0).as<const S>(), at.operand(1).as<S>(),
                             Ends<T>{T(ends.lower), T(ends.upper)}));
        });
        at.finish(1);
    }
    return out_arg.is_none() ? out.object : py::reinterpret_borrow<py::object>(out_arg);
}

}   // namespace

void register_min_max_scale(py::module_& m) {
    m.def("min_max_scale", min_max_scale, py::arg("x"), py::arg("axis"), py::arg("feature_range"), py::arg("out"));
}

}   // namespace onepass
