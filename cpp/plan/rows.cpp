// Rows over threads. A row is whole in one thread, and its bits are its own.
#include "plan/rows.hpp"

#include <algorithm>
#include <optional>

#include "dispatch/dispatch.hpp"
#include "kernels/moments.hpp"
#include "plan/beside.hpp"
#include "plan/machine.hpp"
#include "plan/panel.hpp"
#include "plan/threads.hpp"

namespace onepass {

// Others use the last-level cache, too, and who asks for less gets a smaller share, so one thread alone may have less of
// it. What crowds it costs twice the time of what goes past it; and so does what goes past it needlessly, unless there is
// arithmetic to wait for. (As measured where the first cache is small, and where it is roomy.)
index kept_in_caches(int threads, bool computes) {
    const index one = computes ? 4 : 7, several = computes ? 8 : roomy_first_cache ? 12 : 10;
    return static_cast<index>(last_level_cache()) / 16 * (threads == 1 ? one : several);
}

bool beyond_nearer_caches(index bytes) { return static_cast<std::size_t>(bytes) > last_level_cache() / 4; }
bool beyond_caches(index bytes) { return static_cast<std::size_t>(bytes) > last_level_cache(); }

bool mostly_beyond_caches(index bytes) { return static_cast<std::size_t>(bytes) > last_level_cache() * 5 / 8; }

bool writes_whole(bool stream, index bytes) { return stream && !roomy_first_cache && beyond_caches(bytes); }
bool moments_send(index bytes) { return roomy_first_cache ? beyond_caches(2 * bytes) : beyond_nearer_caches(bytes); }
bool columns_send(index bytes, bool converted) {
    if (roomy_first_cache || converted) return moments_send(bytes);
    return static_cast<std::size_t>(bytes) > last_level_cache() / 16 * 7;
}

index rows_ahead(index sent, index cols, index size) { return (sent - 1) / (cols * size) + 1; }

namespace {

constexpr index STRIP = 64;   // rows whose moments are kept before they are put in their place

// f(row, rows, offset) for runs of evenly spaced rows, from row `from` to row `to`; offset(operand) is the first one's.
// even: all rows are.
template <class F>
void each_run(const View& v, index from, index to, index longest, bool even, const F& f) {
    for (index row = from; row < to;) {
        const index outer = row / v.size[1], inner = row % v.size[1];
        const index run = std::min(even ? to - row : std::min(v.size[1] - inner, to - row), longest);
        f(row, run, [&](int operand) { return v.offset(operand, outer) + inner * v.stride[operand][1]; });
        row += run;
    }
}

// Rows that are brought into a panel before they are read: those whose elements, or pieces, lie apart; and such as lie in
// short runs, as the heads of a token do within an array that holds other things, too: few, and not as many as kernels
// join, or from afar.
template <class S>
bool elements_apart(const Rows<S>& p) {
    return p.view.stride[0][2] != 1 || (p.residual && p.view.stride[2][2] != 1);
}
// Rows that are written into it, over what has been read, and from there to where they belong.
template <class S>
bool results_apart(const Rows<S>& p) {
    const index(&stride)[3] = p.view.stride[1];
    return p.y && (stride[2] != 1 || (p.pieces > 1 && stride[1] != p.view.size[2]));
}
template <class S>
bool short_runs(const Rows<S>& p, bool beyond) {
    constexpr index FEW = 32, WIDEST = 1 << 10;   // rows, bytes
    const View& v = p.view;
    const bool few = v.size[1] < FEW && v.size[0] >= JOINED_ROWS && (v.size[1] % JOINED_ROWS != 0 || beyond);
    return sizeof(Arith<S>) == 4 && few && !v.even(0) && v.even(1) && v.size[2] * index(sizeof(S)) <= WIDEST;
}

template <class S>
struct Run {
    index first, rows;   // of all rows
    Matrix<const S> x, residual;
    Matrix<S> y, sum;
};

// f(run) for runs of evenly spaced rows, from row `from` to row `to`; of those in the panel, if there is one.
template <class S, class F>
void each_run(const Rows<S>& p, index from, index to, index longest, const Panel<S>* panel, const F& f) {
    const View& v = p.view;
    const auto lie = [&](auto* array, int operand, const auto& offset) {
        return Matrix<std::remove_pointer_t<decltype(array)>>{array ? array + offset(operand) : nullptr,
                                                              v.stride[operand][1]};
    };
    if (!panel)
        return each_run(v, from, to, longest, false, [&](index row, index n, const auto& offset) {
            f(Run<S>{row, n, lie(p.x, 0, offset), lie(p.residual, 2, offset), lie(p.y, 1, offset), lie(p.sum, 3, offset)});
        });
    const bool even = v.even(1) && v.even(3), back = results_apart(p);
    const index n = p.pieces, cols = v.size[2];
    for (index start = from, end = from; start < to; start = end) {
        end = std::min(to, start + std::min(longest, panel->rows() / n));
        const auto each_piece = [&](bool as_one, const auto& g) { each_run(v, start * n, end * n, end * n, as_one, g); };
        const auto in_panel = [&](int array, index row) {
            return Matrix<const S>{panel->row(array, (row - start) * n), panel->stride() * n};
        };
        each_piece(false, [&](index piece, index run, const auto& offset) {
            const auto bring = [&](int array, const S* from, int operand) {
                const index(&stride)[3] = v.stride[operand];
                if (from) panel->fill(array, piece - start * n, from + offset(operand), stride[1], stride[2], run, cols);
            };
            bring(0, p.x, 0);
            bring(1, p.residual, 2);
        });
        if (!back) {
            each_piece(even, [&](index piece, index run, const auto& offset) {
                const index row = piece / n;
                Matrix<S> y = lie(p.y, 1, offset), sum = lie(p.sum, 3, offset);
                y.stride *= n;
                f(Run<S>{row, run / n, in_panel(0, row), in_panel(1, row), y, sum});
            });
            continue;
        }
        f(Run<S>{start, end - start, in_panel(0, start), {}, {panel->row(0, 0), panel->stride() * n}, {}});
        each_piece(false, [&](index piece, index run, const auto& offset) {
            const index(&stride)[3] = v.stride[1];
            panel->empty(0, piece - start * n, p.y + offset(1), stride[1], stride[2], run, cols);
        });
    }
}

template <class S>
void norm_rows(const Rows<S>& p, const RowAffine<Arith<S>>& given, const Kernels<S>& k, index from, index to, bool stream,
               bool beyond, bool far, bool across, const Panel<S>* panel, Arith<S>* held) {
    const index cols = p.cols(), ahead = rows_ahead(stream ? SENT_FAR : SENT_NEAR, cols, sizeof(S));
    const bool segments = given.segment > 1 && (given.weight || given.bias);
    const auto norm = p.residual ? k.rows_add_norm : segments ? k.rows_norm_segments : k.rows_norm;
    each_run(p, from, to, to - from, panel, [&](const Run<S>& run) {
        RowAffine<Arith<S>> affine = given;
        affine.first = run.first % affine.period;
        Arith<S>*mean = p.mean ? p.mean + run.first : nullptr, *rstd = p.rstd ? p.rstd + run.first : nullptr;
        norm({run.x.at,
              run.y.at,
              run.rows,
              cols,
              run.x.stride,
              run.y.stride,
              affine,
              p.how,
              mean,
              rstd,
              stream,
              ahead,
              beyond,
              far,
              p.centered,
              across,
              p.residual ? run.residual.at : nullptr,
              run.sum.at,
              run.residual.stride,
              run.sum.stride,
              held});
    });
}

template <class S>
void moments_of_rows(const Rows<S>& p, const Kernels<S>& k, index from, index to, bool beyond, const Panel<S>* panel) {
    const index cols = p.cols();
    const double of_count = 1.0 / double(cols);
    each_run(p, from, to, STRIP, panel, [&](const Run<S>& run) {
        double *mean = p.moments.mean + run.first, *low = p.moments.low + run.first, *m2 = p.moments.m2 + run.first;
        const Underflow underflow;
        k.rows_moments({run.x.at, run.rows, cols, run.x.stride, {1, 1}, mean, low, m2, beyond});
        const bool vanished = underflow.seen();
        for (index i = 0; i < run.rows; ++i) {
            using T = Arith<S>;
            Range range = {1, 1};
            if (!finish<T>(of_count, mean[i], low[i], m2[i], {0, 0}, 1, 1).in_range &&
                (vanished || !seem_zero(mean[i], low[i], m2[i], {0, 0}))) {
                range = other_range<T>(m2[i]);
                k.rows_moments({run.x.at + i * run.x.stride, 1, cols, 0, range, mean + i, low + i, m2 + i, false});
            }
            to_true_units(range, mean[i], low[i], m2[i]);
        }
    });
}

// How many elements of weight, and of bias, all rows together use.
template <class S>
index affine_size(const Rows<S>& p) {
    return p.affine.period * (p.cols() / p.affine.segment);
}

// Whether rows of y are short. (Of sums, only such as are half as long: there are as many stores again. Of those that are
// streamed in 32 bits, the longest have enough lines of their own.)
template <class S>
bool writes_across(const Rows<S>& p, bool stream) {
    constexpr bool HALF = sizeof(S) == 2;
    constexpr index LINE = Scratch::LINE;
    const index bytes = p.cols() * index(sizeof(S));
    if (stream) {
        const bool whole = bytes % LINE == 0 && line_of(p.y) == p.y;
        return sizeof(Arith<S>) == 4 && !whole && p.view.stride[1][1] == p.view.size[2] &&
               (bytes < GATHERED_ROW || (HALF && bytes == GATHERED_ROW));
    }
    return bytes <= (!p.residual ? SHORT_ROW : HALF ? SHORT_ROW / 2 : SHORT_ROW / 2 - LINE);
}

// Weight and bias are read once a row, beside whole cache lines of y, so many rows take copies that lie as y does; in 16
// bits, where arithmetic takes longer, only if all rows begin at the same place within a line. A bias without a weight gets
// one of ones, too: the kernels know no other. (Rows that are written ACROSS lines have them on lines.)
template <class S>
class Parameters {
    using T = Arith<S>;
    static constexpr bool HALF = sizeof(S) < sizeof(T);
    static constexpr index MANY = HALF ? 32 : 8;   // rows

