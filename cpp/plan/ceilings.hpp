// A copy and a read with the threads that a norm of the same bytes would use.
#pragma once

#include "plan/view.hpp"

namespace onepass {

void copy_ceiling(const float* x, float* y, index n, bool stream);
double read_ceiling(const float* x, index n);

}   // namespace onepass
