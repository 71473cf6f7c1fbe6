// How one problem of groups is solved by a team: moments, and what is applied.
//
// Where elements of x lie apart, some at a time are brought side by side (panel.hpp). Where those of y do, too, columns
// that lie end to end are written as rows, and rows beside each other as columns: what is written has the same bits either
// way. But columns whose rows have weights are written over what was brought, and from there to where they belong.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <numeric>
#include <vector>

#include "plan/group_moments.hpp"

namespace onepass {

// The same elements as they are written, where those of y's rows lie apart as well as x's: columns as rows, and rows as
// columns.
template <class S>
Groups<S> as_written(const Groups<S>& p) {
    Groups<S> w = p;
    if (p.y_element == 1 || p.row_weight) return w;
    w.x_element = w.y_element = 1;
    w.by_rows = p.span == 1;
    if (w.by_rows) {
        w.rows = 1;
        w.span = p.rows;
        w.x_group = p.x_element;
        w.y_group = p.y_element;
    } else {
        w.rows = p.rows * p.span;
        w.span = 1;
        w.x_row = p.x_element;
        w.y_row = p.y_element;
    }
    return w;
}

// One problem in the hands of one team. Members share the object; what they write is cut between them.
template <class S>
class Solver {
    using T = Arith<S>;

  public:
    // Moments are taken of `problem`, and written is what `written` says, whose x may lie elsewhere.
    Solver(const Groups<S>& problem, const Groups<S>& written, const Kernels<S>& kernels, bool stream, int members)
        : p(problem),
          w(written),
          k(kernels),
          stream_(stream),
          written_by_rows_(w.by_rows || (!p.weight_a_column && better_as_rows(w.rows, w.span))),
          ones_(p.weight || p.bias),
          of_(problem, kernels, members),
          width_(w.groups * w.span),
          applied_folds_(folds_for_writing()),
          wide_(std::max(p.given_mean || p.by_rows ? 0 : of_.folds * of_.width,
                         written_by_rows_ ? 0 : applied_folds_ * width_)),
          brought_(w.x_element, panel(), members) {
        const bool own = members > 1 && w.rows >= OWN * members * applied_folds_;
        parameters_.resize(own ? std::size_t(members) : 1);
    }

    // Cuts what it needs; the pieces are null, and only counted, where the cutter has no memory.
    void cut(Cutter& cutter) {
        if (!p.given_mean) of_.cut(cutter);
        brought_.cut(cutter);
        cut_lines(cutter, line_, p.groups);
        for (Parameters& each : parameters_) {
            each.line = line_;
            if (p.given_mean && owns()) cut_lines(cutter, each.line, p.groups);
            each.wide = each.line;
            if (expands()) cut_lines(cutter, each.wide, wide_);
            if (!ones_) continue;
            const index n = written_by_rows_ ? p.groups : applied_folds_ * width_;
            each.product = cut_beside<T>(cutter, p.y, n, 4);
            each.weight = cut_beside<T>(cutter, p.y, n, 5);
            each.bias = cut_beside<T>(cutter, p.y, n, 6);
        }
        of_.set_lines(line_, ranges().before, ranges().after);
        choose(0);
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
            of_.take(team, false);
            if (of_.out_of_range()) of_.choose_ranges(team);
            if ((ranged = of_.ranged())) {
                if (!p.by_rows) expand_ranges(team, of_.folds, p.span, ranges());
                team.barrier();
                of_.take(team, true);
            }
            of_.put(team, ranged);
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
        x_ = w.x + number * w.x_problem;
        y_ = w.y ? w.y + number * w.y_problem : nullptr;
        number_ = number;
        of_.choose(number);
        apart_.store(false);
    }