  public:
    explicit Parameters(const Rows<S>& p, bool across) : affine(p.affine) {
        const index n = affine_size(p);
        const Beside<T> beside(across ? line_of(p.y) : p.y, n);
        const bool apart = (affine.weight && !beside.fits(affine.weight)) || (affine.bias && !beside.fits(affine.bias));
        const bool many = p.rows() >= MANY * affine.period && affine.segment == 1;
        const bool alike = !HALF || across || p.view.stride[1][1] * index(sizeof(S)) % index(Scratch::LINE) == 0;
        if (!(affine.bias && !affine.weight) && !(affine.weight && many && apart && alike)) return;
        scratch_.emplace(2 * beside.bytes());
        T* weight = beside.place(scratch_->data(), 2);
        if (affine.weight)
            std::copy_n(affine.weight, n, weight);
        else
            std::fill_n(weight, n, T(1));
        affine.weight = weight;
        if (affine.bias) affine.bias = std::copy_n(affine.bias, n, beside.place(scratch_->data() + beside.bytes(), 4)) - n;
    }

  private:
    std::optional<Scratch> scratch_;

  public:
    RowAffine<T> affine;
};

}   // namespace

template <class S>
void solve(const Rows<S>& p) {
    const Kernels<S>& k = kernels<S>();
    const index rows = p.rows(), cols = p.cols();
    const index bytes = p.view.elements() * index(sizeof(S)) * (p.residual ? 4 : p.y ? 2 : 1);
    const int threads = static_cast<int>(std::min<index>(threads_for(bytes), rows));
    // (Small first caches are known from a Zen 4, whose vectors take two turns each: rows compute for longer than a copy.)
    const bool computes = !roomy_first_cache || sizeof(S) != sizeof(Arith<S>);
    const auto goes_past = [&](const S* to) { return streams(p.x, to, bytes, threads, computes); };
    const bool back = results_apart(p);
    const bool stream = p.y && !back && goes_past(p.y) && (!p.sum || (goes_past(p.sum) && p.sum != p.residual));
    const bool beyond = beyond_nearer_caches(bytes);
    const bool across = writes_across(p, stream);
    const Parameters<S> parameters(p, across);
    // For each thread, what it brings side by side, and a row of sums, which are not to be read where they are streamed to.
    // (They are written at the same time, and so at the same place in a page: what is read has the rest of it.)
    const bool apart = back || elements_apart(p), brings = apart || p.pieces > 1 || short_runs(p, beyond);
    std::optional<Panel<S>> panel;
    if (brings)
        panel.emplace(p.view.size[2], ceil_div(rows, threads) * p.pieces, !apart || p.pieces > 1, p.residual ? 2 : 1,
                      room_for<S>(p.view.size[2]), p.pieces);
    const Beside<Arith<S>> row(p.sum, cols);
    const std::size_t room = brings ? panel->bytes() : 0, each = room + (p.residual && stream ? row.bytes() : 0);
    std::optional<Scratch> scratch;
    if (each) scratch.emplace(each * std::size_t(threads));
    run_team(threads, [&](const Team& team) {
        const index from = team.from(rows), to = team.to(rows);
        if (from == to) return;
        char* own = each ? scratch->data() + each * std::size_t(team.id) : nullptr;
        std::optional<Panel<S>> near;
        if (panel) near = panel->at(own);
        const Panel<S>* by = near ? &*near : nullptr;
        if (p.y)
            norm_rows(p, parameters.affine, k, from, to, stream, beyond && !brings, !brings && beyond_caches(bytes), across,
                      by, each > room ? row.place(own + room, 0) : nullptr);
        else
            moments_of_rows(p, k, from, to, !brings && moments_send(bytes), by);
    });
}

template void solve(const Rows<float>&);
template void solve(const Rows<double>&);
template void solve(const Rows<Float16>&);
template void solve(const Rows<BFloat16>&);

}   // namespace onepass
