#include "bindings/array.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "bindings/results.hpp"
#include "dispatch/dispatch.hpp"
#include "plan/move.hpp"

namespace onepass {
namespace {

constexpr int NPY_FLOAT32 = py::detail::npy_api::NPY_FLOAT_, NPY_FLOAT64 = py::detail::npy_api::NPY_DOUBLE_;
constexpr int NPY_FLOAT16 = 23;
constexpr const char* DTYPES = "float32, float64, float16 or ml_dtypes.bfloat16";

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

// Whether np.asarray could view it without a copy: it offers its memory under one of the protocols.
bool offers_memory(py::handle object) {
    if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr()) || PyUnicode_Check(object.ptr())) return false;
    return PyObject_CheckBuffer(object.ptr()) || py::hasattr(object, "__array__") ||
           py::hasattr(object, "__array_interface__") || py::hasattr(object, "__array_struct__");
}

// ml_dtypes registers its types with NumPy when the user imports it, under a number that is known only then.
bool is_bfloat16(const py::detail::PyArrayDescr_Proxy* descr) {
    constexpr int FIRST_USER_TYPE = 256;
    if (descr->type_num < FIRST_USER_TYPE) return false;
    const std::string name = reinterpret_cast<PyTypeObject*>(descr->typeobj)->tp_name;
    return name == "bfloat16" || (name.size() > 9 && name.compare(name.size() - 9, 9, ".bfloat16") == 0);
}

Array view_of(const char* name, py::object object) {
    const auto* proxy = py::detail::array_proxy(object.ptr());
    const auto* descr = py::detail::array_descriptor_proxy(proxy->descr);
    Array a;
    const bool native = descr->byteorder == '=' || descr->byteorder == '|';
    if (native && descr->type_num == NPY_FLOAT32) {
        a.dtype = Dtype::f32;
    } else if (native && descr->type_num == NPY_FLOAT64) {
        a.dtype = Dtype::f64;
    } else if (native && descr->type_num == NPY_FLOAT16) {
        a.dtype = Dtype::f16;
    } else if (native && is_bfloat16(descr)) {
        a.dtype = Dtype::bf16;
    } else {
        const std::string dtype = py::str(py::handle(proxy->descr));
        throw py::type_error(std::string(name) + " has dtype " + dtype + "; expected " + DTYPES +
                             (native ? "" : " in native byte order, as " + std::string(name) + ".astype(...) gives it"));
    }
    a.data = static_cast<char*>(static_cast<void*>(proxy->data));
    a.ndim = proxy->nd;
    a.shape = proxy->dimensions;
    a.strides = proxy->strides;
    a.size = 1;
    for (int i = 0; i < a.ndim; ++i) a.size *= a.shape[i];
    a.object = std::move(object);
    return a;
}

struct Bounds {
    const char *low, *high;
};

Bounds bounds(const Array& a) {
    Bounds b = {a.data, a.data + size_of(a.dtype)};
    for (int i = 0; i < a.ndim; ++i) {
        const index reach = (a.shape[i] - 1) * a.strides[i];
        (reach < 0 ? b.low : b.high) += reach;
    }
    return b;
}

}   // namespace

bool Array::writeable() const {
    return (py::detail::array_proxy(object.ptr())->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0;
}

bool Array::contiguous() const {
    index expected = size_of(dtype);
    for (int i = ndim; i-- > 0;) {
        if (shape[i] != 1 && strides[i] != expected) return false;
        expected *= shape[i];
    }
    return true;
}

bool Array::aligned() const {
    const index item = size_of(dtype);
    if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(item) != 0) return false;
    for (int i = 0; i < ndim; ++i)
        if (shape[i] > 1 && strides[i] % item != 0) return false;
    return true;
}

const char* name_of(Dtype dtype) {
    const char* names[] = {"float32", "float64", "float16", "bfloat16"};
    return names[int(dtype)];
}

