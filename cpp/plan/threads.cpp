#include "plan/threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "plan/environment.hpp"
#include "plan/machine.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace onepass {
namespace {

// Below this a second thread costs more than it brings, or four times this where members work in step: as measured where
// the processors share no third cache, and everything that one hands another takes its time.
#if defined(ONEPASS_SHUFFLE)
constexpr index BYTES_PER_THREAD = 1 << 10;
#else
constexpr index BYTES_PER_THREAD = 128 << 10;
#endif

std::atomic<int> limit{0};
std::atomic<bool> forked{false};

int default_threads() {
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
        const long n = std::strtol(text, nullptr, 10);   // of a list for nested regions, the first
        if (n > 0) return static_cast<int>(std::min(n, 4096L));
    }
    return usable_cpus();
}

// libgomp's workers do not live on in a forked child, and a parallel region there waits for them for ever.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });

}   // namespace

bool has_openmp() {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
}

int get_num_threads() {
    if (forked.load(std::memory_order_relaxed) || !has_openmp()) return 1;
    int n = limit.load(std::memory_order_relaxed);
    if (n == 0) limit.store(n = default_threads());
    return n;
}

void set_num_threads(int n) { limit.store(n); }

int threads_for(index bytes, bool in_step) {
    const index worth = bytes / (in_step ? 4 * BYTES_PER_THREAD : BYTES_PER_THREAD);
    return worth <= 1 ? 1 : static_cast<int>(std::min<index>(worth, get_num_threads()));
}

void Team::barrier() const {
#if defined(_OPENMP)
    if (size > 1) {
#pragma omp barrier
    }
#endif
}

void run_team(int threads, void (*body)(void*, const Team&), void* context) {
#if defined(_OPENMP)
#if defined(ONEPASS_SHUFFLE)
    const shuffle::Order places(threads);
#endif
#pragma omp parallel num_threads(threads)
    {
        const Environment environment;
        Team team;
        team.id = omp_get_thread_num();
        team.size = omp_get_num_threads();
#if defined(ONEPASS_SHUFFLE)
        if (team.size == threads) team.id = static_cast<int>(places(team.id));
        shuffle::dawdle();
#endif
        body(context, team);
    }
#else
    (void)threads;
    const Environment environment;
    body(context, Team{});
#endif
}

}   // namespace onepass
