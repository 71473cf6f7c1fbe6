#include "plan/cells.hpp"

#include "plan/cell_solver.hpp"

namespace onepass {

template <class S>
void solve(const Cells<S>& p) {
    const index bytes = p.samples * p.channels * p.span * index(sizeof(S)) * (p.dy ? 3 : p.y ? 2 : 1);
    const int threads = threads_for(bytes);
    CellSolver<S> solver(p, kernels<S>(), p.y && streams(p.x, p.y, bytes, threads));
    Cutter counter(nullptr);
    solver.cut(counter);
    const Scratch scratch(counter.used());
    Cutter cutter(scratch.data());
    solver.cut(cutter);
    run_team(threads, [&](const Team& team) { solver.run(team); });
}

template void solve(const Cells<float>&);
template void solve(const Cells<double>&);
template void solve(const Cells<Float16>&);
template void solve(const Cells<BFloat16>&);

}   // namespace onepass
