#include "bindings/register.hpp"
#include "bindings/row_norm.hpp"

namespace onepass {
namespace {

py::object rms_norm(py::handle x, py::handle weight, py::handle axis, py::handle eps, py::handle out,
                    py::handle return_stats) {
    const py::handle none = Py_None;
    return row_norm({x, none, weight, none, axis, eps, out, none, return_stats, false});
}

py::object add_rms_norm(py::handle x, py::handle residual, py::handle weight, py::handle axis, py::handle eps,
                        py::handle out, py::handle sum_out) {
    return row_norm({x, required("residual", residual), weight, Py_None, axis, eps, out, sum_out, Py_False, false});
}

py::object rms_norm_backward(py::handle dy, py::handle x, py::handle weight, py::handle axis, py::handle eps) {
    return row_norm_backward({dy, x, weight, axis, eps, false});
}

}   // namespace

void register_rms_norm(py::module_& m) {
    m.def("rms_norm", rms_norm, py::arg("x"), py::arg("weight"), py::arg("axis"), py::arg("eps"), py::arg("out"),
          py::arg("return_stats"));
    m.def("add_rms_norm", add_rms_norm, py::arg("x"), py::arg("residual"), py::arg("weight"), py::arg("axis"),
          py::arg("eps"), py::arg("out"), py::arg("sum_out"));
    m.def("rms_norm_backward", rms_norm_backward, py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("axis"),
          py::arg("eps"));
}

}   // namespace onepass
