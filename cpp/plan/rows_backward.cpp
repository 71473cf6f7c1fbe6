// Blocks of rows over threads, each with partial sums for dweight and dbias; then columns over threads, to sum the blocks.
#include "plan/rows_backward.hpp"

#include <algorithm>

#include "dispatch/dispatch.hpp"
#include "plan/beside.hpp"
#include "plan/rows.hpp"
#include "plan/threads.hpp"

namespace onepass {
namespace {

// Rows of a block: as many as give BLOCKS blocks, from FEWEST to MOST. Part of the bits of dweight and dbias.
constexpr index BLOCKS = 32, FEWEST = 8, MOST = 64;
index block_rows(index rows) { return std::clamp(rows / BLOCKS, FEWEST, MOST); }

constexpr index TILE = 256;   // columns that a thread sums at a time: whole cache lines

// The sums of one block: dweight, and behind it dbias.
template <class T>
struct Sums {
    T* partial;
    index stride;   // from dweight to dbias, and from that to the next block
    bool centered;

    index both() const { return centered ? 2 : 1; }
    T* dweight(index block) const { return partial + block * both() * stride; }
    T* dbias(index block) const { return centered ? dweight(block) + stride : nullptr; }
};

template <class S>
void add_block(const RowGradients<S>& p, const Sums<Arith<S>>& sums, index block, index from, index to, bool stream,
               bool far) {
    const View& v = p.view;
    std::fill_n(sums.dweight(block), sums.both() * sums.stride, Arith<S>(0));
    for (index row = from; row < to;) {   // in runs of evenly spaced rows
        const index outer = row / v.size[1], inner = row % v.size[1], run = std::min(v.size[1] - inner, to - row);
        const auto offset = [&](int operand) { return outer * v.stride[operand][0] + inner * v.stride[operand][1]; };
        kernels<S>().rows_backward({p.x + offset(0), p.dy + offset(2), p.dx + offset(1), run, v.size[2], v.stride[0][1],
                                    v.stride[2][1], v.stride[1][1], p.weight, p.how, sums.dweight(block), sums.dbias(block),
                                    stream, far, rows_ahead(SENT_FAR, v.size[2], sizeof(S)), p.centered});
        row += run;
    }
}

}   // namespace

template <class S>
void solve(const RowGradients<S>& given) {
    using T = Arith<S>;
    RowGradients<S> p = given;
    const index rows = p.view.size[0] * p.view.size[1], cols = p.view.size[2];
    const index size = block_rows(rows), blocks = (rows + size - 1) / size;
    const index bytes = 3 * p.view.elements() * index(sizeof(S));
    // (Three arrays crowd a cache sooner than two: as little of it as can be, however many threads there are.)
    const bool stream = streams(p.x, p.dx, bytes, 1, true), far = stream && beyond_caches(bytes);

    // All of these are read beside dx, for each row again. Streamed stores pend for long, and so do all that come behind
    // them: what is written lies as dx does in its pages then, and leaves the rest of a page to what is read.
    const index page = index(PAGE / sizeof(T)), unit = stream && 2 * cols > page ? page : index(Scratch::LINE / sizeof(T));
    Sums<T> sums = {nullptr, (cols + unit - 1) / unit * unit, p.centered};
    const Beside<T> weight_beside(p.dx, cols), sums_beside(p.dx, blocks * sums.both() * sums.stride);
    const Scratch scratch(weight_beside.bytes() + sums_beside.bytes());
    T* weight = weight_beside.place(scratch.data(), 2);
    sums.partial = sums_beside.place(scratch.data() + weight_beside.bytes(), stream ? 0 : 4);
    if (p.weight)
        std::copy_n(p.weight, cols, weight);
    else
        std::fill_n(weight, cols, T(1));
    p.weight = weight;

    const Kernels<S>& k = kernels<S>();
    const index tiles = (cols + TILE - 1) / TILE;
    run_team(static_cast<int>(std::min<index>(threads_for(bytes), blocks)), [&](const Team& team) {
        team.each(blocks, [&](index block) {
            add_block(p, sums, block, block * size, std::min(rows, (block + 1) * size), stream, far);
        });
        team.barrier();
        team.each(tiles, [&](index tile) {
            const index from = tile * TILE, n = std::min(TILE, cols - from), stride = sums.both() * sums.stride;
            k.sum_partials({sums.dweight(0) + from, blocks, n, stride, p.dweight + from});
            if (p.centered) k.sum_partials({sums.dbias(0) + from, blocks, n, stride, p.dbias + from});
        });
    });
}

template void solve(const RowGradients<float>&);
template void solve(const RowGradients<double>&);
template void solve(const RowGradients<Float16>&);
template void solve(const RowGradients<BFloat16>&);

}   // namespace onepass