Array input(const char* name, py::handle object) {
    auto& api = py::detail::npy_api::get();
    if (Py_TYPE(object.ptr()) == api.PyArray_Type_) return view_of(name, py::reinterpret_borrow<py::object>(object));
    if (api.PyArray_Check_(object.ptr())) {
        if (py::isinstance(object, numpy().attr("ma").attr("MaskedArray")))
            throw py::type_error(std::string(name) + " is a masked array; pass its data as " + name +
                                 ", and mask=~np.ma.getmaskarray(...) to the functions that take a mask");
        return view_of(name, py::reinterpret_borrow<py::object>(object));
    }
    if (!offers_memory(object))
        throw py::type_error(std::string(name) + " is " + type_name(object) + "; expected a NumPy array of " + DTYPES +
                             " (np.asarray converts, with a copy)");
    py::object array = numpy().attr("asarray")(object);
    if (!api.PyArray_Check_(array.ptr()))
        throw py::type_error(std::string(name) + " did not give an array: " + type_name(object));
    return view_of(name, std::move(array));
}

py::object input_bool(const char* name, py::handle object) {
    constexpr int NPY_BOOL = 0;
    auto& api = py::detail::npy_api::get();
    py::object array;
    if (api.PyArray_Check_(object.ptr()))
        array = py::reinterpret_borrow<py::object>(object);
    else if (offers_memory(object))
        array = numpy().attr("asarray")(object);
    if (!array || !api.PyArray_Check_(array.ptr()))
        throw py::type_error(std::string(name) + " is " + type_name(object) + "; expected a NumPy array of bool");
    const auto* proxy = py::detail::array_proxy(array.ptr());
    if (py::detail::array_descriptor_proxy(proxy->descr)->type_num != NPY_BOOL)
        throw py::type_error(std::string(name) + " has dtype " + std::string(py::str(py::handle(proxy->descr))) +
                             "; expected bool");
    // Any byte but 0 is true: not all that call themselves bool were made by NumPy.
    // (Of an array without dimensions NumPy makes a number.)
    return numpy().attr("asarray")(numpy().attr("not_equal")(array.attr("view")("uint8"), 0));
}

Array optional_input(const char* name, py::handle object) { return object.is_none() ? Array{} : input(name, object); }

namespace {

// Takes the reference to descr, which is of so many bytes.
Array fresh(PyObject* descr, std::size_t size, int ndim, const index* shape) {
    auto& api = py::detail::npy_api::get();
    const KeptResults kept(std::accumulate(shape, shape + ndim, size, std::multiplies<std::size_t>()));
    PyObject* made = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, ndim, shape, nullptr, nullptr, 0, nullptr);
    if (!made) throw py::error_already_set();
    return view_of("result", py::reinterpret_steal<py::object>(made));
}

}   // namespace

Array fresh(Dtype dtype, int ndim, const index* shape) {
    const int number = dtype == Dtype::f32 ? NPY_FLOAT32 : dtype == Dtype::f64 ? NPY_FLOAT64 : NPY_FLOAT16;
    PyObject* descr = py::detail::npy_api::get().PyArray_DescrFromType_(number);
    return fresh(descr, std::size_t(size_of(dtype)), ndim, shape);
}

Array fresh(const Array& like, int ndim, const index* shape) {
    PyObject* descr = py::handle(py::detail::array_proxy(like.object.ptr())->descr).inc_ref().ptr();
    return fresh(descr, std::size_t(size_of(like.dtype)), ndim, shape);
}

Array fresh(const Array& like) { return fresh(like, like.ndim, like.shape); }

Array copied(const Array& array) {
    Array copy = fresh(array);
    assign(copy, array);
    return copy;
}

Array contiguous_copy(const Array& array) { return array.contiguous() && array.aligned() ? array : copied(array); }

Array transposed(const Array& array, const py::object& order) {
    return input("array", array.object.attr("transpose")(order));
}

