// How rows, columns and blocks are scaled: the extremes of pieces, those of all pieces of a group, the scales, apply.
//
// Extremes do not depend on the order in which numbers meet, nor does anything behind them, so the cut into pieces has no
// say in the bits: a single long row is cut over the threads too, and the extremes of pieces are an array like any other,
// whose extremes the same kernels find.
#include "plan/extremes.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "dispatch/dispatch.hpp"
#include "plan/beside.hpp"
#include "plan/cut.hpp"
#include "plan/panel.hpp"
#include "plan/scratch.hpp"
#include "plan/threads.hpp"
#include "plan/whole.hpp"

namespace onepass {
namespace {

constexpr index STRIP = 64;              // rows that are read, then written, while they are in the cache
constexpr index STRIP_BYTES = 8 << 10;   // likewise
constexpr index SHARE = 4;               // rows a thread, at least, or rows are cut
constexpr index SHORTEST = 8192;         // elements of a cut row, at least
constexpr index TILE_BYTES = 4 << 10;    // of columns: a row of x, of y and of three arrays beside them fit in the cache
constexpr index MOST_BLOCKS = 64;        // of rows, whose extremes are found apart

template <class T>
Scales<T> from(Scales<T> by, index at, bool ranged) {
    if (!ranged) by.before = by.after = nullptr;
    for (T** array : {&by.min, &by.max, &by.scale, &by.before, &by.after})
        if (*array) *array += at;
    return by;
}

// ---- groups of one row each ----

template <class S>
void scale_strip(const Matrix<const S>& x, S* y, index rows, const Groups<S>& p, Ends<Arith<S>> ends, const Kernels<S>& k,
                 bool stream) {
    using T = Arith<S>;
    T min[STRIP], max[STRIP], by[5][STRIP];
    k.rows_extremes({x.at, rows, p.span, x.stride, min, max, stream});
    const Scales<T> scales = {by[0], by[1], by[2], by[3], by[4]};
    const bool plain = k.finish_extremes({rows, min, max, ends, scales});
    k.rows_scale({x.at, y, rows, p.span, x.stride, p.y_group, from(scales, 0, !plain), ends, stream});
}

template <class S>
void scale_rows(const Team& team, const MinMax<S>& of, const Kernels<S>& k, bool stream, const Brought<S>& brought) {
    const Groups<S>& p = of.at;
    const index fits = std::clamp<index>(STRIP_BYTES / (p.span * index(sizeof(S))), 1, STRIP);
    const index strip = brought ? std::min(brought.rows(), STRIP) : fits;
    const index end = team.to(p.problems * p.groups);
    for (index row = team.from(p.problems * p.groups); row < end;) {
        const index problem = row / p.groups, group = row % p.groups;
        const index rows = std::min({strip, p.groups - group, end - row});
        scale_strip(brought(team, of.x(problem) + group * p.x_group, p.x_group, rows, p.span),
                    of.y(problem) + group * p.y_group, rows, p, of.ends, k, stream);
        row += rows;
    }
}

// ---- groups of many pieces ----

// One problem in the hands of one team. Members share the object; what they write is cut between them.
//
// The extremes of pieces lie in rows of cols_ columns, the least and the greatest in rows of their own. Each of the groups
// has inner_ columns: those of its span, or the pieces into which its rows are cut.
template <class S>
class Scaler {
    using T = Arith<S>;

  public:
    Scaler(const MinMax<S>& problem, int members, bool stream)
        : of_(problem),
          p(problem.at),
          ends_(problem.ends),
          k(kernels<S>()),
          merge_(kernels<T>()),
          stream_(stream),
          piece_(piece_for(members)),
          brought_(p.x_element, panel(), members) {
        if (p.by_rows) {
            inner_ = ceil_div(p.span, piece_);
            cols_ = width_ = p.groups * inner_;
            blocks_ = p.rows;
            return;
        }
        inner_ = p.span;
        width_ = p.groups * p.span;
        if (!brought_ && p.x_row == width_ && narrow()) folds_ = APPLIED / width_;
        if (p.y_row == width_) applied_folds_ = brings_folds() ? APPLIED / width_ : folds_;
        cols_ = folds_ * width_;
        rows_ = p.rows / folds_;
        rest_ = p.rows % folds_;
        block_ = std::max(COLUMN_BLOCK, ceil_div(rows_, MOST_BLOCKS));
        if (!turned()) block_ = std::min(block_, brought_.rows());
        blocks_ = ceil_div(rows_, block_);
    }

