// The moments of groups: of pieces, blocks of columns or rows, merged into those of groups; and lines from them.
//
// Pieces are merged in double about their common mean (Chan, Golub & LeVeque 1979).
// Invariant: pieces and the order of merging depend on the shape alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "dispatch/dispatch.hpp"
#include "kernels/moments.hpp"
#include "plan/beside.hpp"
#include "plan/cut.hpp"
#include "plan/groups.hpp"
#include "plan/panel.hpp"
#include "plan/scratch.hpp"
#include "plan/threads.hpp"

namespace onepass {

// Those of one problem at a time. Members of a team share the object; what they write is cut between them.
template <class S>
class GroupMoments {
    using T = Arith<S>;

  public:
    GroupMoments(const Groups<S>& problem, const Kernels<S>& kernels, int members)
        : width(problem.groups * problem.span),
          folds(problem.by_rows ? 1 : folds_for(problem.rows, width)),
          p(problem),
          k(kernels),
          cols_(folds * width),
          rows_(p.rows / folds),
          rest_(p.rows % folds),
          block_(COLUMN_BLOCK * std::clamp<index>(rows_ / (BLOCKS * COLUMN_BLOCK), 1, LONGEST)),
          blocks_(ceil_div(rows_, block_)),
          brought_(p.x_element, panel(), members) {
        const index bytes = p.problems * p.rows * width * index(sizeof(S));
        beyond_ = !brought_ && (p.by_rows ? moments_send(bytes) : columns_send(bytes, sizeof(S) != sizeof(T)));
        mostly_ = mostly_beyond_caches(bytes);
        far_ = beyond_caches(bytes);
    }

    // Cuts what it needs; the pieces are null, and only counted, where the cutter has no memory.
    void cut(Cutter& cutter) {
        brought_.cut(cutter);
        if (p.by_rows) {
            columns_.cut(cutter, p.rows * p.groups);
        } else {
            const index n = blocks_ * cols_ + (rest_ ? width : 0);
            pivot_ = cut_beside<T>(cutter, p.x, n, 2);
            low_ = cut_beside<T>(cutter, p.x, n, 4);
            m2_ = cut_beside<T>(cutter, p.x, n, 6);
            columns_.cut(cutter, cols_ + width);
        }
        if (folds > 1) folded_.cut(cutter, width);
        if (p.by_rows || p.span > 1) groups_.cut(cutter, p.groups);
        result_ = p.by_rows || p.span > 1 ? groups_ : folds > 1 ? folded_ : columns_;
    }

    // Where the lines of groups go, which hold the Range of each as well; and the same for each column of the folds.
    void set_lines(const Lines<T>& line, const T* before, const T* after) {
        line_ = line;
        before_ = before;
        after_ = after;
    }

    void choose(index number) {
        x_ = p.x + number * p.x_problem;
        number_ = number;
        out_of_range_.store(false);
        vanished_.store(false);
        ranged_.store(false);
    }

    // Whether some group's are not in range.
    bool out_of_range() const { return out_of_range_.load(); }
    // And whether they have to be taken again, in those that were chosen for them.
    bool ranged() const { return ranged_.load(); }

