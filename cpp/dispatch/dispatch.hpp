// Which instruction set: one table of kernels, chosen when the library is loaded, changed by use_isa.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace onepass {

struct Isa {
    const char* name;
    Table table;
};

extern std::atomic<const Isa*> active_isa;

std::vector<const Isa*> available_isas();   // that this machine can run, the widest last

// Throws std::invalid_argument, naming what is available.
void use_isa(const std::string& name);

template <class S>
const Kernels<S>& kernels();
template <>
inline const Kernels<float>& kernels<float>() {
    return active_isa.load(std::memory_order_relaxed)->table.f32;
}
template <>
inline const Kernels<double>& kernels<double>() {
    return active_isa.load(std::memory_order_relaxed)->table.f64;
}
template <>
inline const Kernels<Float16>& kernels<Float16>() {
    return active_isa.load(std::memory_order_relaxed)->table.f16;
}
template <>
inline const Kernels<BFloat16>& kernels<BFloat16>() {
    return active_isa.load(std::memory_order_relaxed)->table.bf16;
}

}   // namespace onepass
