#include "plan/groups.hpp"

#include <memory>
#include <vector>

#include "plan/group_solver.hpp"
#include "plan/whole.hpp"

namespace onepass {

template <class S>
Groups<S> groups_of(const View& view, const S* x, S* y) {
    Groups<S> p;
    p.x = x;
    p.y = y;
    p.x_element = view.stride[0][2];
    p.y_element = y ? view.stride[1][2] : 1;
    if (view.kind == Kind::columns) {
        p.problems = view.size[0];
        p.x_problem = view.stride[0][0];
        p.y_problem = view.stride[1][0];
        p.rows = view.size[1];
        p.groups = view.size[2];
        p.x_row = view.stride[0][1];
        p.y_row = view.stride[1][1];
        p.x_group = p.y_group = 1;
        return p;
    }
    p.rows = view.size[0];
    p.groups = view.size[1];
    p.span = view.size[2];
    p.x_row = view.stride[0][0];
    p.y_row = view.stride[1][0];
    p.x_group = view.stride[0][1];
    p.y_group = view.stride[1][1];
    p.by_rows = view.kind == Kind::rows || p.span >= LONG_SPAN;
    return p;
}

template <class S>
void solve(const Groups<S>& given) {
    Whole<S> all(given);
    Groups<S> p = all.brought();
    // (What lies as the result does is written from where it is.)
    const Groups<S> turned = as_written(given), &written = given.y_element == 1 ? p : turned;
    const Kernels<S>& k = kernels<S>();
    const index each = p.rows * p.groups * p.span * index(sizeof(S)) * (p.y ? 2 : 1), bytes = each * p.problems;
    const int threads = threads_for(bytes, !p.given_mean && p.problems == 1);
    const bool stream = p.y && written.y_element == 1 && streams(given.x, p.y, bytes, threads);
    // Many problems: each thread solves whole ones. Few: all threads solve each together.
    const bool whole = p.problems >= threads;
    const int teams = whole ? threads : 1;
    std::vector<std::unique_ptr<Solver<S>>> solvers;
    for (int i = 0; i < teams; ++i)
        solvers.push_back(std::make_unique<Solver<S>>(p, written, k, stream, whole ? 1 : threads));
    Cutter counter(nullptr);
    all.cut(counter);
    for (auto& solver : solvers) solver->cut(counter);
    const Scratch scratch(counter.used());
    Cutter cutter(scratch.data());
    p.x = all.cut(cutter);
    for (auto& solver : solvers) solver->cut(cutter);
    run_team(threads, [&](const Team& team) {
        all.bring(team);
        if (whole)
            team.each(p.problems, [&](index number) { solvers[static_cast<std::size_t>(team.id)]->run(Team{}, number); });
        else
            for (index number = 0; number < p.problems; ++number) solvers[0]->run(team, number);
    });
}

#define ONEPASS_INSTANTIATE(S)                               \
    template Groups<S> groups_of(const View&, const S*, S*); \
    template void solve(const Groups<S>&);
ONEPASS_INSTANTIATE(float)
ONEPASS_INSTANTIATE(double)
ONEPASS_INSTANTIATE(Float16)
ONEPASS_INSTANTIATE(BFloat16)
#undef ONEPASS_INSTANTIATE

}   // namespace onepass
