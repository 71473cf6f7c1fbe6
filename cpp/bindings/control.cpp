// Threads, instruction sets, what the build knows of itself, and the ceilings for benchmarks.
#include <climits>

#include "bindings/array.hpp"
#include "bindings/register.hpp"
#include "dispatch/dispatch.hpp"
#include "plan/ceilings.hpp"
#include "plan/machine.hpp"
#include "plan/threads.hpp"

namespace onepass {
namespace {

void checked_set_num_threads(py::handle n) {
    if (!PyIndex_Check(n.ptr()) || PyBool_Check(n.ptr()))
        throw py::type_error("n is " + std::string(Py_TYPE(n.ptr())->tp_name) + "; expected an int");
    const index value = PyNumber_AsSsize_t(n.ptr(), nullptr);
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (value < 1 || value > 4096) throw py::value_error("n is " + std::to_string(value) + "; expected 1 to 4096 threads");
    set_num_threads(static_cast<int>(value));
}

py::tuple isa_names() {
    py::list names;
    for (const Isa* isa : available_isas()) names.append(isa->name);
    return py::tuple(names);
}

py::dict build() {
    py::dict facts;
    facts["compiler"] = ONEPASS_COMPILER;
    facts["flags"] = ONEPASS_FLAGS;
    facts["openmp"] = has_openmp();
    facts["first_level_cache"] = first_level_cache();
    facts["last_level_cache"] = last_level_cache();
    facts["usable_cpus"] = usable_cpus();
    facts["pybind11"] = PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR);
    return facts;
}

// The ceilings move bytes; what they mean is all the same to them.
index floats(const Array& array) { return array.size * size_of(array.dtype) / index(sizeof(float)); }

void copy_probe(py::handle src_arg, py::handle dst_arg, bool stream) {
    const Array src = input("src", src_arg), dst = input("dst", dst_arg);
    require_dtype("dst", dst, src.dtype);
    require_shape("dst", dst, src.ndim, src.shape, "the shape of src");
    require_writeable("dst", dst);
    if (!src.contiguous() || !dst.contiguous())
        throw py::value_error("src or dst is not C-contiguous; expected both to be");
    const py::gil_scoped_release release;
    copy_ceiling(src.as<const float>(), dst.as<float>(), floats(src), stream);
}

double read_probe(py::handle src_arg) {
    const Array src = input("src", src_arg);
    if (!src.contiguous()) throw py::value_error("src is not C-contiguous; expected it to be");
    const py::gil_scoped_release release;
    return read_ceiling(src.as<const float>(), floats(src));
}

}   // namespace

void register_control(py::module_& m) {
    m.def("set_num_threads", checked_set_num_threads, py::arg("n"));
    m.def("get_num_threads", get_num_threads);
    m.def("isa", [] { return active_isa.load()->name; });
    m.def("available_isas", isa_names);
    m.def("use_isa", use_isa, py::arg("name"));
    m.def("build", build);
    m.def("cgroup_quota", cgroup_quota, py::arg("root"));
    m.def("copy_probe", copy_probe, py::arg("src"), py::arg("dst"), py::arg("stream"));
    m.def("read_probe", read_probe, py::arg("src"));
}

}   // namespace onepass
