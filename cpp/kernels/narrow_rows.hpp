// The lines of narrow rows, of as many at once as a vector has lanes.
//
// What follows a row's last element is mostly waiting: its lanes are joined, and joined again, and a root and a few
// divisions are taken of one number. That is nearly all the time of a row of 64 elements. So rows are joined side by side,
// with formulas from row_moments.hpp: each step takes the halves of all rows in two vectors, until a vector holds an
// element of each row and is finished as one. Invariant: lanes meet in the order of fold() and with its arithmetic, so each
// row has the bits that it has alone.
#pragma once

#include "kernels/ahead.hpp"
#include "kernels/row_norm.hpp"
#include "simd/halves.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int SIDE = WIDTH<float>;   // rows

template <int OF_EACH>
ONEPASS_INLINE Subset<Vec<float>> lower_halves(const Subset<Vec<float>>& a, const Subset<Vec<float>>& b) {
    return {lower_halves<OF_EACH>(a.sum, b.sum), lower_halves<OF_EACH>(a.m2, b.m2)};
}
template <int OF_EACH>
ONEPASS_INLINE Subset<Vec<float>> upper_halves(const Subset<Vec<float>>& a, const Subset<Vec<float>>& b) {
    return {upper_halves<OF_EACH>(a.sum, b.sum), upper_halves<OF_EACH>(a.m2, b.m2)};
}

// The lines of SIDE rows from row `first` on, of LANES elements at least and a block at most. source_of(row) is what its
// moments are taken from.
template <bool CENTERED, class S, class SourceOf>
ONEPASS_INLINE void narrow_lines(const RowsNorm<S>& a, index first, const SourceOf& source_of, Line<float> (&lines)[SIDE]) {
    const index cols = a.cols, last = cols % LANES<float>;
    const Finish how = a.finish;
    const float half = half_inverse<float>(cols / LANES<float>);
    const auto row = [&](int i) ONEPASS_FLAT { return itself(source_of(first + i)); };
    const auto join_lanes = [=](const auto& a, const auto& b, int level)
                                ONEPASS_FLAT { return join(a, b, half / float(1 << level)); };
    Subset<Vec<float>> rows[SIDE];
    double pivot[SIDE], mean_of_last[SIDE], m2_of_last[SIDE];
    for (int i = 0; i < SIDE; ++i) {
        const float near = CENTERED ? choose_pivot(row(i), cols, 1.0F) : 0.0F;
        LaneMoments<CENTERED, decltype(source_of(first)), float, false> lanes(source_of(first + i), 0, cols, {near, 1, 1});
        lanes.rest();
        rows[beside(i)] = fold_parts(lanes.all, join_lanes);
        pivot[i] = double(near);
        if (!last) continue;
        const Moments m = part_moments<CENTERED>(row(i), cols - last, last, lanes.shift);
        mean_of_last[i] = m.mean;
        m2_of_last[i] = m.m2;
    }
    const Subset<Vec<float>> joined = fold_beside(rows, join_lanes);
    float sum[SIDE], m2[SIDE], mean[SIDE], low[SIDE], scale[SIDE], true_mean[SIDE], rstd[SIDE];
    std::int32_t in_range[SIDE];
    store(sum, joined.sum);
    store(m2, joined.m2);
    const double whole = double(cols - last), inverse = inverse_freedom(double(cols), how);
    // f(moments of a row's whole packs, row): those of the row. (A loop that becomes vector code.)
    const auto finish_all = [&](const auto& f) ONEPASS_FLAT {
        for (int i = 0; i < SIDE; ++i) {
            const Moments m = f({whole, CENTERED ? double(sum[i]) / whole : 0.0, 0.0, double(m2[i])}, i);
            const Finished line = finish<float>(inverse, pivot[i], m.mean, m.m2, how, 1.0, 1.0);
            mean[i] = float(line.mean);
            low[i] = float(line.low);
            scale[i] = float(line.scale);
            true_mean[i] = float(line.true_mean);
            rstd[i] = float(line.rstd);
            in_range[i] = line.in_range ? 1 : 0;
        }
    };
    if (last)
        finish_all([&](const Moments& m, int i)
                       ONEPASS_FLAT { return merge(m, {double(last), mean_of_last[i], 0.0, m2_of_last[i]}); });
    else
        finish_all([](const Moments& m, int) ONEPASS_FLAT { return m; });
    for (int i = 0; a.mean && i < SIDE; ++i) a.mean[first + i] = true_mean[i];
    for (int i = 0; a.rstd && i < SIDE; ++i) a.rstd[first + i] = rstd[i];
    for (int i = 0; i < SIDE; ++i)
        lines[i] =
            in_range[i] ? Line<float>{mean[i], low[i], scale[i], 1, 1, false} : row_line<CENTERED>(a, row(i), first + i);
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
