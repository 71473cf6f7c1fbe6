// Moments of any view, for the functions that return them.
#pragma once

#include "bindings/layout.hpp"

namespace onepass {

// Arrays of float64 with the reduced axes gone: mean (+ low) and m2 of `count` elements each.
struct MomentsArrays {
    double count;
    Array mean, low, m2;

    MomentsOut out() const { return {mean.as<double>(), low.as<double>(), m2.as<double>()}; }
    py::tuple tuple() const { return py::make_tuple(count, mean.object, low.object, m2.object); }
};

MomentsArrays moments_of(const Array& x, const bool* reduced);

// Fresh arrays for them, not filled in but where there is nothing to reduce.
MomentsArrays fresh_moments(const Array& x, const bool* reduced);

}   // namespace onepass
