#include "plan/cells.hpp"

#include <algorithm>
#include <vector>

#include "plan/brought_cells.hpp"
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
    return even_part(all, n);
}

// And so is one that is brought side by side, for which no more memory is needed then than a thread keeps: how many of its
// samples or channels. (Channels may lie beside each other: those of a cache line at least.)
template <class S>
index brought_size(const Cells<S>& p, bool of_channels, int arrays) {
    constexpr index BROUGHT = 7 << 20, SUMS = 128;   // bytes, those of a cell's sums with them
    const index cell = p.span * index(sizeof(S)) * arrays + SUMS;
    const index all = of_channels ? p.channels : p.samples, each = cell * (of_channels ? p.samples : p.channels);
    return even_part(all, BROUGHT / each, of_channels ? lines_of<S>(p.members) : 1);
}

// n samples, or n channels of groups that reach across samples, or of one sample, from `first` on.
template <class S>
Cells<S> part_of(const Cells<S>& p, bool of_channels, index first, index n) {
    Cells<S> part = p;
    const auto step = [&](const Lie& lies) { return first * (of_channels ? lies.row : lies.sample); };
    go_on(step(part.x_lies), part.x);
    go_on(step(part.dy_lies), part.dy);
    go_on(step(part.y_lies), part.y);
    go_on(of_channels ? first / p.members : first * (p.channels / p.members), part.given_mean, part.given_var, part.mean,
          part.rstd, part.count, part.moments.mean, part.moments.low, part.moments.m2);
    if (of_channels) {
        part.channels = n;
        go_on(first, part.weight, part.bias, part.dweight, part.dbias, part.sums, part.bias_sums);
    } else {
        part.samples = n;
        go_on(first * p.span, part.weighing.mask);
    }
    return part;
}

template <class S>
void solve_part(const Cells<S>& given, int threads, bool stream) {
    const BroughtCells<S> brought(given);
    Cells<S> p = given;
    CellSolver<S> solver(p, kernels<S>(), stream);
    const auto cut = [&](char* base) {
        Cutter cutter(base);
        brought.cut(cutter, p);
        solver.cut(cutter);
        return cutter.used();
    };
    const Scratch scratch(cut(nullptr));
    cut(scratch.data());
    run_team(threads, [&](const Team& team) {
        brought.bring(team, p);
        solver.run(team);
    });
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
        rows.view.stride[k][2] = p.channels_last ? lies[k].element : lies[k].row;
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
    const int arrays = BroughtCells<S>(p).arrays();
    const index all = p.across ? p.channels : p.samples,
                n = arrays ? brought_size(p, p.across, arrays) : part_size(p, threads, stream);
    std::vector<double> sums(n < all && !p.across && p.dweight ? std::size_t(2 * p.channels) : 0);
    for (index first = 0; first < all; first += n) {
        Cells<S> part = part_of(p, p.across, first, std::min(n, all - first));
        if (!sums.empty()) {
            part.sums = sums.data();
            part.bias_sums = part.sums + p.channels;
        }
        // (A sample that is brought may be too large itself.)
        const bool whole = !arrays || p.across || p.channels_last || part.samples > 1;
        const index channels = whole ? part.channels : brought_size(part, true, arrays);
        if (channels == part.channels) {
            solve_part(part, threads, stream);
            continue;
        }
        for (index channel = 0; channel < part.channels; channel += channels)
            solve_part(part_of(part, true, channel, std::min(channels, part.channels - channel)), threads, stream);
    }
}

template void solve(const Cells<float>&);
template void solve(const Cells<double>&);
template void solve(const Cells<Float16>&);
template void solve(const Cells<BFloat16>&);

}   // namespace onepass
