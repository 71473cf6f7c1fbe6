//   to[i] = from[i],   each element once, by one thread
//
// Where both arrays have the same fastest axis, its rows are copied. Where they have not, memory sees a matrix transposed:
// it goes through the cache tile by tile, so that both sides move whole cache lines (blocking: Lam, Rothberg & Wolf 1991),
// and by way of a panel, for lines a page apart have too few places in the first cache.
#include "plan/move.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "plan/panel.hpp"
#include "plan/threads.hpp"

namespace onepass {
namespace {

// Bytes of a tile: of a row of `from`, as long as memory likes it, and of one of `to`.
constexpr index HIGH = 256, WIDE = 4 << 10;

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

// A tile of a matrix: rows of `to`, which are columns of `from`.
template <class E>
void copy_tile(const char* from, char* to, const Axis rows, const Axis cols, const Panel<E>& panel) {
    constexpr index SIZE = index(sizeof(E)), LINE = index(Scratch::LINE) / SIZE;
    if (rows.from == SIZE && cols.to == SIZE && cols.from % SIZE == 0) {
        panel.fill(0, 0, reinterpret_cast<const E*>(from), 1, cols.from / SIZE, rows.size, cols.size);
        for (index i = 0; i < rows.size; ++i) std::memcpy(to + i * rows.to, panel.row(0, i), std::size_t(cols.size * SIZE));
        return;
    }
    for (index col = 0; col < cols.size; col += LINE)
        for (index row = 0; row < rows.size; ++row)
            copy_row<E>(from + row * rows.from + col * cols.from, cols.from, to + row * rows.to + col * cols.to, cols.to,
                        std::min(LINE, cols.size - col));
}

template <class E>
void move_as(const Move& m) {
    Axes axes(m);
    const Axis cols = axes.axis[axes.count - 1];
    int fastest = axes.count - 1;   // of `from`
    for (int i = axes.count - 2; i >= 0; --i)
        if (axes.axis[i].size > 1 && std::abs(axes.axis[i].from) < std::abs(axes.axis[fastest].from)) fastest = i;
    const bool transposed = fastest != axes.count - 1;
    // The axis that is cut together with the last one comes before it.
    if (transposed) std::rotate(axes.axis + fastest, axes.axis + fastest + 1, axes.axis + axes.count - 1);
    const Axis rows = axes.axis[axes.count - 2];
    const index wide = transposed ? WIDE / index(sizeof(E)) : cols.size;
    const index high = transposed ? HIGH / index(sizeof(E)) : ceil_div(WIDE / index(sizeof(E)), cols.size);
    const index tiles = ceil_div(cols.size, wide), tasks_of_two = ceil_div(rows.size, high) * tiles;
    index tasks = tasks_of_two, bytes = 2 * cols.size * rows.size * index(sizeof(E));
    for (int i = 0; i < axes.count - 2; ++i) {
        tasks *= axes.axis[i].size;
        bytes *= axes.axis[i].size;
    }
    const int threads = threads_for(bytes);
    const Panel<E> panel(std::min(wide, cols.size), std::min(high, rows.size), false, 1, HIGH * WIDE);   // a tile
    const std::size_t room = transposed ? panel.bytes() : 0;
    const Scratch scratch(room * std::size_t(threads));
    run_team(threads, [&](const Team& team) {
        const Panel<E> own = panel.at(scratch.data() + room * std::size_t(team.id));
        team.each(tasks, [&](index task) {
            const index place = task % tasks_of_two, row = place / tiles * high, col = place % tiles * wide;
            const char* from = m.from + row * rows.from + col * cols.from;
            char* to = m.to + row * rows.to + col * cols.to;
            index outer = task / tasks_of_two;
            for (int i = axes.count - 3; i >= 0; --i) {
                const Axis& a = axes.axis[i];
                from += outer % a.size * a.from;
                to += outer % a.size * a.to;
                outer /= a.size;
            }
            const index n = std::min(high, rows.size - row);
            if (transposed)
                return copy_tile<E>(from, to, {n, rows.from, rows.to},
                                    {std::min(wide, cols.size - col), cols.from, cols.to}, own);
            for (index i = 0; i < n; ++i) copy_row<E>(from + i * rows.from, cols.from, to + i * rows.to, cols.to, wide);
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
