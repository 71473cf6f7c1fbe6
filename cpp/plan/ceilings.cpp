#include "plan/ceilings.hpp"

#include <vector>

#include "dispatch/dispatch.hpp"
#include "plan/threads.hpp"

namespace onepass {

template <class S>
void copy_ceiling(const S* x, S* y, index n, bool stream) {
    run_team(threads_for(2 * n * index(sizeof(S))), [&](const Team& team) {
        const index from = team.from(n), count = team.to(n) - from;
        kernels<S>().copy(x + from, y + from, count, stream);
    });
}

template <class S>
double read_ceiling(const S* x, index n) {
    const int threads = threads_for(n * index(sizeof(S)));
    std::vector<double> sums(static_cast<std::size_t>(threads) * 8);
    run_team(threads, [&](const Team& team) {
        const index from = team.from(n), count = team.to(n) - from;
        sums[static_cast<std::size_t>(team.id) * 8] = kernels<S>().read(x + from, count);
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

template void copy_ceiling(const float*, float*, index, bool);
template void copy_ceiling(const double*, double*, index, bool);
template double read_ceiling(const float*, index);
template double read_ceiling(const double*, index);

}   // namespace onepass
