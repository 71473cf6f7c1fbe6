// A copy and a read with the threads that a norm of the same bytes would use.
#pragma once

#include "plan/view.hpp"

namespace onepass {

template <class S>
void copy_ceiling(const S* x, S* y, index n, bool stream);

template <class S>
double read_ceiling(const S* x, index n);

}   // namespace onepass
