// Blocks of rows over threads, each with partial sums for dweight and dbias; then columns over threads, to sum the blocks.
// Where rows are columns of the view (a channel axis that comes first), each thread turns some at a time: their bits are
// those of rows, and no array is moved as a whole.
#include "plan/rows_backward.hpp"

#include <algorithm>

#include "dispatch/dispatch.hpp"
#include "plan/beside.hpp"
#include "plan/rows.hpp"
#include "plan/threads.hpp"
#include "plan/turn.hpp"

namespace onepass {
namespace {

// Rows of a block: as many as give BLOCKS blocks, from FEWEST to MOST. Part of the bits of dweight and dbias.
constexpr index BLOCKS = 32, FEWEST = 8, MOST = 64;
index block_rows(index rows) { return std::clamp(rows / BLOCKS, FEWEST, MOST); }

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

// x and dy of some rows whose elements lie apart, brought side by side: those of one thread, which its second cache holds.
// (They are not whole pages apart: such rows lie in few sets of the first cache.)
template <class S>
class Panel {
    static constexpr index LINE = index(Scratch::LINE / sizeof(S)), BYTES = 512 << 10;

  public:
    Panel(index cols, index block) : stride_((cols + LINE - 1) / LINE * LINE + LINE) {
        const index pieces = block * 2 * stride_ * index(sizeof(S)) / BYTES + 1;
        rows_ = (block / pieces + LINE - 1) / LINE * LINE;
    }
    std::size_t bytes() const { return std::size_t(2 * rows_ * stride_) * sizeof(S); }
    void lie_at(char* scratch) { x_ = reinterpret_cast<S*>(scratch); }

    index rows() const { return rows_; }
    index stride() const { return stride_; }
    S* array(int operand) const { return x_ + operand * rows_ * stride_; }

    // From or to columns of an array whose rows lie `stride` apart.
    void fill(int operand, const S* from, index stride, index cols, index rows) const {
        turn_squares<true>(Matrix<const S>{from, stride}, Matrix<S>{array(operand), stride_}, cols, rows);
    }
    void empty(int operand, S* to, index stride, index cols, index rows) const {
        turn_squares<false>(Matrix<S>{to, stride}, Matrix<S>{array(operand), stride_}, cols, rows);
    }

  private:
    index stride_, rows_;
    S* x_ = nullptr;
};

// How rows are read and written: as they lie, or by way of a panel.
template <class S>
struct Way {
    bool stream, far;
    const Panel<S>* panel;
};

template <class S>
void add_block(const RowGradients<S>& p, const Sums<Arith<S>>& sums, index block, index from, index to, const Way<S>& way) {
    const View& v = p.view;
    std::fill_n(sums.dweight(block), sums.both() * sums.stride, Arith<S>(0));
    const auto add = [&](const S* x, const S* dy, S* dx, index rows, index cols, index x_stride, index dy_stride,
                         index dx_stride) {
        kernels<S>().rows_backward({x, dy, dx, rows, cols, x_stride, dy_stride, dx_stride, p.weight, p.how,
                                    sums.dweight(block), sums.dbias(block), way.stream, way.far,
                                    rows_ahead(SENT_FAR, cols, sizeof(S)), p.centered});
    };
    const int along = way.panel ? 2 : 1;   // the dimension in which rows follow each other
    const index longest = way.panel ? way.panel->rows() : to - from;
    for (index row = from; row < to;) {   // in runs of evenly spaced rows
        const index outer = row / v.size[along], inner = row % v.size[along];
        const index run = std::min({v.size[along] - inner, to - row, longest});
        const auto offset = [&](int operand) { return outer * v.stride[operand][0] + inner * v.stride[operand][along]; };
        if (way.panel) {
            const Panel<S>& panel = *way.panel;
            const index cols = v.size[1];
            panel.fill(0, p.x + offset(0), v.stride[0][1], cols, run);
            panel.fill(1, p.dy + offset(2), v.stride[2][1], cols, run);
            // dx over x: each element of a row is read before it is written, and a third array would not leave as much
            // room.
            add(panel.array(0), panel.array(1), panel.array(0), run, cols, panel.stride(), panel.stride(), panel.stride());
            panel.empty(0, p.dx + offset(1), v.stride[1][1], cols, run);
        } else {
            add(p.x + offset(0), p.dy + offset(2), p.dx + offset(1), run, v.size[2], v.stride[0][1], v.stride[2][1],
                v.stride[1][1]);
        }
        row += run;
    }
}

// Those of the first group become those of another one.
template <class S>
RowGradients<S> of_group(const RowGradients<S>& p, index group) {
    RowGradients<S> other = p;
    go_on(group * p.view.size[2], other.x, other.dy, other.dx, other.weight, other.dweight, other.dbias);
    return other;
}

}   // namespace

template <class S>
void solve(const RowGradients<S>& given) {
    using T = Arith<S>;
    RowGradients<S> p = given;
    const bool turned = p.view.kind == Kind::columns;
    const index rows = p.view.size[0] * p.view.size[turned ? 2 : 1], cols = p.view.size[turned ? 1 : 2];
    const index size = block_rows(rows), blocks = (rows + size - 1) / size;
    const index tasks = p.groups * blocks, weights = p.groups * cols;
    const index bytes = 3 * p.groups * p.view.elements() * index(sizeof(S));
    const int threads = static_cast<int>(std::min<index>(threads_for(bytes), tasks));
    // (Three arrays crowd a cache sooner than two: as little of it as can be, however many threads there are; but to stream
    // short rows, a few lines of each, takes longer still, and they get what several threads have.)
    const int crowd = cols * index(sizeof(S)) <= SHORT ? 2 : 1;
    const bool stream = !turned && streams(p.x, p.dx, bytes, crowd, true), far = stream && beyond_caches(bytes);

    // All of these are read beside dx, for each row again. Streamed stores pend for long, and so do all that come behind
    // them: what is written lies as dx does in its pages then, and leaves the rest of a page to what is read.
    const index page = index(PAGE / sizeof(T)), unit = stream && 2 * cols > page ? page : index(Scratch::LINE / sizeof(T));
    Sums<T> sums = {nullptr, (cols + unit - 1) / unit * unit, p.centered};
    Panel<S> panel(cols, size);
    const std::size_t panels = turned ? std::size_t(threads) * panel.bytes() : 0;
    const S* dx = turned ? nullptr : p.dx;   // (A panel lies on lines.)
    const Beside<T> weight_beside(dx, weights), sums_beside(dx, tasks * sums.both() * sums.stride);
    const Scratch scratch(panels + weight_beside.bytes() + sums_beside.bytes());
    T* weight = weight_beside.place(scratch.data() + panels, 2);
    sums.partial = sums_beside.place(scratch.data() + panels + weight_beside.bytes(), stream ? 0 : 4);
    if (p.weight)
        std::copy_n(p.weight, weights, weight);
    else
        std::fill_n(weight, weights, T(1));
    p.weight = weight;

    const Kernels<S>& k = kernels<S>();
    const index tiles = (cols + TILE - 1) / TILE;
    run_team(threads, [&](const Team& team) {
        Panel<S> own = panel;
        own.lie_at(scratch.data() + std::size_t(team.id) * panel.bytes());
        team.each(tasks, [&](index task) {
            const index first = task % blocks * size;
            add_block(of_group(p, task / blocks), sums, task, first, std::min(rows, first + size),
                      {stream, far, turned ? &own : nullptr});
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
