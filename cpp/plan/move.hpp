// Elements from one array to another of the same shape, each with strides of its own: how an array that no kernel can read
// as it lies is brought before one, and a result to where it is wanted.
#pragma once

#include "plan/view.hpp"

namespace onepass {

struct Move {
    const char* from;
    char* to;   // apart from all of `from`
    int ndim;
    const index *shape, *from_strides, *to_strides;   // strides in bytes
    index itemsize;                                   // 2, 4 or 8
};

void move(const Move& given);

}   // namespace onepass
