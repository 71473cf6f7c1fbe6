#include "plan/ceilings.hpp"

#include <vector>

#include "dispatch/dispatch.hpp"
#include "plan/threads.hpp"

namespace onepass {

void copy_ceiling(const float* x, float* y, index n, bool stream) {
    const Table& table = active_isa.load()->table;
    run_team(threads_for(2 * n * index(sizeof(float))), [&](const Team& team) {
        const index from = team.from(n);
        table.copy(x + from, y + from, team.to(n) - from, stream);
    });
}

double read_ceiling(const float* x, index n) {
    constexpr std::size_t APART = 8;   // doubles, a cache line
    const Table& table = active_isa.load()->table;
    const int threads = threads_for(n * index(sizeof(float)));
    std::vector<double> sums(static_cast<std::size_t>(threads) * APART);
    run_team(threads, [&](const Team& team) {
        const index from = team.from(n);
        sums[static_cast<std::size_t>(team.id) * APART] = table.read(x + from, team.to(n) - from);
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

}   // namespace onepass
