#pragma once

#include <pybind11/pybind11.h>

namespace onepass {

void register_layer_norm(pybind11::module_& m);
void register_rms_norm(pybind11::module_& m);
void register_batch_norm(pybind11::module_& m);
void register_group_norm(pybind11::module_& m);
void register_moments(pybind11::module_& m);
void register_standardize(pybind11::module_& m);
void register_min_max_scale(pybind11::module_& m);
void register_control(pybind11::module_& m);

}   // namespace onepass
