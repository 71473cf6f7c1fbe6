// NumPy arrays become plain views here, checked once, with errors that name the argument, what it was and what it should
// be.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "kernels/kernels.hpp"
#include "plan/view.hpp"

namespace onepass {

namespace py = pybind11;

enum class Dtype { f32, f64, f16, bf16 };

inline index size_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : dtype == Dtype::f64 ? 8 : 2; }
inline bool is_half(Dtype dtype) { return dtype == Dtype::f16 || dtype == Dtype::bf16; }
// The dtype of the arithmetic, and of statistics.
inline Dtype arith_of(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }
const char* name_of(Dtype dtype);

// Calls f with a null pointer to the type in memory; f is a generic lambda, instantiated once for each dtype.
template <class F>
auto visit(Dtype dtype, const F& f) {
    switch (dtype) {
        case Dtype::f16:
            return f(static_cast<Float16*>(nullptr));
        case Dtype::bf16:
            return f(static_cast<BFloat16*>(nullptr));
        case Dtype::f64:
            return f(static_cast<double*>(nullptr));
        default:
            return f(static_cast<float*>(nullptr));
    }
}

// For what need not be quick.
inline py::module_ numpy() { return py::module_::import("numpy"); }

// A NumPy array of a dtype that we compute with. `object` keeps it alive; the pointers are into it.
struct Array {
    py::object object;
    char* data = nullptr;
    const index *shape = nullptr, *strides = nullptr;   // strides in bytes
    int ndim = 0;
    Dtype dtype = Dtype::f32;
    index size = 0;

    explicit operator bool() const { return data != nullptr; }
    bool writeable() const;
    bool contiguous() const;   // C order
    bool aligned() const;      // pointer and strides are multiples of the itemsize
    template <class S>
    S* as() const {
        return reinterpret_cast<S*>(data);
    }
};

// An array argument: TypeError for anything that is not an array of a dtype of ours, or cannot be viewed as one.
Array input(const char* name, py::handle object);

// The same where None is allowed and gives an empty Array.
Array optional_input(const char* name, py::handle object);

// A boolean array argument, of any shape.
py::object input_bool(const char* name, py::handle object);

// A new C-contiguous array; of a dtype that is NumPy's own where there is no array like it.
Array fresh(const Array& like);
Array fresh(const Array& like, int ndim, const index* shape);
Array fresh(Dtype dtype, int ndim, const index* shape);

// A C-contiguous, aligned copy; contiguous_copy only where it is needed.
Array copied(const Array& array);
Array contiguous_copy(const Array& array);

// The same memory with its axes in another order.
Array transposed(const Array& array, const py::object& order);

// Writes an array of the same shape over another.
void assign(const Array& to, const Array& from);

// ValueError unless the array has this shape; `what` says whose shape that is.
void require_shape(const char* name, const Array& array, int ndim, const index* shape, const char* what);
void require_dtype(const char* name, const Array& array, Dtype dtype);
constexpr const char* A_CHANNEL = "one element a channel";   // what weights and moments of channels are

// A weight or a bias, or None: x's dtype, or float32 where x has 16 bits; `what` says whose shape it must have.
Array input_weight(const char* name, py::handle object, const Array& x, int ndim, const index* shape, const char* what);
// The same contiguous, and in the dtype of the arithmetic with an x of that dtype: beside bfloat16 without NaN that
// rounding to it would make numbers of.
Array in_arithmetic(const Array& array, Dtype dtype);
void require_writeable(const char* name, const Array& array);

// A gradient's dy: x's dtype and shape.
Array input_dy(py::handle object, const Array& x);

// What a function returns for an output: the object that was given, or the array that was made.
py::object given_or(py::handle given, const Array& made);

// The array to write to: `object` if it is not None, checked, else a new one. It may be x itself, or the other input.
Array output(const char* name, py::handle object, const Array& x, const Array* other = nullptr);
// ValueError where out shares memory with the array.
void require_apart(const char* name, const Array& array, const char* other_name, const Array& other);
bool same_memory(const Array& a, const Array& b);

// TypeError for None.
py::handle required(const char* name, py::handle object);

double real(const char* name, py::handle object);
index integer(const char* name, py::handle object, const char* expected);
bool truth(const char* name, py::handle object);

// An axis, or a tuple of axes, as a mask over x's dimensions. The result is how many axes there are.
int parse_axes(py::handle axis, int ndim, bool* mask);
int parse_axis(py::handle axis, int ndim, const char* expected = "an int");

std::string shape_text(int ndim, const index* shape);

}   // namespace onepass
