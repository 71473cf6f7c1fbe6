#include "plan/cells.hpp"

#include <algorithm>
#include <vector>

#include "plan/cell_solver.hpp"
#include "plan/machine.hpp"
#include "plan/rows_backward.hpp"

namespace onepass {
namespace {

// What is written needs x (and dy) a second time. So an array from memory is solved in parts that no group reaches across,
// small enough to be in a cache still when they are read again: some samples, or, of groups that reach across samples, some
// channels. These lie in pieces, so that is only worth it where pieces are long: the longer, the more of x the cache holds,
// and with one thread, which has the memory for itself.
constexpr index PART = 1 << 20;          // bytes of x and dy, for each thread
constexpr index LONG_PIECE = 24 << 10;   // bytes

// How many samples or channels a part has.
template <class S>
index part_size(const Cells<S>& p, int threads, bool stream) {
    const index all = p.across ? p.channels : p.samples, size = p.samples * p.channels * p.span * index(sizeof(S));
    if (!stream || size == 0) return all;
    const index cache = index(last_level_cache()), each = size / all * (p.dy ? 2 : 1);
    index n = std::max<index>(PART * threads / each, 1);
    if (p.across) {
        const index span = p.span * index(sizeof(S));
        n = std::max(n, ceil_div(LONG_PIECE, span));
        const index worth = threads == 1 ? LONG_PIECE : size < cache ? LONG_PIECE / 2 : 0;
        if (p.channels_last || size < cache / 2 || n * each > cache / 4 || span < worth) return all;
    }
    return n < all ? ceil_div(all, ceil_div(all, n)) : all;
}

// n samples or channels from `first` on.
template <class S>
Cells<S> part_of(const Cells<S>& p, index first, index n) {
    Cells<S> part = p;
    const auto step = [&](const Lie& lies) { return first * (p.across ? lies.row : lies.sample); };
    go_on(step(part.x_lies), part.x);
    go_on(step(part.dy_lies), part.dy);
    go_on(step(part.y_lies), part.y);
    go_on(first * (p.across ? 1 : p.channels / p.members), part.given_mean, part.given_var, part.mean, part.rstd,
          part.count, part.moments.mean, part.moments.low, part.moments.m2);
    if (p.across) {
        part.channels = n;
        go_on(first, part.weight, part.bias, part.dweight, part.dbias);
    } else {
        part.samples = n;
        go_on(first * p.span, part.weighing.mask);
    }
    return part;
}

template <class S>
void solve_part(const Cells<S>& p, int threads, bool stream) {
    CellSolver<S> solver(p, kernels<S>(), stream);
    Cutter counter(nullptr);
    solver.cut(counter);
    const Scratch scratch(counter.used());
    Cutter cutter(scratch.data());
    solver.cut(cutter);
    run_team(threads, [&](const Team& team) { solver.run(team); });
}

// With what is dense said in numbers.
template <class S>
Cells<S> laid_out(const Cells<S>& given) {
    Cells<S> p = given;
    p.y_lies = {p.channels * p.span, p.channels_last ? p.channels : p.span};
    for (Lie* lies : {&p.x_lies, &p.dy_lies})
        if (lies->row == Lie::DENSE) *lies = p.y_lies;
    return p;
}

// Of a gradient whose groups are nothing but neighbouring channels of one sample: each is a row.
template <class S>
RowGradients<S> rows_of(const Cells<S>& p) {
    RowGradients<S> rows;
    rows.view.kind = Kind::rows;
    rows.view.size[1] = p.samples;
    rows.view.size[2] = p.members;
    const Lie lies[] = {p.x_lies, p.y_lies, p.dy_lies};
    for (int k = 0; k < 3; ++k) {
        rows.view.stride[k][1] = lies[k].sample;
        rows.view.stride[k][2] = 1;
    }
    rows.groups = p.channels / p.members;
    rows.x = p.x;
    rows.dy = p.dy;
    rows.dx = p.y;
    rows.weight = p.weight;
    rows.how = p.how;
    rows.dweight = p.dweight;
    rows.dbias = p.dbias;
    return rows;
}

}   // namespace

template <class S>
void solve(const Cells<S>& given) {
    const Cells<S> p = laid_out(given);
    if (p.dy && p.span == 1 && p.members > 1 && !p.weighing) return solve(rows_of(p));
    const int threads = threads_for(p.bytes(), true);
    const bool stream = p.y && streams(p.x, p.y, p.bytes(), threads);
    const index all = p.across ? p.channels : p.samples, n = part_size(p, threads, stream);
    std::vector<double> sums(n < all && !p.across && p.dweight ? std::size_t(2 * p.channels) : 0);
    for (index first = 0; first < all; first += n) {
        Cells<S> part = part_of(p, first, std::min(n, all - first));
        if (!sums.empty()) part.sums = sums.data();
        solve_part(part, threads, stream);
    }
}

template void solve(const Cells<float>&);
template void solve(const Cells<double>&);
template void solve(const Cells<Float16>&);
template void solve(const Cells<BFloat16>&);

}   // namespace onepass
