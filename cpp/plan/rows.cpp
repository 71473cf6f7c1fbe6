// Rows over threads. A row is whole in one thread, and its bits are its own.
#include "plan/rows.hpp"

#include <algorithm>
#include <optional>

#include "dispatch/dispatch.hpp"
#include "kernels/moments.hpp"
#include "plan/beside.hpp"
#include "plan/machine.hpp"
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

bool writes_whole(bool stream, index bytes) { return stream && !roomy_first_cache && beyond_caches(bytes); }
bool moments_send(index bytes) { return roomy_first_cache ? beyond_caches(2 * bytes) : beyond_nearer_caches(bytes); }

index rows_ahead(index sent, index cols, index size) { return (sent - 1) / (cols * size) + 1; }

namespace {

constexpr index STRIP = 64;   // rows whose moments are kept before they are put in their place

// f(row, x, y, rows) for runs of evenly spaced rows, from row `from` to row `to`.
template <class S, class F>
void each_run(const Rows<S>& p, index from, index to, index longest, const F& f) {
    const View& v = p.view;
    for (index row = from; row < to;) {
        const index outer = row / v.size[1], inner = row % v.size[1];
        const index run = std::min({v.size[1] - inner, to - row, longest});
        f(row, p.x + outer * v.stride[0][0] + inner * v.stride[0][1],
          p.y ? p.y + outer * v.stride[1][0] + inner * v.stride[1][1] : nullptr, run);
        row += run;
    }
}

template <class S>
void norm_rows(const Rows<S>& p, const Kernels<S>& k, index from, index to, bool stream, bool beyond, bool far, bool across,
               Arith<S>* held) {
    const View& v = p.view;
    const bool segments = p.affine.segment > 1 && (p.affine.weight || p.affine.bias);
    const auto norm = p.residual ? k.rows_add_norm : segments ? k.rows_norm_segments : k.rows_norm;
    each_run(p, from, to, to - from, [&](index row, const S* x, S* y, index rows) {
        const index outer = row / v.size[1], inner = row % v.size[1];
        const auto offset = [&](int operand) { return outer * v.stride[operand][0] + inner * v.stride[operand][1]; };
        RowAffine<Arith<S>> affine = p.affine;
        affine.first = row % affine.period;
        const index ahead = rows_ahead(stream ? SENT_FAR : SENT_NEAR, v.size[2], sizeof(S));
        Arith<S>*mean = p.mean ? p.mean + row : nullptr, *rstd = p.rstd ? p.rstd + row : nullptr;
        const S* residual = p.residual ? p.residual + offset(2) : nullptr;
        S* sum = p.sum ? p.sum + offset(3) : nullptr;
        norm({x,          y,      rows,     v.size[2], v.stride[0][1], v.stride[1][1], affine,
              p.how,      mean,   rstd,     stream,    ahead,          beyond,         far,
              p.centered, across, residual, sum,       v.stride[2][1], v.stride[3][1], held});
    });
}

template <class S>
void moments_of_rows(const Rows<S>& p, const Kernels<S>& k, index from, index to, bool beyond) {
    const View& v = p.view;
    const double of_count = 1.0 / double(v.size[2]);
    each_run(p, from, to, STRIP, [&](index row, const S* x, S*, index rows) {
        double *mean = p.moments.mean + row, *low = p.moments.low + row, *m2 = p.moments.m2 + row;
        k.rows_moments({x, rows, v.size[2], v.stride[0][1], {1, 1}, mean, low, m2, beyond});
        for (index i = 0; i < rows; ++i) {
            using T = Arith<S>;
            Range range = {1, 1};
            if (!finish<T>(of_count, mean[i], low[i], m2[i], {0, 0}, 1, 1).in_range) {
                range = other_range<T>(m2[i]);
                k.rows_moments({x + i * v.stride[0][1], 1, v.size[2], 0, range, mean + i, low + i, m2 + i, false});
            }
            to_true_units(range, mean[i], low[i], m2[i]);
        }
    });
}

// How many elements of weight, and of bias, all rows together use.
template <class S>
index affine_size(const Rows<S>& p) {
    return p.affine.period * (p.view.size[2] / p.affine.segment);
}

// Whether rows of y are short. (Of sums, only such as are half as long: there are as many stores again. Of those that are
// streamed in 32 bits, the longest have enough lines of their own.)
template <class S>
bool writes_across(const Rows<S>& p, bool stream) {
    constexpr bool HALF = sizeof(S) == 2;
    constexpr index LINE = Scratch::LINE;
    const index bytes = p.view.size[2] * index(sizeof(S));
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
        const bool many = p.view.size[0] * p.view.size[1] >= MANY * affine.period && affine.segment == 1;
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
void solve(const Rows<S>& given) {
    Rows<S> p = given;
    const Kernels<S>& k = kernels<S>();
    const index rows = p.view.size[0] * p.view.size[1];
    const index bytes = p.view.elements() * index(sizeof(S)) * (p.residual ? 4 : p.y ? 2 : 1);
    const int threads = static_cast<int>(std::min<index>(threads_for(bytes), rows));
    // (Small first caches are known from a Zen 4, whose vectors take two turns each: rows compute for longer than a copy.)
    const bool computes = !roomy_first_cache || sizeof(S) != sizeof(Arith<S>);
    const auto goes_past = [&](const S* to) { return streams(p.x, to, bytes, threads, computes); };
    const bool stream = p.y && goes_past(p.y) && (!p.sum || (goes_past(p.sum) && p.sum != p.residual));
    const bool beyond = beyond_nearer_caches(bytes);
    const bool across = writes_across(p, stream);
    const Parameters<S> parameters(p, across);
    p.affine = parameters.affine;
    // For each thread a row of sums, which are not to be read where they are streamed to. (They are written at the same
    // time, and so at the same place in a page: what is read has the rest of it.)
    const Beside<Arith<S>> row(p.sum, p.view.size[2]);
    const std::size_t each = row.bytes();
    std::optional<Scratch> sums;
    if (p.residual && stream) sums.emplace(each * std::size_t(threads));
    run_team(threads, [&](const Team& team) {
        const index from = team.from(rows), to = team.to(rows);
        if (from == to) return;
        if (p.y)
            norm_rows(p, k, from, to, stream, beyond, beyond_caches(bytes), across,
                      sums ? row.place(sums->data() + each * std::size_t(team.id), 0) : nullptr);
        else
            moments_of_rows(p, k, from, to, moments_send(bytes));
    });
}

template void solve(const Rows<float>&);
template void solve(const Rows<double>&);
template void solve(const Rows<Float16>&);
template void solve(const Rows<BFloat16>&);

}   // namespace onepass
