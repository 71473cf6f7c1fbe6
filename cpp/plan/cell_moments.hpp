// The moments of cells, and for gradients their co-moments with dy: in pieces, merged.
//
// Pieces are as long as the kernels' float sums stay exact enough, and are merged in double about their common mean
// (Chan, Golub & LeVeque 1979), the sums compensated (Knuth 1969).
// Invariant: pieces and the order of merging depend on the shape alone.
#pragma once

#include <algorithm>
#include <type_traits>

#include "dispatch/dispatch.hpp"
#include "kernels/moments.hpp"
#include "plan/beside.hpp"
#include "plan/cells.hpp"
#include "plan/cut.hpp"
#include "plan/scratch.hpp"
#include "plan/threads.hpp"

namespace onepass {

constexpr index PIECE = 8192;   // elements of a cell's span: COLUMN_BLOCK rows of the kernels' fold
constexpr index MERGED = 64;    // cells that are merged together

// How an array of cells is cut up.
struct CellShape {
    index samples, channels, span;
    bool channels_last;
    index folds;           // narrow rows that are seen as one
    index width;           // columns of a folded row
    index rows, rest;      // folded rows, and the rows left over
    index blocks, last;    // blocks of rows, or of a span, and what the last one holds
    index pieces;          // of a cell
    index cell_rows;       // samples; 1 where a cell reaches across them
    index strips, strip;   // cells that lie side by side in all arrays: those of a row, or all where each is of one piece

    template <class S>
    explicit CellShape(const Cells<S>& p)
        : samples(p.samples), channels(p.channels), span(p.span), channels_last(p.channels_last) {
        const bool foldable = channels_last && (!p.weighing || p.weighing.by_element);
        folds = foldable ? folds_for(span, channels) : 1;
        width = folds * channels;
        rows = span / folds;
        rest = span % folds;
        const index longest = channels_last ? COLUMN_BLOCK : PIECE;
        blocks = ceil_div(rows, longest);
        last = rows - (blocks - 1) * longest;
        pieces = blocks * folds + (rest ? 1 : 0);
        cell_rows = p.across ? 1 : samples;
        strips = pieces == 1 && cell_rows == samples ? 1 : cell_rows;
        strip = cells() / strips;
    }

    index cells() const { return cell_rows * channels; }
    index cell_row(index sample) const { return cell_rows == 1 ? 0 : sample; }

    double held(index piece) const {
        if (!channels_last) return double(piece + 1 < blocks ? PIECE : last);
        const index block = piece / folds;
        return double(block == blocks ? rest : block + 1 < blocks ? COLUMN_BLOCK : last);
    }

    // Whether of all a cell's pieces only those of its last block hold less than the first.
    bool alike(index of_cell) const { return pieces == 1 || (of_cell == pieces && rest == 0); }

    // f(sample, block, channel, n) for this member's share, in the order of memory: runs of n neighbouring channels, those
    // of the next samples with them if these are joined, or where each has several blocks, one of them.
    template <class F>
    void each_run(const Team& team, index blocks_of_each, bool joined, const F& f) const {
        const index all = samples * channels * blocks_of_each, to = team.to(all);
        for (index i = team.from(all); i < to;) {
            const index cell = i / blocks_of_each, channel = cell % channels;
            const index n = blocks_of_each > 1 ? 1 : joined ? to - i : std::min(channels - channel, to - i);
            f(cell / channels, i % blocks_of_each, channel, n);
            i += n;
        }
    }
};

template <class S>
class CellMoments {
    using T = Arith<S>;
    using Spot = typename Cells<S>::Spot;

  public:
    CellMoments(const Cells<S>& problem, const Kernels<S>& kernels, bool far)
        : shape(problem), weighted(problem.weighing && !problem.given_mean), p(problem), k(kernels), far_(far) {}

    void cut(Cutter& cutter) {
        std::uintptr_t eighths = 0;
        const index n = shape.samples * shape.pieces * shape.channels;
        if (!weighted)
            for (T** array : {&sums_.pivot, &sums_.low, &sums_.m2, &sums_.sum, &sums_.product})
                *array = cut_beside<T>(cutter, p.x, n, ++eighths);
        if (weighted)
            for (double** array :
                 {&weighted_.count, &weighted_.pivot, &weighted_.low, &weighted_.m2, &weighted_.sum, &weighted_.product})
                *array = cutter.cut<double>(n);
        for (double** array : {&count, &mean, &low, &m2, &sum, &product}) *array = cutter.cut<double>(shape.cells());
    }

