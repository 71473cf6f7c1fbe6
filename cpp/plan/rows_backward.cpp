// Blocks of rows over threads, each with partial sums for dweight and dbias; then columns over threads, to sum the blocks.
// Where rows are columns of the view (a channel axis that comes first), or the elements of one lie apart, each thread
// brings some at a time side by side: their bits are those of rows, and no array is moved as a whole.
#include "plan/rows_backward.hpp"

#include <algorithm>

#include "dispatch/dispatch.hpp"
#include "plan/beside.hpp"
#include "plan/panel.hpp"
#include "plan/rows.hpp"
#include "plan/threads.hpp"

namespace onepass {
namespace {

// Rows of a block: as many as give BLOCKS blocks, from FEWEST to MOST; of narrow rows, which kernels join, as many as they
// join or a multiple of it. Part of the bits of dweight and dbias.
constexpr index BLOCKS = 32, FEWEST = 8, MOST = 64, NARROW_ROW = 512;
index block_rows(index rows, index cols) {
    const index n = std::clamp(rows / BLOCKS, FEWEST, MOST);
    return cols <= NARROW_ROW ? ceil_div(n, JOINED_ROWS) * JOINED_ROWS : n;
}

constexpr index SHORT = 256;   // bytes of a row that is not streamed as soon as others
constexpr index TILE = 256;    // columns that a thread sums at a time: whole cache lines

// The sums of one block (those of a group's follow each other): dweight, and behind it dbias.
template <class T>
struct Sums {
    T* partial;
    index stride;   // from dweight to dbias, and from that to the next block
    bool centered;

