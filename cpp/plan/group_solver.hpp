// How one problem of groups is solved by a team: moments, merge, finish, apply, each cut by shape alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "dispatch/dispatch.hpp"
#include "kernels/moments.hpp"
#include "plan/beside.hpp"
#include "plan/cut.hpp"
#include "plan/groups.hpp"
#include "plan/scratch.hpp"
#include "plan/threads.hpp"

namespace onepass {

// One problem in the hands of one team. Members share the object; what they write is cut between them.
template <class S>
class Solver {
    using T = Arith<S>;

  public:
    Solver(const Groups<S>& problem, const Kernels<S>& kernels, bool stream, int members)
        : p(problem), k(kernels), stream_(stream), width_(p.groups * p.span) {
        folds_ = p.by_rows ? 1 : folds_for(p.rows, width_);
        cols_ = folds_ * width_;
        written_by_rows_ = p.by_rows || (!p.weight_a_column && better_as_rows(p.rows, p.span));
        // Rows fold for writing where results lie as densely as x, and the rows carry no weights.
        const bool dense = p.x_row == width_ && p.y_row == width_ && !p.row_weight && !written_by_rows_;
        applied_folds_ = dense && width_ < APPLIED / 2 && p.rows * width_ >= APPLIED * FOLDED_ROWS ? APPLIED / width_ : 1;
        wide_folds_ = std::max(folds_, applied_folds_);
        rows_ = p.rows / folds_;
        rest_ = p.rows % folds_;
        block_ = COLUMN_BLOCK * std::clamp<index>(rows_ / (BLOCKS * COLUMN_BLOCK), 1, LONGEST);
        blocks_ = ceil_div(rows_, block_);
        ones_ = p.weight || p.bias;
        const index bytes = p.problems * p.rows * width_ * index(sizeof(S));
        beyond_ = moments_send(bytes);
        far_ = beyond_caches(bytes);
        expands_ = !(p.given_mean ? written_by_rows_ : p.by_rows) && wide_folds_ * width_ != p.groups;
        const bool own = members > 1 && p.rows >= OWN * members * applied_folds_;
        parameters_.resize(own ? std::size_t(members) : 1);
        choose(0);
    }

    // Cuts what it needs; the pieces are null, and only counted, where the cutter has no memory.
    void cut(Cutter& cutter) {
        if (!p.given_mean) {
            if (p.by_rows) {
                columns_.cut(cutter, p.rows * p.groups);
            } else {
                const index n = blocks_ * cols_ + (rest_ ? width_ : 0);
                pivot_ = cut_beside<T>(cutter, p.x, n, 2);
                low_ = cut_beside<T>(cutter, p.x, n, 4);
                m2_ = cut_beside<T>(cutter, p.x, n, 6);
                columns_.cut(cutter, cols_ + width_);
            }
            if (folds_ > 1) folded_.cut(cutter, width_);
            if (p.by_rows || p.span > 1) groups_.cut(cutter, p.groups);
            result_ = p.by_rows || p.span > 1 ? groups_ : folds_ > 1 ? folded_ : columns_;
        }
        cut_lines(cutter, line_, p.groups);
        for (Parameters& each : parameters_) {
            each.line = line_;
            if (p.given_mean && owns()) cut_lines(cutter, each.line, p.groups);
            each.wide = each.line;
            if (expands_) cut_lines(cutter, each.wide, wide_folds_ * width_);
            if (!ones_) continue;
            const index n = written_by_rows_ ? p.groups : applied_folds_ * width_;
            each.product = cut_beside<T>(cutter, p.y, n, 4);
            each.weight = cut_beside<T>(cutter, p.y, n, 5);
            each.bias = cut_beside<T>(cutter, p.y, n, 6);
        }
    }

    void run(const Team& team, index number) {
        if (number != number_) {
            team.barrier();   // the last one used the same scratch
            if (team.id == 0) choose(number);
            team.barrier();
        }
        bool ranged = false;
        if (p.given_mean) {
            take_given(team);
        } else {
            take_moments(team, false);
            if ((ranged = out_of_range_.load())) {
                choose_ranges(team);
                expand_ranges(team, wide_folds_, ranges());
                team.barrier();
                take_moments(team, true);
            }
            put_moments(team, ranged);
        }
        if (y_) apply(team, ranged);
    }

