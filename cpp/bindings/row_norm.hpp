// What the norms over chosen axes share: layer norm, RMS norm, both of a sum, and the gradients of both.
#pragma once

#include "bindings/array.hpp"

namespace onepass {

struct RowNorm {
    py::handle x, residual, weight, bias, axis, eps, out, sum_out, return_stats;   // None where not given
    bool centered;
};

// The axes to normalize over, and the shape of weight and bias: that of x along them.
struct Normalized {
    Normalized(const Array& x, py::handle axis);
    Array input_weight(const char* name, py::handle object, const Array& x) const;
    bool reduced[MAX_NDIM];
    int ndim;
    index shape[MAX_NDIM];
};

// None, where the norm is about 0: the eps of the arithmetic.
double eps_of(py::handle eps, bool centered, Dtype dtype);

// y; or (y, mean, rstd), (y, rstd) about 0; or with a residual (y, x + residual).
py::object row_norm(const RowNorm& call);

struct RowNormBackward {
    py::handle dy, x, weight, axis, eps;
    bool centered;
};

// (dx, dweight, dbias); (dx, dweight) about 0.
py::object row_norm_backward(const RowNormBackward& call);

}   // namespace onepass