    // Cuts what it needs; the pieces are null, and only counted, where the cutter has no memory.
    void cut(Cutter& cutter) {
        brought_.cut(cutter);
        pieces_ = cutter.cut<T>(2 * blocks_ * cols_);
        merged_ = cutter.cut<T>(2 * cols_ + (rest_ ? 2 * width_ : 0));
        if (folds_ > 1) folded_ = cutter.cut<T>(2 * width_);
        if (inner_ > 1) found_ = cutter.cut<T>(2 * p.groups);
        cut_scales(cutter, by_, p.groups);
        wide_ = by_;
        if (!p.by_rows && applied_folds_ * width_ != p.groups) cut_scales(cutter, wide_, applied_folds_ * width_);
    }

    void run(const Team& team, index number) {
        const S* x = of_.x(number);
        S* y = of_.y(number);
        if (team.id == 0) ranged_.store(false);
        p.by_rows ? row_extremes(team, x) : column_extremes(team, x);
        team.barrier();
        merge(team);
        p.by_rows ? apply_rows(team, x, y) : apply_columns(team, x, y);
        team.barrier();   // the next problem uses the same scratch
    }

  private:
    static constexpr index tile_ = TILE_BYTES / index(sizeof(T));   // columns that one task sweeps

    index piece_for(int members) const {
        const bool few = p.by_rows && members > 1 && p.rows * p.groups < SHARE * members;
        return few ? std::max(SHORTEST, ceil_div(ceil_div(p.span, 2 * SHARE * members), 64) * 64) : p.span;
    }
    // Whether rows are folded, if they lie end to end; and whether they are brought so.
    bool narrow() const {
        const index width = p.groups * p.span;
        return width < APPLIED / 2 && p.rows * width >= APPLIED * FOLDED_ROWS;
    }
    bool brings_folds() const {
        return p.x_element != 1 && !p.by_rows && narrow() && brought_end_to_end<S>(p.groups * p.span);
    }
    Panel<S> panel() const {
        constexpr index LINE = index(Scratch::LINE) / index(sizeof(S));
        if (p.by_rows) return {piece_, p.groups, false, 1, room_for<S>(piece_)};
        if (brings_folds()) return {p.groups * p.span, p.rows, true, 1, PANEL};
        return {std::min(p.groups * p.span, 3 * tile_ / 2 + LINE), COLUMN_BLOCK, false, 1, PANEL};
    }

    // Elements lie on cache lines where the results' do, so that a row cut into lines fits both; and quarters of a page off
    // them, since a load that lies just before a pending store within its page waits for it.
    void cut_scales(Cutter& cutter, Scales<T>& by, index n) const {
        std::uintptr_t eighths = 0;
        for (T** array : {&by.min, &by.max, &by.scale, &by.before, &by.after})
            *array = cut_beside<T>(cutter, p.y, n, eighths += 2);
    }

    // f(piece, row, group, column, pieces, elements) for runs of pieces that lie evenly spaced.
    template <class F>
    void each_run(const Team& team, bool backwards, const F& f) const {
        const index pieces = p.rows * width_;
        for (index first = team.from(pieces), end = team.to(pieces); first < end;) {
            const index at = backwards ? end - 1 : first, place = at % width_;
            const index run =
                inner_ > 1 ? 1 : std::min({end - first, backwards ? place + 1 : width_ - place, brought_.rows()});
            const index piece = backwards ? end - run : first, column = place % inner_ * piece_;
            f(piece, at / width_, piece % width_ / inner_, column, run, std::min(piece_, p.span - column));
            (backwards ? end : first) += backwards ? -run : run;
        }
    }

    Matrix<const S> piece_of_rows(const Team& team, const S* x, index row, index group, index column, index run,
                                  index n) const {
        return brought_(team, x + row * p.x_row + group * p.x_group + column * p.x_element, p.x_group, run, n);
    }

    void row_extremes(const Team& team, const S* x) {
        each_run(team, false, [&](index piece, index row, index group, index column, index run, index n) {
            const Matrix<const S> of = piece_of_rows(team, x, row, group, column, run, n);
            k.rows_extremes({of.at, run, n, of.stride, pieces_ + piece, pieces_ + p.rows * width_ + piece, stream_});
        });
    }

