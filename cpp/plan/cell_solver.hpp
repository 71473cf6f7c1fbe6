// How groups of cells are solved by a team: pieces, cells, groups, apply.
//
// For the gradient, with A = sum(dy weight (x - mean)) and B = sum(dy weight) of a group of `count` elements,
//
//   dx = (dy weight - B / count - (x - mean) A rstd^2 / count) rstd
//
// where a weight that is the same for all of a group goes to the end of it. An element that the statistics did not see
// (masked, or statistics given) has no part in them: dx = dy weight rstd.
// Invariant: pieces and the order of merging depend on the shape alone.
#pragma once

#include <atomic>
#include <cstdint>

#include "plan/cell_moments.hpp"

namespace onepass {

constexpr index GRADIENT_TILE = 512;   // columns that one task writes

template <class S>
class CellSolver {
    using T = Arith<S>;

  public:
    CellSolver(const Cells<S>& problem, const Kernels<S>& kernels, bool stream)
        : p(problem),
          k(kernels),
          stream_(stream),
          alike_(p.dy && p.y && !p.weighing && !p.given_mean && !p.moments.mean),
          of_(problem, kernels, stream),
          shape_(of_.shape) {}

    void cut(Cutter& cutter) {
        of_.cut(cutter);
        std::uintptr_t eighths = 0;
        for (T** array : {&at_.mean, &at_.low, &at_.scale, &at_.before, &at_.after, &shift_, &slope_})
            *array = cut_beside<T>(cutter, p.y, shape_.cell_rows * shape_.width, ++eighths);
        of_.set_ranges(at_.before, at_.after);
        weight_ = cut_beside<T>(cutter, p.y, shape_.width, 5);
        bias_ = cut_beside<T>(cutter, p.y, shape_.width, 4);
    }

    void run(const Team& team) {
        prepare(team);
        for (const bool ranged : {false, true}) {
            const Underflow underflow;
            of_.take(team, ranged);
            // (What a member has merged it finishes itself, where nothing else belongs to it.)
            if (alike_) {
                if (p.members > 1) team.barrier();
                const index tiles = ceil_div(shape_.strip / p.members, MERGED);
                team.each(shape_.strips * tiles, [&](index task) { finish_alike(task, ranged); });
            } else {
                team.barrier();
                team.each(shape_.cell_rows * (p.channels / p.members), [&](index group) { finish_group(group, ranged); });
            }
            if (underflow.seen()) vanished_.store(true);
            team.barrier();
            if (zero_.load() && vanished_.load()) out_of_range_.store(true);
            if (!out_of_range_.load()) break;
        }
        if (p.dweight) team.each(ceil_div(p.channels, MERGED), [&](index task) { sum_samples(task); });
        if (!p.y) return;
        p.channels_last ? apply_columns(team) : apply_rows(team);
    }

  private:
    void prepare(const Team& team) {
        team.each(shape_.cell_rows, [&](index row) {
            std::fill_n(at_.before + row * shape_.width, shape_.width, T(1));
            std::fill_n(at_.after + row * shape_.width, shape_.width, T(1));
        });
        if (team.id == 0)
            for (index fold = 0; fold < shape_.folds; ++fold)
                for (index from = fold * p.channels, i = 0; i < p.channels; ++i) {
                    weight_[from + i] = p.weight ? p.weight[i] : T(1);
                    bias_[from + i] = p.bias ? p.bias[i] : T(0);
                }
        team.barrier();
    }

    // ---- groups ----

    void finish_group(index number, bool ranged) {
        const index of_row = p.channels / p.members, row = number / of_row, channel = number % of_row * p.members;
        const index cell = row * p.channels + channel, line = row * shape_.width + channel, n = p.members;
        const Range range = {double(at_.before[line]), double(at_.after[line])};
        const Moments m =
            n == 1 ? Moments{of_.count[cell], of_.mean[cell], of_.low[cell], of_.m2[cell]}
                   : merge_parts(of_.count + cell, of_.mean + cell, of_.low + cell, of_.m2 + cell, n, range.after);
        Finished f = finish<T>(inverse_freedom(m.count, p.how), m.mean, m.low, m.m2, p.how, range.before, range.after);
        if (p.given_mean) {
            const T given = p.given_mean[number];
            f = {double(given), 0.0, 1.0 / __builtin_sqrt(double(p.given_var[number]) + p.how.eps), 0.0, 0.0, true};
        } else if (!ranged && !f.in_range) {
            const Range other = other_range<T>(m.m2);
            for (index i = 0; i < shape_.folds; ++i) {
                std::fill_n(at_.before + line + i * p.channels, n, T(other.before));
                std::fill_n(at_.after + line + i * p.channels, n, T(other.after));
            }
            (seem_zero(m.mean, m.low, m.m2, p.how) ? zero_ : out_of_range_).store(true);
        }
        if (m.count == 0) f.mean = f.true_mean = __builtin_nan("");
        if (p.mean) p.mean[number] = T(f.true_mean);
        if (p.rstd) p.rstd[number] = T(f.rstd);
        if (p.moments.mean) put_moments(number, m, range);
        if (p.y) put_line(cell, line, m, f);
    }