void assign(const Array& to, const Array& from) {
    const py::gil_scoped_release release;
    move({from.data, to.data, to.ndim, to.shape, from.strides, to.strides, size_of(to.dtype)});
}

std::string shape_text(int ndim, const index* shape) {
    std::string text = "(";
    for (int i = 0; i < ndim; ++i)
        text += std::to_string(shape[i]) + (ndim == 1 || i + 1 < ndim ? "," : "") + (i + 1 < ndim ? " " : "");
    return text + ")";
}

void require_shape(const char* name, const Array& array, int ndim, const index* shape, const char* what) {
    if (array.ndim == ndim &&
        (ndim == 0 || std::memcmp(array.shape, shape, sizeof(index) * static_cast<std::size_t>(ndim)) == 0))
        return;
    throw py::value_error(std::string(name) + " has shape " + shape_text(array.ndim, array.shape) + "; expected " +
                          shape_text(ndim, shape) + ", " + what);
}

void require_dtype(const char* name, const Array& array, Dtype dtype) {
    if (array.dtype == dtype) return;
    throw py::type_error(std::string(name) + " has dtype " + name_of(array.dtype) + "; expected " + name_of(dtype) +
                         ", as x is " + name_of(dtype));
}

Array input_dy(py::handle object, const Array& x) {
    const Array dy = input("dy", required("dy", object));
    require_dtype("dy", dy, x.dtype);
    require_shape("dy", dy, x.ndim, x.shape, "the shape of x");
    return dy;
}

namespace {

// The bits of a NaN that has something in its lower half.
bool long_nan(std::uint32_t bits) { return (bits & 0x7fffffff) > 0x7f800000 && (bits & 0xffff) != 0; }

// The array, or a copy whose NaN have nothing there, and are quiet.
Array with_short_nans(const Array& array) {
    const auto* bits = array.as<const std::uint32_t>();
    bool any = false;
    for (index i = 0; i < array.size; ++i) any |= long_nan(bits[i]);
    if (!any) return array;
    const Array copy = copied(array);
    std::transform(bits, bits + array.size, copy.as<std::uint32_t>(),
                   [](std::uint32_t of) { return long_nan(of) ? (of & 0xffff0000) | 0x400000 : of; });
    return copy;
}

}   // namespace

Array in_arithmetic(const Array& array, Dtype dtype) {
    if (!array) return array;
    const Array dense = contiguous_copy(array);
    if (!is_half(dense.dtype)) return dtype == Dtype::bf16 ? with_short_nans(dense) : dense;
    const Array wide = fresh(Dtype::f32, dense.ndim, dense.shape);
    visit(dense.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        kernels<S>().widen(dense.as<const S>(), wide.as<Arith<S>>(), dense.size);
    });
    return wide;
}

Array input_weight(const char* name, py::handle object, const Array& x, int ndim, const index* shape, const char* what) {
    const Array array = optional_input(name, object);
    if (!array) return array;
    if (array.dtype != x.dtype && !(is_half(x.dtype) && array.dtype == Dtype::f32))
        throw py::type_error(std::string(name) + " has dtype " + name_of(array.dtype) + "; expected " + name_of(x.dtype) +
                             (is_half(x.dtype) ? " or float32" : "") + ", as x is " + name_of(x.dtype));
    require_shape(name, array, ndim, shape, what);
    return array;
}

py::object given_or(py::handle given, const Array& made) {
    return given.is_none() ? made.object : py::reinterpret_borrow<py::object>(given);
}

void require_writeable(const char* name, const Array& array) {
    if (!array.writeable()) throw py::value_error(std::string(name) + " is read-only; expected a writeable array");
    for (int i = 0; array.size != 0 && i < array.ndim; ++i)   // (the strides of nothing are 0)
        if (array.shape[i] > 1 && array.strides[i] == 0)
            throw py::value_error(
                std::string(name) +
                " has a stride of 0: several of its elements are one; expected an array of its own memory");
}

