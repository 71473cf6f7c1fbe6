// Threads: how many, and a team that works in step.
//
// Invariant: nothing here has a say in the bits of a result. Work is cut by shape; a team only shares out the pieces.
#pragma once

#include <cstddef>

#include "plan/environment.hpp"
#include "plan/shuffle.hpp"

namespace onepass {

using index = std::ptrdiff_t;

int get_num_threads();
void set_num_threads(int n);   // n >= 1
bool has_openmp();

// How many threads pay for a job that moves so many bytes. In step: they wait for each other more than once, and read what
// others have just written.
int threads_for(index bytes, bool in_step = false);

struct Team {
    int id = 0, size = 1;

    // Every member must come here before any goes on.
    void barrier() const;

    // f(task) for this member's share of the tasks, a contiguous one, so that the member that touched some memory in one
    // phase meets it again in the next.
    template <class F>
    void each(index tasks, const F& f) const {
#if defined(ONEPASS_SHUFFLE)
        shuffle::each(from(tasks), to(tasks), f);
#else
        for (index task = from(tasks), end = to(tasks); task < end; ++task) f(task);
#endif
    }
    template <class F>
    void each_backwards(index tasks, const F& f) const {
        const index last = from(tasks) + to(tasks) - 1;
        each(tasks, [&](index task) { f(last - task); });
    }
    // The bounds of this member's share, where a kernel takes many tasks at once.
    index from(index tasks) const { return tasks * id / size; }
    index to(index tasks) const { return tasks * (id + 1) / size; }
};

void run_team(int threads, void (*body)(void*, const Team&), void* context);

// body(team) on each of `threads` threads at once.
template <class Body>
void run_team(int threads, const Body& body) {
    if (threads <= 1) {
        const Environment environment;
        return body(Team{});
    }
    run_team(
        threads, [](void* context, const Team& team) { (*static_cast<const Body*>(context))(team); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

}   // namespace onepass