    // Rows fold for writing where results lie as densely as x, and the rows carry no weights: into whole lines, if there
    // are rows enough.
    index folds_for_writing() const {
        const bool folds = w.x_element == 1 ? w.x_row == width_ : brought_end_to_end<S>(width_);
        const bool dense = folds && w.y_row == width_ && !p.row_weight && !written_by_rows_;
        if (!dense || width_ >= APPLIED / 2) return 1;
        constexpr index LINE = index(Scratch::LINE) / index(sizeof(S));
        const index most = std::min(APPLIED / width_, w.rows / FOLDED_ROWS), whole = LINE / std::gcd(LINE, width_);
        return std::max<index>(most < whole ? most : most / whole * whole, 1);
    }
    // Of x, where some of it is brought at a time: rows that fold end to end, or some columns of others.
    Panel<S> panel() const {
        constexpr index LINE = index(Scratch::LINE) / index(sizeof(S));
        if (written_by_rows_) return {w.span, w.groups, false, 1, room_for<S>(w.span)};
        if (applied_folds_ > 1) return {width_, COLUMN_BLOCK * applied_folds_, true, 1, PANEL};
        return {std::min(width_, TILE + LINE), COLUMN_BLOCK, false, 1, PANEL};
    }

    void cut_lines(Cutter& cutter, Lines<T>& line, index n) const {
        line.mean = cut_beside<T>(cutter, p.y, n, 2);
        line.scale = cut_beside<T>(cutter, p.y, n, 4);
        line.low = cut_beside<T>(cutter, p.y, n, 3);
        line.before = cut_beside<T>(cutter, p.y, n, 1);
        line.after = cut_beside<T>(cutter, p.y, n, 7);
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

    // Whether there are other columns than groups.
    bool expands() const { return wide_ != 0 && wide_ != p.groups; }
    // An element a group becomes an element a column, in as many folds of groups of such a span.
    void spread(const Team& team, index folds, index span, T* to, const T* from) const {
        const index first = team.from(p.groups), end = team.to(p.groups);
        if (span == 1)
            std::copy(from + first, from + end, to + first);
        else
            for (index g = first; g < end; ++g) std::fill_n(to + g * span, span, from[g]);
        repeat(folds, p.groups * span, to, first * span, end * span);
    }
    // Columns from..end of the first fold in all others.
    static void repeat(index folds, index width, T* first, index from, index end) {
        if (end - from == width)
            for (index done = 1, n = 1; done < folds; done += n) {
                n = std::min(done, folds - done);
                std::copy_n(first, n * width, first + done * width);
            }
        else
            for (index fold = 1; fold < folds; ++fold) std::copy(first + from, first + end, first + fold * width + from);
    }
    void expand(const Team& team, index folds, index span, T* to, const T* from) const {
        if (expands()) spread(team, folds, span, to, from);
    }
    void expand_ranges(const Team& team, index folds, index span, const Lines<T>& to) const {
        expand(team, folds, span, to.before, line_.before);
        expand(team, folds, span, to.after, line_.after);
    }

    // The weight joins the scale, and is read no more: rows do the same, for they must have the same bits.
    void join_weights(const Team& team, const Parameters& to) {
        const index span = written_by_rows_ ? 1 : w.span, from = team.from(p.groups) * span, end = team.to(p.groups) * span;
        const T* scale = written_by_rows_ ? to.line.scale : to.wide.scale;
        const auto fill = [&](T* array, const T* of, T without) {
            if (of && !p.weight_a_column)
                spread(team, 1, span, array, of);
            else if (of)
                std::copy(of + from, of + end, array + from);
            else
                std::fill(array + from, array + end, without);
        };
        fill(to.weight, p.weight, T(1));
        fill(to.bias, p.bias, T(0));
        if (k.join_weights({end - from, scale + from, to.weight + from, to.product + from})) apart_.store(true);
        for (T* array : {to.weight, to.bias, to.product}) repeat(applied_folds_, width_, array, from, end);
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
        expand(part, applied_folds_, w.span, my.wide.mean, my.line.mean);
        expand(part, applied_folds_, w.span, my.wide.low, my.line.low);
        expand(part, applied_folds_, w.span, my.wide.scale, my.line.scale);
        if (ranged) expand_ranges(part, applied_folds_, w.span, my.wide);
        if (ones_) join_weights(part, my);
        if (!owns()) team.barrier();
        Lines<T> line = my.wide;
        if (!ranged) line.before = line.after = nullptr;
        if (ones_) {
            line.scale = my.product;
            line.weight = apart_.load() ? my.weight : nullptr;
            line.bias = line.weight || p.bias ? my.bias : nullptr;
        }
        const index folds = applied_folds_, cols = folds * width_, rows = w.rows / folds, rest = w.rows % folds;
        // Tiles end on cache lines of y. From the end to the beginning: the last that the moments read is the likeliest to
        // be in the cache still.
        const index lead = index((0 - reinterpret_cast<std::uintptr_t>(y_)) % Scratch::LINE / sizeof(S));
        const index body = std::max<index>(cols - lead, 1), line_of_y = Scratch::LINE / index(sizeof(S));
        const bool beyond = beyond_nearer_caches(2 * w.rows * width_ * index(sizeof(S)));
        const index widest =
            brought_ ? TILE : widest_piece<S>(body, folds * w.y_row % line_of_y == 0, stream_, !!p.given_mean, beyond);
        const index wide = ceil_div(ceil_div(body, ceil_div(body, widest)), line_of_y) * line_of_y;
        const index tiles = ceil_div(body, wide),
                    block = piece_of(rows, tiles, team, 1, std::min(COLUMN_BLOCK, brought_.rows() / folds));
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
            const index n = std::min(block, rows - row);
            const Matrix<const S> x = brought_(team, x_ + row * folds * w.x_row + from * w.x_element, w.x_row, n * folds,
                                               folds > 1 ? width_ : to - from);
            S* y = y_ + row * folds * w.y_row + from * w.y_element;
            const bool back = w.y_element != 1;
            const Matrix<S> written = back ? Matrix<S>{const_cast<S*>(x.at), x.stride} : Matrix<S>{y, folds * w.y_row};
            k.columns_apply({x.at, written.at, n, to - from, folds * x.stride, written.stride, here, stream_, apart});
            if (back) turn<false>(Matrix<S>{y, w.y_element}, written, to - from, n);
        });
        if (rest && team.id == 0) {   // end to end, and fewer than one fold has
            const Matrix<const S> x = brought_(team, x_ + rows * folds * w.x_row, w.x_row, rest, width_);
            const index n = rest * width_;
            k.columns_apply({x.at, y_ + rows * folds * w.y_row, 1, n, n, n, line, stream_, false});
        }
    }