    // Of Range, an element a column of the width, for each row of cells. Sums without weights use them only when ranged.
    void set_ranges(const T* before, const T* after) {
        before_ = before;
        after_ = after;
    }

    // Fills in the cells. A barrier must follow.
    void take(const Team& team, bool ranged) const {
        shape.channels_last ? take_columns(team, ranged) : take_spans(team, ranged);
        team.barrier();
        team.each(shape.strips * ceil_div(shape.strip, MERGED), [&](index task) { merge_cells(task, ranged); });
    }

    const CellShape shape;
    const bool weighted;
    // Of cells, the mean as Range has it; sum and product are about the cell's mean, where dy is given.
    double *count = nullptr, *mean = nullptr, *low = nullptr, *m2 = nullptr, *sum = nullptr, *product = nullptr;

  private:
    struct WeightStrides {
        index row, col;
    };

    void take_spans(const Team& team, bool ranged) const {
        const bool by_element = p.weighing.by_element;
        const bool joined = !weighted && !ranged && p.dense();
        shape.each_run(team, shape.blocks, joined, [&](index sample, index block, index channel, index cells) {
            const index from = block * PIECE, n = block + 1 < shape.blocks ? PIECE : shape.last;
            const Spot at = p.spot(sample, channel, from);
            const index to = (sample * shape.pieces + block) * p.channels + channel;
            const index line = shape.cell_row(sample) * shape.width + channel;
            take_piece(false, at, cells, n, (p.channels - channel) * p.x_lies.row - from,
                       by_element ? at.x - p.x : sample * p.span + from, {by_element ? p.span : 0, 1}, line, to, ranged);
        });
    }

    void take_columns(const Team& team, bool ranged) const {
        const bool by_element = p.weighing.by_element;
        const Tiles tiles(shape.width, shape.blocks, double(shape.last) / COLUMN_BLOCK, p.samples, team, TILE);
        const index tasks = tiles.tasks() + (shape.rest ? 1 : 0);
        team.each(p.samples * tasks, [&](index task) {
            const index sample = task / tasks, place = task % tasks;
            const bool rest = place == tiles.tasks();   // what folding left over
            const index block = rest ? shape.blocks : tiles.block(place), from = rest ? 0 : tiles.column(place);
            const index rows = rest ? shape.rest : block + 1 < shape.blocks ? COLUMN_BLOCK : shape.last;
            const index cols = rest ? p.channels : std::min(tiles.tile, shape.width - from);
            const Spot at = rest ? p.spot(sample, shape.rows * shape.folds, 0)
                                 : p.spot(sample, block * COLUMN_BLOCK, from, shape.folds);
            const index to = (sample * shape.pieces + block * shape.folds) * p.channels + from;
            take_piece(true, at, rows, cols, 0, by_element ? at.x - p.x : sample * p.span + block * COLUMN_BLOCK,
                       {by_element ? at.x_row : 1, by_element ? 1 : 0}, shape.cell_row(sample) * shape.width + from, to,
                       ranged);
        });
    }

    void take_piece(bool columns, const Spot& at, index rows, index cols, index left, index weight, WeightStrides strides,
                    index line, index to, bool ranged) const {
        const T *before = before_ + line, *after = after_ + line;
        if (weighted) {
            const WeightedSums& w = weighted_;
            const auto call = [&](const auto* weights, WeightStrides by) {
                return Weighted<S, std::remove_cv_t<std::remove_pointer_t<decltype(weights)>>>{
                    at.x,         at.dy,      weights,           rows,       cols,          at.x_row,
                    by.row,       by.col,     p.weighing.skipna, before,     after,         w.count + to,
                    w.pivot + to, w.low + to, w.m2 + to,         w.sum + to, w.product + to};
            };
            static constexpr std::uint8_t ONE = 1;   // where only NaN is left out
            if (p.weighing.weights)
                (columns ? k.columns_weighted : k.rows_weighted)(call(p.weighing.weights + weight, strides));
            else if (p.weighing.mask)
                (columns ? k.columns_masked : k.rows_masked)(call(p.weighing.mask + weight, strides));
            else
                (columns ? k.columns_masked : k.rows_masked)(call(&ONE, {0, 0}));
            return;
        }
        const Comoments<S> call = {at.x,
                                   at.dy,
                                   rows,
                                   cols,
                                   at.x_row,
                                   at.dy_row,
                                   ranged ? before : nullptr,
                                   ranged ? after : nullptr,
                                   sums_.pivot + to,
                                   sums_.low + to,
                                   sums_.m2 + to,
                                   sums_.sum + to,
                                   sums_.product + to,
                                   far_,
                                   left,
                                   p.x_lies.sample - p.channels * p.x_lies.row};
        columns ? k.columns_comoments(call) : k.rows_comoments(call);
    }