    // Fills in the lines of groups, which all members may read then.
    void take(const Team& team, bool ranged) {
        const Underflow underflow;
        p.by_rows ? row_moments(team, ranged) : column_moments(team, ranged);
        team.barrier();
        const index merged = p.by_rows ? p.groups : cols_;
        team.each(ceil_div(merged, GROUP_TILE), [&](index task) {
            const index from = task * GROUP_TILE, n = std::min(GROUP_TILE, merged - from);
            if (p.by_rows) {
                k.merge_moments({columns_.mean + from, columns_.low + from, columns_.m2 + from, p.rows, p.groups, n, 1,
                                 double(p.span), double(p.span), ranged ? line_.after + from : nullptr, groups_.mean + from,
                                 groups_.low + from, groups_.m2 + from});
            } else {
                const double last = double(rows_ - (blocks_ - 1) * block_);
                k.merge_blocks({pivot_ + from, low_ + from, m2_ + from, blocks_, cols_, n, 1, double(block_), last,
                                ranged ? after_ + from : nullptr, columns_.mean + from, columns_.low + from,
                                columns_.m2 + from});
            }
        });
        // (What a member has merged it finishes itself, unless there is more to merge.)
        if (folds > 1 || merged != p.groups) team.barrier();
        if (folds > 1) merge_folds(team, ranged);
        team.each(ceil_div(p.groups, GROUP_TILE), [&](index task) {
            const index from = task * GROUP_TILE, n = std::min(GROUP_TILE, p.groups - from);
            if (!p.by_rows && p.span > 1) {
                const Moments3& of = folds > 1 ? folded_ : columns_;
                const double count = double(p.rows);
                k.merge_moments({of.mean + from * p.span, of.low + from * p.span, of.m2 + from * p.span, p.span, 1, n,
                                 p.span, count, count, ranged ? line_.after + from : nullptr, groups_.mean + from,
                                 groups_.low + from, groups_.m2 + from});
            }
            Lines<T> line = line_;
            line.mean += from;
            line.low += from;
            line.scale += from;
            line.before = ranged ? line_.before + from : nullptr;
            line.after = ranged ? line_.after + from : nullptr;
            T* mean = p.mean ? p.mean + number_ * p.groups + from : nullptr;
            T* rstd = p.rstd ? p.rstd + number_ * p.groups + from : nullptr;
            if (!k.finish_groups(
                    {n, count(), result_.mean + from, result_.low + from, result_.m2 + from, p.how, line, mean, rstd}))
                out_of_range_.store(true);
        });
        if (underflow.seen()) vanished_.store(true);
        team.barrier();
    }

    void choose_ranges(const Team& team) {
        team.each(p.groups, [&](index g) {
            Range range = {1, 1};
            const double mean = result_.mean[g], low = result_.low[g], m2 = result_.m2[g];
            const bool zero = seem_zero(mean, low, m2, p.how) && !vanished_.load();
            if (!zero && !finish<T>(inverse_freedom(count(), p.how), mean, low, m2, p.how, 1, 1).in_range) {
                range = other_range<T>(m2);
                ranged_.store(true);
            }
            line_.before[g] = T(range.before);
            line_.after[g] = T(range.after);
        });
        team.barrier();
    }

    void put(const Team& team, bool ranged) {
        if (!p.moments.mean) return;
        team.each(p.groups, [&](index g) {
            const index at = number_ * p.groups + g;
            double mean = result_.mean[g], low = result_.low[g], m2 = result_.m2[g];
            if (ranged) to_true_units({double(line_.before[g]), double(line_.after[g])}, mean, low, m2);
            const Pair sum = two_sum(mean, low);
            p.moments.mean[at] = sum.high;
            p.moments.low[at] = sum.low;
            p.moments.m2[at] = m2;
        });
    }

    const index width, folds;   // columns, and how many narrow rows are seen as one

  private:
    double count() const { return double(p.rows) * double(p.span); }

    // Of rows, as many as a thread has room for; of columns that are folded whole blocks of rows, and of others some
    // columns of a block.
    Panel<S> panel() const {
        constexpr index SIZE = index(sizeof(S)), LINE = index(Scratch::LINE) / SIZE, ALL = PTRDIFF_MAX;
        if (p.by_rows) return {p.span, p.groups, false, 1, room_for<S>(p.span)};
        const index rows = std::min(block_, rows_);
        if (folds > 1) return {width, rows * folds, brought_end_to_end<S>(width), 1, ALL};
        return {std::clamp(PANEL / (rows * SIZE) / LINE * LINE, 4 * LINE, TILE), rows, false, 1, ALL};
    }