    void column_extremes(const Team& team, const S* x) {
        const index tiles = ceil_div(cols_, tile_), stride = folds_ * p.x_row;
        team.each(blocks_ * tiles, [&](index task) {
            const index block = task / tiles, row = block * block_, column = task % tiles * tile_;
            const index rows = std::min(block_, rows_ - row), cols = std::min(tile_, cols_ - column);
            T *min = pieces_ + 2 * block * cols_ + column, *max = min + cols_;
            const S* at = x + row * stride + column * p.x_element;
            if (turned()) return k.rows_extremes({at, cols, rows, p.x_element, min, max, stream_});
            const Matrix<const S> of = brought_(team, at, stride, rows, cols);
            k.columns_extremes({of.at, rows, cols, of.stride, min, max, stream_});
        });
        if (rest_ && team.id == team.size - 1)
            k.columns_extremes(
                {x + rows_ * stride, rest_, width_, p.x_row, merged_ + 2 * cols_, merged_ + 2 * cols_ + width_});
    }

    // Whether rows lie beside each other, and columns end to end.
    bool turned() const { return brought_ && p.x_row == 1; }

    // The extremes of extremes, the least and the greatest together.
    void merge(const Team& team) {
        team.each(ceil_div(cols_, GROUP_TILE), [&](index task) {
            const index at = task * GROUP_TILE;
            merge_.columns_extremes(
                {pieces_ + at, 2 * blocks_, std::min(GROUP_TILE, cols_ - at), cols_, merged_ + at, merged_ + cols_ + at});
        });
        team.barrier();
        if (folds_ > 1) {
            const index at = team.from(width_);
            merge_.columns_extremes({merged_ + at, 2 * folds_ + (rest_ ? 2 : 0), team.to(width_) - at, width_, folded_ + at,
                                     folded_ + width_ + at});
            team.barrier();
        }
        team.each(ceil_div(p.groups, GROUP_TILE), [&](index task) {
            const index group = task * GROUP_TILE, n = std::min(GROUP_TILE, p.groups - group);
            const T *min = (folds_ > 1 ? folded_ : merged_) + group * inner_, *max = min + width_;
            if (inner_ > 1) {
                merge_.rows_extremes({min, n, inner_, inner_, found_ + group, nullptr});
                merge_.rows_extremes({max, n, inner_, inner_, nullptr, found_ + p.groups + group});
                min = found_ + group;
                max = min + p.groups;
            }
            if (!k.finish_extremes({n, min, max, ends_, from(by_, group, true)})) ranged_.store(true);
        });
        team.barrier();
    }

    void apply_rows(const Team& team, const S* x, S* y) {
        const bool ranged = ranged_.load();
        // From the end to the beginning: what was read last is the likeliest to be in the cache still.
        each_run(team, true, [&](index, index row, index group, index column, index run, index n) {
            const Matrix<const S> of = piece_of_rows(team, x, row, group, column, run, n);
            k.rows_scale({of.at, y + row * p.y_row + group * p.y_group + column, run, n, of.stride, p.y_group,
                          from(by_, group, ranged), ends_, stream_});
        });
    }

    // An element a group becomes an element a column.
    void expand(const Team& team) const {
        if (wide_.min == by_.min) return;
        team.each(applied_folds_, [&](index fold) {
            const auto one = [&](T* to, const T* of) {
                for (index g = 0; g < p.groups; ++g) std::fill_n(to + fold * width_ + g * inner_, inner_, of[g]);
            };
            one(wide_.min, by_.min);
            one(wide_.max, by_.max);
            one(wide_.scale, by_.scale);
            if (!ranged_.load()) return;
            one(wide_.before, by_.before);
            one(wide_.after, by_.after);
        });
        team.barrier();
    }

    void apply_columns(const Team& team, const S* x, S* y) {
        expand(team);
        const bool ranged = ranged_.load();
        const index folds = applied_folds_, cols = folds * width_, rows = p.rows / folds, rest = p.rows % folds;
        const auto apply = [&](index row, index count, index each, index column, index n) {
            const Matrix<const S> of =
                brought_(team, x + row * p.x_row + column * p.x_element, p.x_row, count * each, each > 1 ? width_ : n);
            k.columns_scale({of.at, y + row * p.y_row + column, count, n, each * of.stride, each * p.y_row,
                             from(wide_, column, ranged), ends_, stream_});
        };
        // Tiles end on cache lines of y.
        const index lead = index((0 - reinterpret_cast<std::uintptr_t>(y)) % Scratch::LINE / sizeof(S));
        const bool whole = 2 * cols <= 3 * tile_ || brings_folds() ||
                           (!brought_ && writes_whole(stream_, 2 * p.rows * width_ * index(sizeof(S))));
        const index tiles = whole ? 1 : ceil_div(cols - lead, tile_),
                    block = std::min(COLUMN_BLOCK, brought_.rows() / folds);
        team.each_backwards(ceil_div(rows, block) * tiles, [&](index task) {
            const index row = task / tiles * block, tile = task % tiles;
            const index first = tile ? lead + tile * tile_ : 0, last = tile + 1 < tiles ? lead + (tile + 1) * tile_ : cols;
            apply(row * folds, std::min(block, rows - row), folds, first, last - first);
        });
        if (rest && team.id == 0) apply(rows * folds, rest, 1, 0, width_);
    }

