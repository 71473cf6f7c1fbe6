// The extension module: nothing but its registrations. It keeps no state that would need the GIL.
#include "bindings/register.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
    m.doc() = "The compiled part of onepass; its public face is the package.";
    onepass::register_layer_norm(m);
    onepass::register_rms_norm(m);
    onepass::register_batch_norm(m);
    onepass::register_group_norm(m);
    onepass::register_moments(m);
    onepass::register_standardize(m);
    onepass::register_min_max_scale(m);
    onepass::register_control(m);
}