    void row_moments(const Team& team, bool ranged) {
        const index cells = p.rows * p.groups, from = team.from(cells), to = team.to(cells);
        for (index i = from; i < to;) {
            const index row = i / p.groups, group = i % p.groups;
            const index n = ranged ? 1 : std::min({p.groups - group, to - i, brought_.rows()});
            const Range range = ranged ? Range{double(line_.before[group]), double(line_.after[group])} : Range{1, 1};
            const Matrix<const S> x = brought_(team, x_ + row * p.x_row + group * p.x_group, p.x_group, n, p.span);
            k.rows_moments(
                {x.at, n, p.span, x.stride, range, columns_.mean + i, columns_.low + i, columns_.m2 + i, beyond_});
            i += n;
        }
    }

    void column_moments(const Team& team, bool ranged) {
        // (A whole row, if that is little more: memory likes it better. And of folds that are brought, all.)
        const bool folded = brought_ && folds > 1;
        const index whole = folded || (beyond_ && cols_ * index(sizeof(T)) <= COLUMN_TILE) ? cols_ : TILE;
        const double last = double(rows_ - (blocks_ - 1) * block_) / double(block_);
        const Tiles tiles(cols_, blocks_, last, 1, team, std::max(whole, SHORTEST_TILE));
        const auto block = [&](const Matrix<const S>& x, index rows, index from, index n, index at) {
            k.columns_moments({x.at, rows, n, x.stride, p.centered, ranged ? before_ + from : nullptr,
                               ranged ? after_ + from : nullptr, pivot_ + at, low_ + at, m2_ + at, beyond_, mostly_, far_});
        };
        const index most = folded ? TILE : brought_.cols();
        team.each(tiles.tasks(), [&](index task) {
            const index row = tiles.block(task) * block_, from = tiles.column(task), rows = std::min(block_, rows_ - row);
            const index to = std::min(from + tiles.tile, cols_);
            Matrix<const S> all = {x_ + row * folds * p.x_row, p.x_row};
            if (folded) all = brought_(team, all.at, p.x_row, rows * folds, width);
            // Columns do not meet, so a row of folds that lie apart is taken fold by fold, with the same bits.
            for (index start = from; start < to;) {
                const index fold = all.stride == width ? 0 : start / width,
                            end = all.stride == width ? to : (fold + 1) * width;
                const index n = std::min({end - start, to - start, most}), column = start - fold * width;
                const S* x = all.at + fold * all.stride;
                const index along = folds * all.stride;
                const Matrix<const S> part =
                    folded ? Matrix<const S>{x + column, along} : brought_(team, x + column * p.x_element, along, rows, n);
                block(part, rows, start, n, tiles.block(task) * cols_ + start);
                start += n;
            }
        });
        if (rest_ && team.id == team.size - 1)
            block(brought_(team, x_ + rows_ * folds * p.x_row, p.x_row, rest_, width), rest_, 0, width, blocks_ * cols_);
    }

    // The folded columns back onto the true ones; the rows that folding left over are one fold more.
    void merge_folds(const Team& team, bool ranged) {
        const index from = team.from(width), n = team.to(width) - from, at = blocks_ * cols_ + from, rest = cols_ + from;
        const T* after = ranged ? after_ + from : nullptr;
        if (rest_)
            k.merge_blocks({pivot_ + at, low_ + at, m2_ + at, 1, 0, n, 1, double(rest_), double(rest_), after,
                            columns_.mean + rest, columns_.low + rest, columns_.m2 + rest});
        k.merge_moments({columns_.mean + from, columns_.low + from, columns_.m2 + from, folds + (rest_ ? 1 : 0), width, n,
                         1, double(rows_), double(rest_ ? rest_ : rows_), after, folded_.mean + from, folded_.low + from,
                         folded_.m2 + from});
        team.barrier();
    }

    const Groups<S>& p;
    const Kernels<S>& k;
    const index cols_, rows_, rest_, block_, blocks_;
    Brought<S> brought_;
    bool beyond_, mostly_, far_;
    index number_ = 0;
    const S* x_ = nullptr;
    T *pivot_ = nullptr, *low_ = nullptr, *m2_ = nullptr;
    Moments3 columns_, folded_, groups_, result_;
    Lines<T> line_ = {};
    const T *before_ = nullptr, *after_ = nullptr;
    std::atomic<bool> out_of_range_{false}, vanished_{false}, ranged_{false};
};

}   // namespace onepass