    index both() const { return centered ? 2 : 1; }
    T* dweight(index block) const { return partial + block * both() * stride; }
    T* dbias(index block) const { return centered ? dweight(block) + stride : nullptr; }
};

// In which dimension rows follow each other, and their elements.
template <class S>
int along(const RowGradients<S>& p) {
    return p.view.kind == Kind::columns ? 2 : 1;
}
template <class S>
int across(const RowGradients<S>& p) {
    return 3 - along(p);
}
// Whether the elements of an operand's rows lie apart.
template <class S>
bool apart(const RowGradients<S>& p, int operand) {
    return p.view.stride[operand][across(p)] != 1;
}

// How they are read and written; panels: some of them by way of one.
struct Way {
    bool stream, far, panels;
};

template <class S>
void add_block(const RowGradients<S>& p, const Sums<Arith<S>>& sums, index block, index from, index to, const Way& way,
               const Panel<S>& panel) {
    const View& v = p.view;
    const index cols = v.size[across(p)];
    std::fill_n(sums.dweight(block), sums.both() * sums.stride, Arith<S>(0));
    for (index row = from; row < to;) {   // in runs of evenly spaced rows
        const index outer = row / v.size[along(p)], inner = row % v.size[along(p)];
        const index run = std::min({v.size[along(p)] - inner, to - row, way.panels ? panel.rows() : to});
        const auto begin = [&](int operand) { return v.offset(operand, outer) + inner * v.stride[operand][along(p)]; };
        const auto bring = [&](int operand, int array, const S* at) {
            const index(&stride)[3] = v.stride[operand];
            if (!apart(p, operand)) return Matrix<const S>{at + begin(operand), stride[along(p)]};
            panel.fill(array, 0, at + begin(operand), stride[along(p)], stride[across(p)], run, cols);
            return Matrix<const S>{panel.row(array, 0), panel.stride()};
        };
        const Matrix<const S> x = bring(0, 0, p.x), dy = bring(2, 1, p.dy);
        // dx over x: each element of a row is read before it is written, and a third array would not leave as much room.
        const Matrix<S> dx =
            apart(p, 1) ? Matrix<S>{panel.row(0, 0), panel.stride()} : Matrix<S>{p.dx + begin(1), v.stride[1][along(p)]};
        kernels<S>().rows_backward({x.at, dy.at, dx.at, run, cols, x.stride, dy.stride, dx.stride, p.weight, p.how,
                                    sums.dweight(block), sums.dbias(block), way.stream, way.far,
                                    rows_ahead(SENT_FAR, cols, sizeof(S)), p.centered});
        if (apart(p, 1)) panel.empty(0, 0, p.dx + begin(1), 1, v.stride[1][across(p)], run, cols);
        row += run;
    }
}

// Those of the first group become those of another one.
template <class S>
RowGradients<S> of_group(const RowGradients<S>& p, index group) {
    RowGradients<S> other = p;
    const index first = group * p.view.size[2];
    go_on(first * p.view.stride[0][2], other.x);
    go_on(first * p.view.stride[1][2], other.dx);
    go_on(first * p.view.stride[2][2], other.dy);
    go_on(first, other.weight, other.dweight, other.dbias);
    return other;
}

}   // namespace

template <class S>
void solve(const RowGradients<S>& given) {
    using T = Arith<S>;
    RowGradients<S> p = given;
    const index rows = p.view.size[0] * p.view.size[along(p)], cols = p.view.size[across(p)];
    const bool turned = apart(p, 1), panels = turned || apart(p, 0) || apart(p, 2);
    const index size = block_rows(rows, cols), blocks = ceil_div(rows, size);
    const index tasks = p.groups * blocks, weights = p.groups * cols;
    const index bytes = 3 * p.groups * p.view.elements() * index(sizeof(S));
    const int threads = static_cast<int>(std::min<index>(threads_for(bytes), tasks));
    // (Three arrays crowd a cache sooner than two: as little of it as can be, however many threads there are; but to stream
    // short rows, a few lines of each, takes longer still, and they get what several threads have.)
    const int crowd = cols * index(sizeof(S)) <= SHORT ? 2 : 1;
    const bool stream = !turned && streams(p.x, p.dx, bytes, crowd, true), far = stream && !panels && beyond_caches(bytes);

    // All of these are read beside dx, for each row again. Streamed stores pend for long, and so do all that come behind
    // them: what is written lies as dx does in its pages then, and leaves the rest of a page to what is read.
    const index page = index(PAGE / sizeof(T)), unit = stream && 2 * cols > page ? page : index(Scratch::LINE / sizeof(T));
    Sums<T> sums = {nullptr, ceil_div(cols, unit) * unit, p.centered};
    const Panel<S> panel(cols, size, false, 2, 2 * PANEL);
    const std::size_t room = panels ? panel.bytes() : 0, rooms = std::size_t(threads) * room;
    const S* dx = turned ? nullptr : p.dx;   // (A panel lies on lines.)
    const Beside<T> weight_beside(dx, weights), sums_beside(dx, tasks * sums.both() * sums.stride);
    const Scratch scratch(rooms + weight_beside.bytes() + sums_beside.bytes());
    T* weight = weight_beside.place(scratch.data() + rooms, 2);
    sums.partial = sums_beside.place(scratch.data() + rooms + weight_beside.bytes(), stream ? 0 : 4);
    if (p.weight)
        std::copy_n(p.weight, weights, weight);
    else
        std::fill_n(weight, weights, T(1));
    p.weight = weight;

    const Kernels<S>& k = kernels<S>();
    const index tiles = ceil_div(cols, TILE);
    run_team(threads, [&](const Team& team) {
        const Panel<S> own = panel.at(scratch.data() + std::size_t(team.id) * room);
        team.each(tasks, [&](index task) {
            const index first = task % blocks * size;
            add_block(of_group(p, task / blocks), sums, task, first, std::min(rows, first + size), {stream, far, panels},
                      own);
        });
        team.barrier();
        team.each(p.groups * tiles, [&](index task) {
            const index from = task % tiles * TILE, n = std::min(TILE, cols - from), stride = sums.both() * sums.stride;
            const index block = task / tiles * blocks;
            const RowGradients<S> group = of_group(p, task / tiles);
            k.sum_partials({sums.dweight(block) + from, blocks, n, stride, group.dweight + from});
            if (p.centered) k.sum_partials({sums.dbias(block) + from, blocks, n, stride, group.dbias + from});
        });
    });
}

template void solve(const RowGradients<float>&);
template void solve(const RowGradients<double>&);
template void solve(const RowGradients<Float16>&);
template void solve(const RowGradients<BFloat16>&);

}   // namespace onepass
