#include "dispatch/dispatch.hpp"

#include <array>
#include <stdexcept>

namespace onepass {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
// What kernels of x86-64-v3 and -v4 use; __builtin_cpu_supports also asks whether the system saves the registers.
bool has_v3() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}
bool has_v4() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
}
#endif

struct Candidate {
    const char* name;
    bool (*runs_here)();
    std::array<void (*)(Table&), 12> parts;   // each adds the kernels of one file
};

#define ONEPASS_PARTS(isa)                                                                \
    {                                                                                     \
        isa::add_rows,          isa::add_rows_add,        isa::add_rows_apply,            \
        isa::add_rows_backward, isa::add_columns,         isa::add_columns_apply,         \
        isa::add_groups,        isa::add_groups_backward, isa::add_groups_backward_apply, \
        isa::add_weighted,      isa::add_extremes,        isa::add_ceilings}

constexpr Candidate CANDIDATES[] = {
    {"baseline", always, ONEPASS_PARTS(baseline)},
#if defined(__x86_64__)
    {"x86-64-v3", has_v3, ONEPASS_PARTS(v3)},
    {"x86-64-v4", has_v4, ONEPASS_PARTS(v4)},
#endif
};

#undef ONEPASS_PARTS

const std::vector<Isa>& runnable() {
    static const std::vector<Isa> isas = [] {
        std::vector<Isa> found;
        for (const Candidate& candidate : CANDIDATES) {
            if (!candidate.runs_here()) continue;
            Isa isa = {candidate.name, {}};
            for (const auto add : candidate.parts) add(isa.table);
            found.push_back(isa);
        }
        return found;
    }();
    return isas;
}

}   // namespace

std::atomic<const Isa*> active_isa{&runnable().back()};

std::vector<const Isa*> available_isas() {
    std::vector<const Isa*> found;
    for (const Isa& isa : runnable()) found.push_back(&isa);
    return found;
}

void use_isa(const std::string& name) {
    std::string known;
    for (const Isa& isa : runnable()) {
        if (name == isa.name) {
            active_isa.store(&isa, std::memory_order_relaxed);
            return;
        }
        known += (known.empty() ? "" : ", ") + std::string(isa.name);
    }
    throw std::invalid_argument("instruction set '" + name + "' is not one that this machine runs: " + known);
}

}   // namespace onepass
