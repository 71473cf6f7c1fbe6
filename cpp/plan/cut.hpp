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

inline constexpr index ceil_div(index a, index b) { return (a + b - 1) / b; }

// How many of n things a task has, if `parts` tasks share the others: all, unless members of the team would have none; but
// `least` at least, and `most` at most.
inline index piece_of(index n, index parts, const Team& team, index least, index most) {
    const index pieces = ceil_div(team.size, parts);
    return std::clamp(ceil_div(ceil_div(n, pieces), least) * least, least, most);
}

inline index folds_for(index rows, index width) {
    if (width >= NARROW) return 1;
    index folds = 1;
    while (folds * width % 16 != 0) folds *= 2;
    while (folds * width < FOLDED) folds *= 2;
    folds = std::min(folds, MOST_FOLDS);
    return rows >= folds * FOLDED_ROWS ? folds : 1;
}

}   // namespace onepass
