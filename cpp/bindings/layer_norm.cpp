#include "bindings/register.hpp"
#include "bindings/row_norm.hpp"

namespace onepass {
namespace {

py::object layer_norm(py::handle x, py::handle weight, py::handle bias, py::handle axis, py::handle eps, py::handle out,
                      py::handle return_stats) {
    const py::handle none = Py_None;
    return row_norm({x, none, weight, bias, axis, eps, out, none, return_stats, true});
}

py::object add_layer_norm(py::handle x, py::handle residual, py::handle weight, py::handle bias, py::handle axis,
                          py::handle eps, py::handle out, py::handle sum_out) {
    return row_norm({x, required("residual", residual), weight, bias, axis, eps, out, sum_out, Py_False, true});
}

py::object layer_norm_backward(py::handle dy, py::handle x, py::handle weight, py::handle axis, py::handle eps) {
    return row_norm_backward({dy, x, weight, axis, eps, true});
}

}   // namespace

void register_layer_norm(py::module_& m) {
    m.def("layer_norm", layer_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("axis"), py::arg("eps"),
          py::arg("out"), py::arg("return_stats"));
    m.def("add_layer_norm", add_layer_norm, py::arg("x"), py::arg("residual"), py::arg("weight"), py::arg("bias"),
          py::arg("axis"), py::arg("eps"), py::arg("out"), py::arg("sum_out"));
    m.def("layer_norm_backward", layer_norm_backward, py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("axis"),
          py::arg("eps"));
}

}   // namespace onepass