    // What is written as rows: pieces of groups, cut once more where members would be left without one.
    struct Pieces {
        index rows, span, last, x_row, y_row;
    };
    Pieces pieces(const Team& team) const {
        if (w.rows > 1 || w.groups >= team.size) return {w.rows, w.span, w.span, w.x_row, w.y_row};
        const index line = Scratch::LINE, each = ceil_div(w.span, ceil_div(team.size, w.groups));
        const index span = ceil_div(each, line) * line, rows = ceil_div(w.span, span);
        return {rows, span, w.span - (rows - 1) * span, span * w.x_element, span};
    }

    void apply_rows(const Team& team, const Parameters& my, bool ranged) {
        const Pieces all = pieces(team);
        const index from = team.from(all.rows * p.groups), to = team.to(all.rows * p.groups);
        for (index end = to; end > from;) {
            const index row = (end - 1) / p.groups, n = row + 1 < all.rows ? all.span : all.last;
            const index first = std::max({row * p.groups, from, end - brought_.rows()}), group = first - row * p.groups;
            Lines<T> line = {my.line.mean + group,
                             my.line.low + group,
                             (ones_ ? my.product : my.line.scale) + group,
                             ranged ? line_.before + group : nullptr,
                             ranged ? line_.after + group : nullptr,
                             ones_ ? my.weight + group : nullptr,
                             p.bias ? my.bias + group : nullptr,
                             nullptr,
                             nullptr};
            const Matrix<const S> x = brought_(team, x_ + row * all.x_row + group * w.x_group, w.x_group, end - first, n);
            k.rows_apply({x.at, y_ + row * all.y_row + group * w.y_group, end - first, n, x.stride, w.y_group, line,
                          stream_, false});
            end = first;
        }
    }

    const Groups<S>&p, &w;
    const Kernels<S>& k;
    const bool stream_, written_by_rows_, ones_;
    GroupMoments<S> of_;
    const index width_, applied_folds_,
        wide_;   // columns that are written, as so many rows in one; all that have parameters
    Brought<S> brought_;
    index number_ = 0;
    const S* x_ = nullptr;
    S* y_ = nullptr;
    Lines<T> line_ = {};   // of groups, those that moments make
    std::vector<Parameters> parameters_;
    std::atomic<bool> apart_{false};
};

}   // namespace onepass