    void put_moments(index number, Moments m, const Range& range) const {
        to_true_units(range, m.mean, m.low, m.m2);
        const Pair mean = two_sum(m.mean, m.low);
        const bool nothing = m.count == 0;
        p.moments.mean[number] = nothing ? __builtin_nan("") : mean.high;
        p.moments.low[number] = nothing ? 0.0 : mean.low;
        p.moments.m2[number] = nothing ? 0.0 : m.m2;
        if (p.count) p.count[number] = m.count;
    }

    // The same for neighbouring groups, all of as many elements, in vectors.
    void finish_alike(index task, bool ranged) {
        const index m = p.members, of_strip = shape_.strip / m, tiles = ceil_div(of_strip, MERGED), row = task / tiles,
                    from = task % tiles * MERGED, n = std::min(MERGED, of_strip - from);
        const index cell = row * p.channels + from * m, line = row * shape_.width + from * m;
        const double held = of_.count[cell], count = held * double(m);
        T lines[5][MERGED], shift[MERGED], slope[MERGED];
        double merged[3][MERGED], scale[MERGED];
        Lines<T> at = {lines[0], lines[1], lines[2], nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
        if (ranged) {
            at.before = lines[3];
            at.after = lines[4];
            for (index i = 0; i < n; ++i) at.before[i] = at_.before[line + i * m];
            for (index i = 0; i < n; ++i) at.after[i] = at_.after[line + i * m];
        }
        const double *mean = of_.mean + cell, *low = of_.low + cell, *m2 = of_.m2 + cell;
        if (m > 1) {
            k.merge_moments({mean, low, m2, m, 1, n, m, held, held, at.after, merged[0], merged[1], merged[2]});
            mean = merged[0];
            low = merged[1];
            m2 = merged[2];
        }
        if (!k.finish_groups({n, count, mean, low, m2, p.how, at, p.mean ? p.mean + cell / m : nullptr,
                              p.rstd ? p.rstd + cell / m : nullptr, scale})) {
            for (index i = 0; i < n; ++i) finish_group(cell / m + i, ranged);
            return;
        }
        double sums[2][MERGED];
        const double *sum = of_.sum + cell, *product = of_.product + cell;
        if (m > 1) {
            for (index i = 0; i < n; ++i)
                sum_cells(cell + i * m, line + i * m, mean[i], low[i], scale[i], sums[0][i], sums[1][i]);
            sum = sums[0];
            product = sums[1];
        }
        for (index i = 0; i < n; ++i) shift[i] = T(sum[i] / count);
        for (index i = 0; i < n; ++i) slope[i] = T(product[i] * scale[i] * scale[i] / count);
        if (m == 1) {
            for (index i = 0; i < n; ++i) of_.product[cell + i] *= scale[i];
            for (index i = 0, run = 0; p.weight && i < n; i += run) {
                const index channel = (from + i) % p.channels;
                run = std::min(n - i, p.channels - channel);
                for (index j = 0; j < run; ++j) at.scale[i + j] = T(scale[i + j] * double(p.weight[channel + j]));
            }
        }
        const auto spread = [&](const T* of, T* to) {
            for (index fold = 0; fold < shape_.folds; ++fold, to += p.channels)
                if (m == 1)
                    std::copy_n(of, n, to + line);
                else
                    for (index i = 0; i < n; ++i) std::fill_n(to + line + i * m, m, of[i]);
        };
        spread(at.mean, at_.mean);
        spread(at.low, at_.low);
        spread(at.scale, at_.scale);
        spread(shift, shift_);
        spread(slope, slope_);
        if (std::any_of(at.low, at.low + n, [](T low) { return low != 0; })) any_low_.store(true);
    }

    // B and A of a group of several cells, whose means differ from its own, and their parts of dweight.
    void sum_cells(index cell, index line, double mean, double low, double scale, double& b, double& a) const {
        const double after = double(at_.after[line]);
        const T* weight = p.members > 1 && p.weight ? p.weight + line % shape_.width : nullptr;
        b = a = 0.0;
        for (index i = 0; i < p.members; ++i) {
            const double d = (of_.mean[cell + i] - mean) * after + (of_.low[cell + i] - low);
            const double sum = of_.sum[cell + i], about = of_.product[cell + i] + sum * d,
                         w = weight ? double(weight[i]) : 1;
            b += w * sum;
            a += w * about;
            of_.product[cell + i] = about * scale;
        }
    }

    // The parameters of a group's cells, and what each of them adds to dweight and dbias.
    void put_line(index cell, index line, const Moments& m, const Finished& f) {
        const index n = p.members;
        double b = 0.0, a = 0.0;
        if (p.dy && n == 1 && !p.given_mean) {
            b = of_.sum[cell];
            a = of_.product[cell];
            of_.product[cell] *= f.scale;
        } else if (p.dy) {
            sum_cells(cell, line, p.given_mean ? f.mean : m.mean, p.given_mean ? 0.0 : m.low, f.scale, b, a);
        }
        const double gain = n == 1 && p.dy && p.weight ? f.scale * double(p.weight[line % shape_.width]) : f.scale;
        for (index fold = 0; fold < shape_.folds; ++fold)
            for (index i = line + fold * p.channels; i < line + fold * p.channels + n; ++i) {
                at_.mean[i] = T(f.mean);
                at_.low[i] = T(f.low);
                at_.scale[i] = T(gain);
                if (!p.dy) continue;
                shift_[i] = T(b / m.count);
                slope_[i] = T(a * f.scale * f.scale / m.count);
            }
        if (f.low != 0) any_low_.store(true);
    }

    void sum_samples(index task) const {
        const index from = task * MERGED, n = std::min(MERGED, p.channels - from);
        double dweight[MERGED] = {}, dbias[MERGED] = {};
        if (p.sums) {
            std::copy_n(p.sums + from, n, dweight);
            std::copy_n(p.bias_sums + from, n, dbias);
        }
        for (index row = 0; row < shape_.cell_rows; ++row)
            for (index j = 0; j < n; ++j) {
                dweight[j] += of_.product[row * p.channels + from + j];
                dbias[j] += of_.sum[row * p.channels + from + j];
            }
        for (index j = 0; j < n; ++j) {
            p.dweight[from + j] = T(dweight[j]);
            p.dbias[from + j] = T(dbias[j]);
        }
        if (p.sums) {
            std::copy_n(dweight, n, p.sums + from);
            std::copy_n(dbias, n, p.bias_sums + from);
        }
    }

    // ---- apply ----

    // Parameters from `line` on, of cells whose channels begin with `channel`.
    Lines<T> lines_at(index line, index channel) const {
        const bool ranged = out_of_range_.load(std::memory_order_relaxed);
        return {at_.mean + line,
                at_.low + line,
                at_.scale + line,
                ranged ? at_.before + line : nullptr,
                ranged ? at_.after + line : nullptr,
                weight_ + channel,
                bias_ + channel,
                nullptr,
                nullptr};
    }
    Gradient<S> gradient_at(const typename Cells<S>::Spot& at, index rows, index cols, index line, index channel,
                            bool plain) const {
        return {at.x,
                at.dy,
                at.y,
                rows,
                cols,
                at.x_row,
                at.dy_row,
                at.y_row,
                at_.mean + line,
                at_.low + line,
                at_.before + line,
                at_.after + line,
                shift_ + line,
                slope_ + line,
                at_.scale + line,
                p.members > 1 && p.weight ? weight_ + channel : nullptr,
                stream_,
                plain,
                any_low_.load(std::memory_order_relaxed),
                out_of_range_.load(std::memory_order_relaxed)};
    }

    const std::uint8_t* mask_of(index sample) const { return p.weighing.mask + sample * p.span; }

    // f(from, to, plain) for each run of places, of from..to of a sample, that the statistics saw, or did not see.
    template <class F>
    void each_seen(index sample, index from, index to, const F& f) const {
        if (!of_.weighted) return f(from, to, p.given_mean != nullptr);
        const std::uint8_t* mask = mask_of(sample);
        while (from < to) {
            index end = from + 1;
            while (end < to && mask[end] == mask[from]) ++end;
            f(from, end, !mask[from]);
            from = end;
        }
    }

    // Whether a sample was seen in runs so short, by its first ones, that to write all of it as if it was seen, and once
    // more what was not, is quicker than run by run.
    bool scattered(index sample) const {
        constexpr index SHORT = 64;
        if (!of_.weighted) return false;
        const std::uint8_t* mask = mask_of(sample);
        const index n = std::min<index>(p.span, 16 * SHORT);
        index runs = 1;
        for (index i = 1; i < n; ++i) runs += mask[i] != mask[i - 1];
        return runs > 1 && runs * SHORT > n;
    }

    void apply_rows(const Team& team) const {
        const bool joined = p.dy && !of_.weighted && p.dense();
        shape_.each_run(team, 1, joined, [&](index sample, index, index channel, index cells) {
            const index line = shape_.cell_row(sample) * shape_.width + channel;
            if (p.dy) {
                const bool twice = scattered(sample);
                const auto write_dx = [&](index from, index to, bool plain) {
                    auto call = gradient_at(p.spot(sample, channel, from), cells, to - from, p.across ? 0 : line, 0, plain);
                    call.stream = stream_ && !twice;
                    call.first = channel;
                    call.channels = p.channels;
                    call.wraps = p.across;
                    k.rows_gradient(call);
                };
                if (twice) write_dx(0, p.span, false);
                return each_seen(sample, 0, p.span, [&](index from, index to, bool plain) {
                    if (plain || !twice) write_dx(from, to, plain);
                });
            }
            const auto at = p.spot(sample, channel, 0);
            k.rows_apply({at.x, at.y, cells, p.span, at.x_row, at.y_row, lines_at(line, channel), stream_, false});
        });
    }

    void apply_columns(const Team& team) const {
        // Tiles end on cache lines of the result. (Streamed, longer ones, for memory likes long pieces.)
        const index lead = index((0 - reinterpret_cast<std::uintptr_t>(p.y)) % Scratch::LINE / sizeof(S));
        const index size = stream_ && sizeof(T) == 4 ? 2 * GRADIENT_TILE : GRADIENT_TILE;
        const index widest = sizeof(T) == 8 && !stream_ && !roomy_first_cache ? GRADIENT_TILE : 2 * GRADIENT_TILE;
        const bool whole = shape_.width <= widest || writes_whole(stream_, p.bytes());
        const index tiles = whole ? 1 : ceil_div(shape_.width - lead, size);
        const index block = piece_of(shape_.rows, p.samples * tiles, team, 1, COLUMN_BLOCK);
        const index tasks = ceil_div(shape_.rows, block) * tiles;
        // From the end to the beginning: what the moments read last is the likeliest to be in the cache still.
        team.each_backwards(p.samples * tasks, [&](index task) {
            const index sample = task / tasks, row = task % tasks / tiles * block, tile = task % tiles;
            const index end = std::min(row + block, shape_.rows);
            const index from = tile ? lead + tile * size : 0;
            const index to = tile + 1 < tiles ? lead + (tile + 1) * size : shape_.width;
            apply_block(sample, row, end, shape_.folds, from, to);
        });
        if (shape_.rest)
            team.each(p.samples,
                      [&](index sample) { apply_block(sample, shape_.rows * shape_.folds, p.span, 1, 0, p.channels); });
    }

    void apply_block(index sample, index row, index end, index folds, index from, index to) const {
        const index line = shape_.cell_row(sample) * shape_.width + from;
        if (p.dy)
            return each_seen(sample, row, end, [&](index first, index last, bool plain) {
                k.columns_gradient(
                    gradient_at(p.spot(sample, first, from, folds), last - first, to - from, line, from, plain));
            });
        const auto at = p.spot(sample, row, from, folds);
        k.columns_apply({at.x, at.y, end - row, to - from, at.x_row, at.y_row, lines_at(line, from), stream_, false});
    }

    const Cells<S>& p;
    const Kernels<S>& k;
    const bool stream_;
    const bool alike_;   // all groups hold as much
    CellMoments<S> of_;
    const CellShape& shape_;
    Lines<T> at_ = {};
    T *shift_ = nullptr, *slope_ = nullptr, *weight_ = nullptr, *bias_ = nullptr;
    // The second round of moments is taken, and applied, where the first found a group out of range.
    std::atomic<bool> out_of_range_{false}, zero_{false}, vanished_{false}, any_low_{false};
};

}   // namespace onepass