    void merge_cells(index task, bool ranged) const {
        const index tiles = ceil_div(shape.strip, MERGED), row = task / tiles, from = task % tiles * MERGED;
        const index n = std::min(MERGED, shape.strip - from), pieces = p.across ? p.samples * shape.pieces : shape.pieces;
        const index first = row * shape.pieces * p.channels + from, cell = row * p.channels + from;
        const T* after = ranged ? after_ + row * shape.width + from : nullptr;
        if (weighted) {
            merge_moments<true>(weighted_.pivot, weighted_.low, weighted_.m2, first, pieces, n, after, cell);
        } else if (shape.alike(pieces)) {
            const double held = shape.held(0), last = shape.held(shape.pieces - 1);
            const index lasts = shape.pieces == 1 ? pieces : shape.folds;
            k.merge_blocks({sums_.pivot + first, sums_.low + first, sums_.m2 + first, pieces, p.channels, n, 1, held, last,
                            after, mean + cell, low + cell, m2 + cell, lasts});
            std::fill_n(count + cell, n, held * double(pieces - lasts) + last * double(lasts));
        } else {
            merge_moments<false>(sums_.pivot, sums_.low, sums_.m2, first, pieces, n, after, cell);
        }
        if (!p.dy) return;
        const auto merge = [&](auto* kernel, const auto& of) {
            kernel({of.pivot + first, of.low + first, of.sum + first, of.product + first, pieces, p.channels, n, after,
                    mean + cell, low + cell, sum + cell, product + cell});
        };
        weighted ? merge(k.merge_double_products, weighted_) : merge(k.merge_products, sums_);
    }

    template <bool COUNTED, class P>
    void merge_moments(const P* pivots, const P* lows, const P* m2s, index first, index pieces, index n, const T* after,
                       index cell) const {
        double high[MERGED] = {}, rest[MERGED] = {}, total[MERGED] = {}, base[MERGED], centre[MERGED], scale[MERGED];
        for (index j = 0; j < n; ++j) {
            base[j] = double(pivots[first + j]);
            scale[j] = after ? double(after[j]) : 1.0;
        }
        for (index piece = 0; piece < pieces; ++piece) {
            const index at = first + piece * p.channels;
            for (index j = 0; j < n; ++j) {
                if (COUNTED && total[j] == 0.0) base[j] = double(pivots[at + j]);   // of the first that is not empty
                total[j] += COUNTED ? weighted_.count[at + j] : shape.held(piece % shape.pieces);
            }
        }
        // f(column, where its piece stands, what that holds, its mean counted from the base)
        const auto each = [&](const auto& f) {
            for (index piece = 0; piece < pieces; ++piece) {
                const index at = first + piece * p.channels;
                const double whole = COUNTED ? 0.0 : shape.held(piece % shape.pieces);
                for (index j = 0; j < n; ++j) {
                    const double held = COUNTED ? weighted_.count[at + j] : whole;
                    if (COUNTED && held == 0.0) continue;
                    f(j, at + j, held, (double(pivots[at + j]) - base[j]) * scale[j] + double(lows[at + j]));
                }
            }
        };
        const auto accumulate = [&](index j, double value) {
            const Pair sum = two_sum(high[j], value);
            high[j] = sum.high;
            rest[j] += sum.low;
        };
        each([&](index j, index, double held, double shifted) { accumulate(j, held * shifted); });
        for (index j = 0; j < n; ++j) {
            centre[j] = (high[j] + rest[j]) / total[j];
            high[j] = rest[j] = 0.0;
        }
        each([&](index j, index at, double held, double shifted) {
            const double d = shifted - centre[j];
            accumulate(j, double(m2s[at]) + held * (d * d));
        });
        for (index j = 0; j < n; ++j) {
            count[cell + j] = total[j];
            mean[cell + j] = base[j];
            low[cell + j] = centre[j];
            m2[cell + j] = high[j] + rest[j];
        }
    }

    struct Sums {
        T *pivot, *low, *m2, *sum, *product;
    };
    struct WeightedSums {
        double *count, *pivot, *low, *m2, *sum, *product;
    };
    const Cells<S>& p;
    const Kernels<S>& k;
    const bool far_;   // x comes from memory
    const T *before_ = nullptr, *after_ = nullptr;
    Sums sums_ = {};
    WeightedSums weighted_ = {};
};

}   // namespace onepass
