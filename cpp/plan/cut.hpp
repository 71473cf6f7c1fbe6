// How columns are cut: what one task sweeps, and how narrow rows are seen as one.
//
// Invariant: what decides about bits (blocks and folds) depends on the shape alone. Columns do not meet, nor do rows that
// are written, so how many of either a task has may depend on the team.
#pragma once

#include <algorithm>

#include "kernels/kernels.hpp"
#include "plan/threads.hpp"
#include "plan/view.hpp"

namespace onepass {

constexpr index TILE = 1024, SHORTEST_TILE = 256;   // columns that one task sweeps
constexpr index GROUP_TILE = 256;                   // groups that one task merges and finishes
constexpr index BLOCKS = 64;                        // that rows are cut into, if each has COLUMN_BLOCK of them at least
constexpr index LONGEST = 8;                        // times COLUMN_BLOCK that a block has at most
constexpr index FOLDED = 1024;      // columns that folding aims at: rows of a page, which the prefetchers follow
constexpr index MOST_FOLDS = 128;   // so that the rows left over are at most one block
constexpr index APPLIED = 1024;     // columns that folding aims at where results are written
constexpr index FOLDED_ROWS = 8;    // at least, or folding leaves nothing to reduce

static_assert(TILE * index(sizeof(double)) <= COLUMN_TILE, "columns_moments has room for a tile");

// How many of n things a task has, if `parts` tasks share the others: all, unless members of the team would have none; but
// `least` at least, and `most` at most.
inline index piece_of(index n, index parts, const Team& team, index least, index most) {
    const index pieces = ceil_div(team.size, parts);
    return std::clamp(ceil_div(ceil_div(n, pieces), least) * least, least, most);
}

// Blocks of rows by tiles of columns, each a task, of which members take their share in order: block by block, as rows lie,
// unless the blocks, of which the last is a part of one, would leave a member idle. Then tile by tile.
struct Tiles {
    index blocks, tile, count;
    bool by_tile = false;

    // `last`: what the last block holds of a whole one. There are so many of such `arrays`.
    Tiles(index cols, index blocks, double last, index arrays, const Team& team, index most) : blocks(blocks) {
        tile = piece_of(cols, arrays * blocks, team, SHORTEST_TILE, most);
        count = ceil_div(cols, tile);
        if (arrays > 1) return;
        const double all = double(count) * (double(blocks - 1) + last);
        double longest = 0;
        for (Team member = {0, team.size}; member.id < team.size; ++member.id) {
            const index from = member.from(tasks()), to = member.to(tasks());
            const index of_last = std::max(to - std::max(from, (blocks - 1) * count), index(0));
            longest = std::max(longest, double(to - from) - double(of_last) * (1 - last));
        }
        if (longest * team.size < all * 1.15 || cols < SHORTEST_TILE * team.size) return;
        by_tile = true;
        const index pieces = ceil_div(ceil_div(cols, most), team.size) * team.size, line = 16;
        tile = ceil_div(ceil_div(cols, pieces), line) * line;
        count = ceil_div(cols, tile);
    }
    index tasks() const { return blocks * count; }
    index block(index task) const { return by_tile ? task % blocks : task / count; }
    index column(index task) const { return (by_tile ? task / blocks : task % count) * tile; }
};

inline index folds_for(index rows, index width) {
    if (width >= NARROW) return 1;
    index folds = 1;
    while (folds * width % 16 != 0) folds *= 2;
    while (folds * width < FOLDED) folds *= 2;
    folds = std::min(folds, MOST_FOLDS);
    return rows >= folds * FOLDED_ROWS ? folds : 1;
}

// Short pieces of a row, the groups' spans, have the same bits written as rows and as columns. As columns their parameters
// are spread first, an element a column, and few rows do not make up for that: by what both take, in sixths of a
// nanosecond.
inline bool better_as_rows(index rows, index span) {
    constexpr index A_ROW = 62;
    return span > 1 && rows * (A_ROW - span) < 6 * span;
}

// How many columns at a time are written, at most, of `body`: a few equal pieces, for the parameters of more columns
// would come from the second-level cache for each row again. What is streamed needs no room beside them, and memory
// likes long pieces: twice as many, as long as they fit. So do whole rows, where the parameters leave some of a roomy
// first cache: of a mean that is given there is no low part. In a small one, those of fewer columns must leave some
// where there are pieces anyway: for what is sent for most of all, or for lines that the processor fetches itself. And
// there rows that end between lines are streamed whole, for a line that two pieces share is not streamed.
template <class S>
index widest_piece(index body, bool on_lines, bool stream, bool given, bool beyond) {
    constexpr index SIZE = index(sizeof(Arith<S>)), MOST = TILE * 9 / 8, FITS = 28 << 10;
    if (roomy_first_cache) {
        const index parameters = body * (given ? 3 : 4) * SIZE;
        return SIZE == 4 && (stream || parameters <= FITS) ? 2 * MOST : MOST;
    }
    if (stream) {
        if (!on_lines) return body;
        if (SIZE == 8) return MOST;
        return body > 2 * MOST && sizeof(S) == 4 ? TILE * 3 / 2 : 2 * MOST;
    }
    constexpr index WHOLE = SIZE == 8 ? TILE * 13 / 16 : MOST;
    if (body <= WHOLE) return WHOLE;
    return (beyond ? TILE * 11 / 16 : MOST) * 4 / SIZE;
}

}   // namespace onepass
