// Calls of the cells' solver from arrays: masked norms, weighted moments, and the gradients of norms over many rows.
#pragma once

#include "bindings/array.hpp"
#include "bindings/moments.hpp"
#include "plan/cells.hpp"

namespace onepass {

// A mask, dense; null where none was given.
struct Mask {
    py::object object;
    const std::uint8_t* data = nullptr;
    index valid = 0;   // how many elements are true
};

// TypeError unless the mask is boolean, ValueError unless it has this shape.
Mask input_mask(py::handle object, int ndim, const index* shape, const char* what);

// x's shape without its channel axis. The result is how many axes those are.
int without_axis(const Array& x, int axis, index* shape);

// Everything of one call. Arrays are empty where nothing was given or is wanted; what is written is dense.
struct CellCall {
    Array x, dy, y;
    Lie x_lies, dy_lies;
    index samples, channels, span;
    bool channels_last, across;
    index members = 1;
    Weighing weighing;
    Array weight, bias, given_mean, given_var;   // dense, in the dtype of the arithmetic
    Finish how = {0, 0};
    Array mean, rstd;
    MomentsOut moments;
    double* count = nullptr;
    Array dweight, dbias;
};

// x, dy and y as samples x channels x span, `axis` the channels'. Copies of x and dy where they lie in a way that cells
// have no words for; y must be dense.
CellCall cells_of(const Array& x, const Array& dy, const Array& y, int axis, bool across, index members, const Mask& mask);

// Solves it, without the GIL.
void run(const CellCall& call);

// dx, dweight and dbias of a call, which is given x, dy, axis, members and all that is known.
py::tuple run_backward(CellCall& call);

}   // namespace onepass