bool same_memory(const Array& a, const Array& b) {
    if (a.data != b.data || a.ndim != b.ndim || a.dtype != b.dtype) return false;
    for (int i = 0; i < a.ndim; ++i)
        if (a.shape[i] != b.shape[i] || (a.shape[i] > 1 && a.strides[i] != b.strides[i])) return false;
    return true;
}

void require_apart(const char* name, const Array& array, const char* other_name, const Array& other) {
    if (!array || !other || array.size == 0 || other.size == 0) return;
    const Bounds a = bounds(array), b = bounds(other);
    if (a.high <= b.low || b.high <= a.low) return;
    if (!numpy().attr("shares_memory")(array.object, other.object).cast<bool>()) return;
    throw py::value_error(std::string(name) + " overlaps " + other_name + "; expected memory of its own" +
                          (std::strcmp(name, "out") == 0 && std::strcmp(other_name, "x") == 0 ? ", or x itself" : ""));
}

Array output(const char* name, py::handle object, const Array& x, const Array* other) {
    if (object.is_none()) return fresh(x);
    Array out = input(name, object);
    require_dtype(name, out, x.dtype);
    require_shape(name, out, x.ndim, x.shape, "the shape of x");
    require_writeable(name, out);
    if (!same_memory(out, x)) require_apart(name, out, "x", x);
    if (other && !same_memory(out, *other)) require_apart(name, out, "residual", *other);
    return out;
}

py::handle required(const char* name, py::handle object) {
    if (object.is_none()) throw py::type_error(std::string(name) + " is NoneType; expected a NumPy array of " + DTYPES);
    return object;
}

double real(const char* name, py::handle object) {
    const double value = PyFloat_AsDouble(object.ptr());
    if (value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        throw py::type_error(std::string(name) + " is " + type_name(object) + "; expected a real number");
    }
    return value == value ? value : std::numeric_limits<double>::quiet_NaN();   // (as in_arithmetic() has them)
}

index integer(const char* name, py::handle object, const char* expected) {
    const bool is_index = PyIndex_Check(object.ptr()) && !PyBool_Check(object.ptr());
    const index value = is_index ? PyNumber_AsSsize_t(object.ptr(), nullptr) : -1;
    if (is_index && (value != -1 || !PyErr_Occurred())) return value;
    PyErr_Clear();   // (arrays that are no integers have an __index__, too)
    throw py::type_error(std::string(name) + " is " + type_name(object) + "; expected " + expected);
}

bool truth(const char* name, py::handle object) {
    const int value = PyObject_IsTrue(object.ptr());
    if (value < 0) {
        PyErr_Clear();
        throw py::type_error(std::string(name) + " is " + type_name(object) + "; expected a bool");
    }
    return value != 0;
}

int parse_axis(py::handle axis, int ndim, const char* expected) {
    const index value = integer("axis", axis, expected);
    if (value < -ndim || value >= ndim)
        throw py::value_error("axis " + std::to_string(value) + " is out of range for x of " + std::to_string(ndim) +
                              " dimension" + (ndim == 1 ? "" : "s"));
    return static_cast<int>(value < 0 ? value + ndim : value);
}

int parse_axes(py::handle axis, int ndim, bool* mask) {
    std::memset(mask, 0, static_cast<std::size_t>(ndim));
    if (!PyTuple_Check(axis.ptr())) {
        mask[parse_axis(axis, ndim, "an int or a tuple of ints")] = true;
        return 1;
    }
    const auto axes = py::reinterpret_borrow<py::tuple>(axis);
    if (axes.empty()) throw py::value_error("axis is an empty tuple; expected at least one axis");
    for (const py::handle one : axes) {
        const int at = parse_axis(one, ndim, "a tuple of ints");
        if (mask[at])
            throw py::value_error("axis " + std::to_string(at) + " is named twice in axis=" + std::string(py::str(axis)));
        mask[at] = true;
    }
    return static_cast<int>(axes.size());
}

}   // namespace onepass
