// What the norms over chosen axes share: layer norm, RMS norm, and both of a sum.
#pragma once

#include "bindings/array.hpp"

namespace onepass {

struct RowNorm {
    py::handle x, residual, weight, bias, axis, eps, out, sum_out, return_stats;   // None where not given
    bool centered;
};

// y; or (y, mean, rstd), (y, rstd) about 0; or with a residual (y, x + residual).
py::object row_norm(const RowNorm& call);

}   // namespace onepass