    const MinMax<S>& of_;
    const Groups<S>& p;
    const Ends<T> ends_;
    const Kernels<S>& k;
    const Kernels<T>& merge_;
    const bool stream_;
    const index piece_;
    Brought<S> brought_;
    index width_ = 0, cols_ = 0, inner_ = 1, blocks_ = 0, block_ = 0, rows_ = 0, rest_ = 0, folds_ = 1;
    index applied_folds_ = 1;
    T *pieces_ = nullptr, *merged_ = nullptr, *folded_ = nullptr, *found_ = nullptr;
    Scales<T> by_ = {}, wide_ = {};
    std::atomic<bool> ranged_{false};
};

}   // namespace

template <class S>
MinMax<S> min_max_of(const View& view, const S* x, S* y, Ends<Arith<S>> ends) {
    MinMax<S> p = {view, groups_of(view, x, y), ends};
    if (view.kind != Kind::rows) return p;
    p.at.problems = view.size[0];
    p.at.x_problem = view.stride[0][0];
    p.at.rows = 1;
    return p;
}

template <class S>
void solve(const MinMax<S>& given) {
    const Groups<S>& p = given.at;
    const index bytes = p.problems * p.rows * p.groups * p.span * index(sizeof(S)) * 2;
    const int threads = threads_for(bytes, p.problems == 1 && !(p.by_rows && p.rows == 1));
    const bool stream = streams(p.x, p.y, bytes, threads);
    const index rows = p.problems * p.groups;
    if (p.by_rows && p.rows == 1 && (threads == 1 || rows >= SHARE * threads || p.span < 2 * SHORTEST)) {
        const int members = static_cast<int>(std::min<index>(threads, rows));
        Brought<S> brought(p.x_element, {p.span, p.groups, false, 1, room_for<S>(p.span)}, members);
        Cutter counter(nullptr);
        brought.cut(counter);
        const Scratch scratch(counter.used());
        Cutter cutter(scratch.data());
        brought.cut(cutter);
        return run_team(members, [&](const Team& team) { scale_rows(team, given, kernels<S>(), stream, brought); });
    }
    Whole<S> all(p);
    MinMax<S> problem = given;
    problem.at = all.brought();
    // Many problems: each thread solves whole ones. Few: all threads solve each together.
    const bool whole = p.problems >= threads;
    std::vector<std::unique_ptr<Scaler<S>>> scalers;
    for (int i = 0; i < (whole ? threads : 1); ++i)
        scalers.push_back(std::make_unique<Scaler<S>>(problem, whole ? 1 : threads, stream));
    Cutter counter(nullptr);
    all.cut(counter);
    for (auto& scaler : scalers) scaler->cut(counter);
    const Scratch scratch(counter.used());
    Cutter cutter(scratch.data());
    problem.at.x = all.cut(cutter);
    for (auto& scaler : scalers) scaler->cut(cutter);
    run_team(threads, [&](const Team& team) {
        all.bring(team);
        if (whole)
            team.each(p.problems, [&](index number) { scalers[static_cast<std::size_t>(team.id)]->run(Team{}, number); });
        else
            for (index number = 0; number < p.problems; ++number) scalers[0]->run(team, number);
    });
}

#define ONEPASS_INSTANTIATE(S)                                                \
    template MinMax<S> min_max_of(const View&, const S*, S*, Ends<Arith<S>>); \
    template void solve(const MinMax<S>&);
ONEPASS_INSTANTIATE(float)
ONEPASS_INSTANTIATE(double)
ONEPASS_INSTANTIATE(Float16)
ONEPASS_INSTANTIATE(BFloat16)
#undef ONEPASS_INSTANTIATE

}   // namespace onepass
