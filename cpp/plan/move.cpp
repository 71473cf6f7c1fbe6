//   to[i] = from[i],   each element once, by one thread
//
// Where both arrays have the same fastest axis, its rows are copied. Where they have not, memory sees a matrix transposed:
// it goes through the cache square by square, so that both sides move whole cache lines (blocking: Lam, Rothberg & Wolf
// 1991), and by way of a square of its own, for lines a page apart have too few places in the first cache.
#include "plan/move.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "plan/copy.hpp"
#include "plan/threads.hpp"
#include "plan/turn.hpp"

namespace onepass {
namespace {

constexpr index EDGE = 64;   // bytes of a square's side: a cache line (of two of them four times slower)
constexpr index EARLY = 4;   // squares
constexpr int SECOND = 2;    // cache, as __builtin_prefetch has it

struct Axis {
    index size, from, to;
};

// The axes that matter, the fastest of `to` last; neighbours that both sides can see as one are one.
struct Axes {
    Axis axis[MAX_NDIM + 2] = {{1, 0, 0}, {1, 0, 0}};
    int count = 2;   // at least

    explicit Axes(const Move& m) {
        Axis sorted[MAX_NDIM];
        int n = 0;
        for (int i = 0; i < m.ndim; ++i)
            if (m.shape[i] != 1) sorted[n++] = {m.shape[i], m.from_strides[i], m.to_strides[i]};
        std::stable_sort(sorted, sorted + n, [](const Axis& a, const Axis& b) { return std::abs(a.to) > std::abs(b.to); });
        for (int i = 0; i < n; ++i) {
            Axis& last = axis[count - 1];
            if (count > 2 && last.from == sorted[i].size * sorted[i].from && last.to == sorted[i].size * sorted[i].to)
                last = {last.size * sorted[i].size, sorted[i].from, sorted[i].to};
            else
                axis[count++] = sorted[i];
        }
    }
};

// A strip of squares, from one line of `from` each, or less, to as many rows of `to`. The lines lie wherever they do, so
// they are sent for.
template <class E>
void copy_strip(const char* from, char* to, const Axis rows, const Axis cols) {
    constexpr index SIDE = EDGE / index(sizeof(E)), SIZE = index(sizeof(E)), STEP = Square<sizeof(E)>::SIDE;
    const bool dense = rows.size == SIDE && rows.from == SIZE && cols.to == SIZE;
    for (index col = 0; col < cols.size; col += SIDE, from += SIDE * cols.from, to += SIDE * cols.to) {
        const index n = std::min(SIDE, cols.size - col);
        if (!dense || n < SIDE) {
            for (index i = 0; i < rows.size; ++i)
                copy_row<E>(from + i * rows.from, cols.from, to + i * rows.to, cols.to, n);
            continue;
        }
        E square[SIDE][SIDE];
        for (index j = 0; j < SIDE; ++j) {
            std::memcpy(square[j], from + j * cols.from, EDGE);
            __builtin_prefetch(from + (EARLY * SIDE + j) * cols.from, 0, SECOND);
            __builtin_prefetch(to + j * rows.to + EARLY * EDGE, 1, SECOND);
        }
        for (index i = 0; i < SIDE; i += STEP)
            for (index j = 0; j < SIDE; j += STEP)
                Square<sizeof(E)>::turn(&square[j][i], EDGE, to + i * rows.to + j * SIZE, rows.to);
    }
}

template <class E>
void move_as(const Move& m) {
    Axes axes(m);
    const Axis cols = axes.axis[axes.count - 1];
    int fastest = axes.count - 1;   // of `from`
    for (int i = axes.count - 2; i >= 0; --i)
        if (axes.axis[i].size > 1 && std::abs(axes.axis[i].from) < std::abs(axes.axis[fastest].from)) fastest = i;
    const bool transposed = fastest != axes.count - 1;
    constexpr index SIDE = EDGE / index(sizeof(E));
    // The axis that is cut together with the last one comes before it.
    if (transposed) std::rotate(axes.axis + fastest, axes.axis + fastest + 1, axes.axis + axes.count - 1);
    const Axis rows = axes.axis[axes.count - 2];
    const index step = transposed ? SIDE : 1, blocks = (rows.size + step - 1) / step;
    index tasks = blocks, bytes = 2 * cols.size * rows.size * index(sizeof(E));
    for (int i = 0; i < axes.count - 2; ++i) {
        tasks *= axes.axis[i].size;
        bytes *= axes.axis[i].size;
    }
    run_team(threads_for(bytes), [&](const Team& team) {
        team.each(tasks, [&](index task) {
            const index row = task % blocks * step;
            const char* from = m.from + row * rows.from;
            char* to = m.to + row * rows.to;
            index outer = task / blocks;
            for (int i = axes.count - 3; i >= 0; --i) {
                const Axis& a = axes.axis[i];
                from += outer % a.size * a.from;
                to += outer % a.size * a.to;
                outer /= a.size;
            }
            if (!transposed) return copy_row<E>(from, cols.from, to, cols.to, cols.size);
            copy_strip<E>(from, to, {std::min(SIDE, rows.size - row), rows.from, rows.to}, cols);
        });
    });
}

}   // namespace

void move(const Move& given) {
    for (int i = 0; i < given.ndim; ++i)
        if (given.shape[i] == 0) return;
    switch (given.itemsize) {
        case 2:
            return move_as<std::uint16_t>(given);
        case 4:
            return move_as<std::uint32_t>(given);
        default:
            return move_as<std::uint64_t>(given);
    }
}

}   // namespace onepass