  private:
    // What is applied, a column's beside another's as they are read. Where there are rows enough, each member has its own:
    // to take it twice costs less than a barrier, and than lines on their way from one processor to another.
    struct Parameters {
        Lines<T> line, wide;
        T *product = nullptr, *weight = nullptr, *bias = nullptr;
    };
    static constexpr index OWN = 16;   // rows of each member, at least

    bool owns() const { return parameters_.size() > 1; }
    Parameters& own(const Team& team) { return parameters_[owns() ? std::size_t(team.id) : 0]; }
    // Those that moments are taken in, by all members: before and after.
    const Lines<T>& ranges() const { return parameters_[0].wide; }
    // A member's share of what is to be done for them.
    Team share(const Team& team) const { return owns() ? Team{} : team; }

    void choose(index number) {
        x_ = p.x + number * p.x_problem;
        y_ = p.y ? p.y + number * p.y_problem : nullptr;
        number_ = number;
        out_of_range_.store(false);
        apart_.store(false);
    }

    void cut_lines(Cutter& cutter, Lines<T>& line, index n) const {
        line.mean = cut_beside<T>(cutter, p.y, n, 2);
        line.scale = cut_beside<T>(cutter, p.y, n, 4);
        line.low = cut_beside<T>(cutter, p.y, n, 3);
        line.before = cut_beside<T>(cutter, p.y, n, 1);
        line.after = cut_beside<T>(cutter, p.y, n, 7);
    }

    // ---- moments ----

    void take_moments(const Team& team, bool ranged) {
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
                                ranged ? ranges().after + from : nullptr, columns_.mean + from, columns_.low + from,
                                columns_.m2 + from});
            }
        });
        // (What a member has merged it finishes itself, unless there is more to merge.)
        if (folds_ > 1 || merged != p.groups) team.barrier();
        if (folds_ > 1) merge_folds(team, ranged);
        team.each(ceil_div(p.groups, GROUP_TILE), [&](index task) {
            const index from = task * GROUP_TILE, n = std::min(GROUP_TILE, p.groups - from);
            if (!p.by_rows && p.span > 1) {
                const Moments3& of = folds_ > 1 ? folded_ : columns_;
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
        team.barrier();
    }

    double count() const { return double(p.rows) * double(p.span); }

    void row_moments(const Team& team, bool ranged) {
        const index cells = p.rows * p.groups, from = team.from(cells), to = team.to(cells);
        for (index i = from; i < to;) {
            const index row = i / p.groups, group = i % p.groups, n = ranged ? 1 : std::min(p.groups - group, to - i);
            const Range range = ranged ? Range{double(line_.before[group]), double(line_.after[group])} : Range{1, 1};
            k.rows_moments({x_ + row * p.x_row + group * p.x_group, n, p.span, p.x_group, range, columns_.mean + i,
                            columns_.low + i, columns_.m2 + i, beyond_});
            i += n;
        }
    }

    void column_moments(const Team& team, bool ranged) {
        // (A whole row, if that is little more: memory likes it better.)
        const index whole = beyond_ && cols_ * index(sizeof(T)) <= COLUMN_TILE ? cols_ : TILE;
        const double last = double(rows_ - (blocks_ - 1) * block_) / double(block_);
        const Tiles tiles(cols_, blocks_, last, 1, team, std::max(whole, SHORTEST_TILE));
        const auto block = [&](const S* x, index rows, index stride, index from, index n, index at) {
            k.columns_moments({x, rows, n, stride, p.centered, ranged ? ranges().before + from : nullptr,
                               ranged ? ranges().after + from : nullptr, pivot_ + at, low_ + at, m2_ + at, beyond_, far_});
        };
        team.each(tiles.tasks(), [&](index task) {
            const index row = tiles.block(task) * block_, from = tiles.column(task), rows = std::min(block_, rows_ - row);
            const index to = std::min(from + tiles.tile, cols_);
            // Columns do not meet, so a row of folds that lie apart is taken fold by fold, with the same bits.
            for (index start = from; start < to;) {
                const index fold = p.x_row == width_ ? 0 : start / width_,
                            end = p.x_row == width_ ? to : (fold + 1) * width_;
                const index n = std::min(end, to) - start;
                block(x_ + (row * folds_ + fold) * p.x_row + start - fold * width_, rows, folds_ * p.x_row, start, n,
                      tiles.block(task) * cols_ + start);
                start += n;
            }
        });
        if (rest_ && team.id == team.size - 1)
            block(x_ + rows_ * folds_ * p.x_row, rest_, p.x_row, 0, width_, blocks_ * cols_);
    }

    // The folded columns back onto the true ones; the rows that folding left over are one fold more.
    void merge_folds(const Team& team, bool ranged) {
        const index from = team.from(width_), n = team.to(width_) - from, at = blocks_ * cols_ + from, rest = cols_ + from;
        const T* after = ranged ? ranges().after + from : nullptr;
        if (rest_)
            k.merge_blocks({pivot_ + at, low_ + at, m2_ + at, 1, 0, n, 1, double(rest_), double(rest_), after,
                            columns_.mean + rest, columns_.low + rest, columns_.m2 + rest});
        k.merge_moments({columns_.mean + from, columns_.low + from, columns_.m2 + from, folds_ + (rest_ ? 1 : 0), width_, n,
                         1, double(rows_), double(rest_ ? rest_ : rows_), after, folded_.mean + from, folded_.low + from,
                         folded_.m2 + from});
        team.barrier();
    }

    void choose_ranges(const Team& team) {
        team.each(p.groups, [&](index g) {
            Range range = {1, 1};
            if (!finish<T>(inverse_freedom(count(), p.how), result_.mean[g], result_.low[g], result_.m2[g], p.how, 1, 1)
                     .in_range)
                range = other_range<T>(result_.m2[g]);
            line_.before[g] = T(range.before);
            line_.after[g] = T(range.after);
        });
        team.barrier();
    }

    void put_moments(const Team& team, bool ranged) {
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

    void take_given(const Team& team) {
        const Team part = share(team);
        const index from = part.from(p.groups), to = part.to(p.groups);
        Lines<T> line = own(team).line;
        line.mean += from;
        line.low += from;
        line.scale += from;
        const bool tells = !owns() || team.id == 0;
        k.take_given({to - from, p.given_mean + from, p.given_var + from, p.how.eps, line,
                      tells && p.mean ? p.mean + from : nullptr, tells && p.rstd ? p.rstd + from : nullptr});
        if (!owns()) team.barrier();
    }

    // ---- apply ----

    // An element a group becomes an element a column, in as many folds of groups of such a span.
    void spread(const Team& team, index folds, index span, T* to, const T* from) const {
        const index first = team.from(p.groups), end = team.to(p.groups);
        for (index fold = 0; fold < folds; ++fold, to += width_)
            if (span == 1)
                std::copy(from + first, from + end, to + first);
            else
                for (index g = first; g < end; ++g) std::fill_n(to + g * span, span, from[g]);
    }
    void expand(const Team& team, index folds, T* to, const T* from) const {
        if (expands_) spread(team, folds, p.span, to, from);
    }
    void expand_ranges(const Team& team, index folds, const Lines<T>& to) const {
        expand(team, folds, to.before, line_.before);
        expand(team, folds, to.after, line_.after);
    }

    // The weight joins the scale, and is read no more: rows do the same, for they must have the same bits.
    void join_weights(const Team& team, const Parameters& to) {
        const index span = written_by_rows_ ? 1 : p.span, from = team.from(p.groups) * span, end = team.to(p.groups) * span;
        const T* scale = written_by_rows_ ? to.line.scale : to.wide.scale;
        const auto fill = [&](T* array, const T* of, T without) {
            if (of && !p.weight_a_column) return spread(team, applied_folds_, span, array, of);
            for (index fold = 0; fold < applied_folds_; ++fold, array += width_)
                if (of)
                    std::copy(of + from, of + end, array + from);
                else
                    std::fill(array + from, array + end, without);
        };
        fill(to.weight, p.weight, T(1));
        fill(to.bias, p.bias, T(0));
        for (index fold = 0; fold < applied_folds_; ++fold) {
            const index at = fold * width_ + from;
            if (k.join_weights({end - from, scale + at, to.weight + at, to.product + at})) apart_.store(true);
        }
    }

    void apply(const Team& team, bool ranged) {
        const Parameters& my = own(team);
        const Team part = share(team);
        if (written_by_rows_) {
            if (ones_) {
                join_weights(part, my);
                if (!owns()) team.barrier();
            }
            return apply_rows(team, my, ranged);
        }
        expand(part, applied_folds_, my.wide.mean, my.line.mean);
        expand(part, applied_folds_, my.wide.low, my.line.low);
        expand(part, applied_folds_, my.wide.scale, my.line.scale);
        if (ranged && owns()) expand_ranges(part, applied_folds_, my.wide);
        if (ones_) join_weights(part, my);
        if (!owns()) team.barrier();
        Lines<T> line = my.wide;
        if (!ranged) line.before = line.after = nullptr;
        if (ones_) {
            line.scale = my.product;
            line.weight = apart_.load() ? my.weight : nullptr;
            line.bias = line.weight || p.bias ? my.bias : nullptr;
        }
        const index folds = applied_folds_, cols = folds * width_, rows = p.rows / folds, rest = p.rows % folds;
        // Tiles end on cache lines of y. From the end to the beginning: the last that the moments read is the likeliest to
        // be in the cache still.
        const index lead = index((0 - reinterpret_cast<std::uintptr_t>(y_)) % Scratch::LINE / sizeof(S));
        const index body = std::max<index>(cols - lead, 1), line_of_y = Scratch::LINE / index(sizeof(S));
        const bool beyond = beyond_nearer_caches(2 * p.rows * width_ * index(sizeof(S)));
        const index widest = widest_piece<S>(body, folds * p.y_row % line_of_y == 0, stream_, !!p.given_mean, beyond);
        const index wide = ceil_div(ceil_div(body, ceil_div(body, widest)), line_of_y) * line_of_y;
        const index tiles = ceil_div(body, wide), block = piece_of(rows, tiles, team, 1, COLUMN_BLOCK);
        const index tasks = ceil_div(rows, block) * tiles;
        const bool apart = tiles > 1 && !stream_ && beyond;
        team.each_backwards(tasks, [&](index task) {
            const index row = task / tiles * block, tile = task % tiles;
            const index from = tile ? lead + tile * wide : 0, to = tile + 1 < tiles ? lead + (tile + 1) * wide : cols;
            Lines<T> here = line;
            for (T** array : {&here.mean, &here.low, &here.scale, &here.before, &here.after})
                if (*array) *array += from;
            if (line.weight) here.weight += from;
            if (line.bias) here.bias += from;
            if (p.row_weight) {
                here.row_weight = p.row_weight + row;
                here.row_bias = p.row_bias + row;
            }
            k.columns_apply({x_ + row * folds * p.x_row + from, y_ + row * folds * p.y_row + from,
                             std::min(block, rows - row), to - from, folds * p.x_row, folds * p.y_row, here, stream_,
                             apart});
        });
        if (rest && team.id == 0)
            k.columns_apply({x_ + rows * folds * p.x_row, y_ + rows * folds * p.y_row, rest, width_, p.x_row, p.y_row, line,
                             stream_, false});
    }

    void apply_rows(const Team& team, const Parameters& my, bool ranged) {
        const index from = team.from(p.rows * p.groups), to = team.to(p.rows * p.groups);
        for (index end = to; end > from;) {
            const index row = (end - 1) / p.groups, first = std::max(row * p.groups, from), group = first - row * p.groups;
            Lines<T> line = {my.line.mean + group,
                             my.line.low + group,
                             (ones_ ? my.product : my.line.scale) + group,
                             ranged ? line_.before + group : nullptr,
                             ranged ? line_.after + group : nullptr,
                             ones_ ? my.weight + group : nullptr,
                             p.bias ? my.bias + group : nullptr,
                             nullptr,
                             nullptr};
            k.rows_apply({x_ + row * p.x_row + group * p.x_group, y_ + row * p.y_row + group * p.y_group, end - first,
                          p.span, p.x_group, p.y_group, line, stream_, false});
            end = first;
        }
    }

    const Groups<S>& p;
    const Kernels<S>& k;
    const bool stream_;
    index width_, folds_, applied_folds_, wide_folds_, cols_, rows_, rest_, block_, blocks_, number_ = 0;
    bool written_by_rows_, ones_, expands_, beyond_, far_;
    const S* x_ = nullptr;
    S* y_ = nullptr;
    T *pivot_ = nullptr, *low_ = nullptr, *m2_ = nullptr;
    Moments3 columns_, folded_, groups_, result_;
    Lines<T> line_ = {};   // of groups, those that moments make
    std::vector<Parameters> parameters_;
    std::atomic<bool> out_of_range_{false}, apart_{false};
};

}   // namespace onepass
