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

static_assert(JOINED_ROWS % SIDE == 0, "blocks and panels are cut so that all their rows are joined");

template <int OF_EACH>
ONEPASS_INLINE Sums<Vec<float>> lower_halves(const Sums<Vec<float>>& a, const Sums<Vec<float>>& b) {
    return {lower_halves<OF_EACH>(a.sum, b.sum), lower_halves<OF_EACH>(a.squares, b.squares)};
}
template <int OF_EACH>
ONEPASS_INLINE Sums<Vec<float>> upper_halves(const Sums<Vec<float>>& a, const Sums<Vec<float>>& b) {
    return {upper_halves<OF_EACH>(a.sum, b.sum), upper_halves<OF_EACH>(a.squares, b.squares)};
}

// What the lanes of SIDE rows have, joined.
struct Joined {
    double pivot[SIDE];
    float sum[SIDE], squares[SIDE];
    // The moments of row i, of `count` elements, not settled yet.
    ONEPASS_INLINE Moments of(int i, double count, double of_count) const {
        const Moments m = from_sums(double(sum[i]), double(squares[i]), count, of_count);
        return {count, pivot[i], m.mean, m.m2};
    }
};
// Those of rows of a block at most, row(i) for i in 0..SIDE; sums_of(i, pivot) is what the lanes of one have.
template <bool CENTERED, class Row, class SumsOf>
ONEPASS_INLINE void join_beside(index cols, const Row& row, const SumsOf& sums_of, Joined& joined) {
    Sums<Vec<float>> rows[SIDE];
    for (int i = 0; i < SIDE; ++i) {
        const float near = CENTERED ? choose_pivot(row(i), cols, 1.0F) : 0.0F;
        rows[beside(i)] = sums_of(i, near);
        joined.pivot[i] = double(near);
    }
    const Sums<Vec<float>> all = fold_beside(rows, Plus());
    store(joined.sum, all.sum);
    store(joined.squares, all.squares);
}
// The sums of a source's lanes.
template <bool CENTERED, class Source>
ONEPASS_INLINE Sums<Vec<float>> lanes_of(const Source& source, index cols, float pivot) {
    LaneMoments<CENTERED, Source, float, false> lanes(source, 0, cols, {pivot, 1, 1});
    lanes.rest();
    return fold_parts(lanes.all, Plus());
}

// The lines of SIDE rows from row `first` on. source_of(row) is where a row is read again, if need be, and
// sums_of(row, pivot) what its lanes have. `beyond` gets what its mean has beyond the pivot, or NaN where the line is not
// from these sums.
template <bool CENTERED, class S, class SourceOf, class SumsOf>
ONEPASS_INLINE void narrow_lines(const RowsNorm<S>& a, index first, const SourceOf& source_of, const SumsOf& sums_of,
                                 Line<float> (&lines)[SIDE], double* beyond = nullptr) {
    const index cols = a.cols;
    const Finish how = a.finish;
    const auto row = [&](int i) ONEPASS_FLAT { return itself(source_of(first + i)); };
    Joined joined;
    join_beside<CENTERED>(cols, row, [&](int i, float pivot) ONEPASS_FLAT { return sums_of(first + i, pivot); }, joined);
    float mean[SIDE], low[SIDE], scale[SIDE], true_mean[SIDE], rstd[SIDE];
    double past[SIDE];
    std::int32_t usual[SIDE];
    const double inverse = inverse_freedom(double(cols), how), of_count = 1.0 / double(cols);
    constexpr bool WIDE_ENOUGH = NATIVE > 16;   // to choose by lanes: what is chosen among here, compilers leave scalar
    for (int i = 0; i < SIDE; ++i) {            // (becomes vector code)
        const Moments m = joined.of(i, double(cols), of_count);
        const Finished line = finish<float>(inverse, m.mean, m.low, m.m2, how, 1.0, 1.0);
        mean[i] = float(line.mean);
        low[i] = float(line.low);
        scale[i] = float(line.scale);
        true_mean[i] = float(line.true_mean);
        rstd[i] = float(line.rstd);
        usual[i] = line.in_range & !(CENTERED && astray(m)) ? 1 : 0;
        if (WIDE_ENOUGH)
            past[i] = m.low;
        else if (beyond)
            beyond[i] = usual[i] ? m.low : __builtin_nan("");
    }
    for (int i = 0; WIDE_ENOUGH && beyond && i < SIDE; ++i) beyond[i] = usual[i] ? past[i] : __builtin_nan("");
    for (int i = 0; a.mean && i < SIDE; ++i) a.mean[first + i] = true_mean[i];
    for (int i = 0; a.rstd && i < SIDE; ++i) a.rstd[first + i] = rstd[i];
    for (int i = 0; i < SIDE; ++i)
        lines[i] =
            usual[i] ? Line<float>{mean[i], low[i], scale[i], 1, 1, false} : row_line<CENTERED>(a, row(i), first + i);
}
template <bool CENTERED, class S, class SourceOf>
ONEPASS_INLINE void narrow_lines(const RowsNorm<S>& a, index first, const SourceOf& source_of, Line<float> (&lines)[SIDE]) {
    const auto sums_of = [&, cols = a.cols](index row, float pivot)
                             ONEPASS_FLAT { return lanes_of<CENTERED>(source_of(row), cols, pivot); };
    narrow_lines<CENTERED>(a, first, source_of, sums_of, lines);
}

// Short rows that are streamed, where they lie end to end: gathered, and streamed line by line, for each of them has too
// few whole lines of y. (The narrowest vectors leave less of a row beside them, and have more to copy.)
template <class S>
constexpr bool GATHERS = NATIVE > 16 || sizeof(S) == 2;
// Whether SIDE rows have the lines that this takes.
template <class S>
ONEPASS_INLINE bool fill_lines(index cols) {
    return cols * SIDE >= 2 * Edge<S>::LINE;
}
template <bool FAR, class S>
class Gathered {
    static constexpr index LINE = Edge<S>::LINE, BYTES = GATHERED_ROW * SIDE + 2 * PACK;
    alignas(PACK) S lines_[BYTES / index(sizeof(S))];
    S* y_;            // the line that lines_ begins with
    index past_;      // elements of it that come before the next rows
    index foreign_;   // and are not ours
    bool across_;

  public:
    ONEPASS_INLINE Gathered(S* y, bool across)
        : y_(y - reinterpret_cast<std::uintptr_t>(y) % PACK / sizeof(S)), past_(y - y_), foreign_(past_), across_(across) {}
    // Or rows are written where they belong.
    ONEPASS_INLINE bool gathers() const { return FAR && GATHERS<S> && across_; }
    ONEPASS_INLINE S* row(index i, index cols) { return lines_ + past_ + i * cols; }
    // n elements of SIDE rows, more than a line of them, but for what does not fill a line.
    ONEPASS_INLINE void stream(index n) {
        const index end = past_ + n, whole = end - end % LINE;
        index i = 0;
        if (foreign_) {
            for (i = foreign_; i < LINE; ++i) y_[i] = lines_[i];
            foreign_ = 0;
        }
        for (; i < whole; i += LINE) stream_line(y_ + i, lines_ + i);
        past_ = end - whole;
        y_ += whole;
        __builtin_memcpy(lines_, lines_ + whole, PACK);
    }
    // What is left: the edge's, if the next row is joined.
    ONEPASS_INLINE void finish(Edge<S>& edge, bool joined) {
        if (!gathers()) return;
        edge.waiting = joined && past_ > 0;
        if (edge.waiting)
            __builtin_memcpy(edge.line, lines_, PACK);
        else
            for (index i = 0; i < past_; ++i) y_[i] = lines_[i];
    }
};

// SIDE rows from `row` on but the first `done`, as source_of(row) has them and affine_of(row) goes on. FAR: streamed.
template <bool FAR, class S, class SourceOf, class AffineOf>
ONEPASS_INLINE void write_narrow(const RowsNorm<S>& a, index row, const Line<float> (&lines)[SIDE],
                                 const SourceOf& source_of, const AffineOf& affine_of, Gathered<FAR, S>& gathered,
                                 bool joined, Edge<S>& edge, index done = 0) {
    if (gathered.gathers()) {
        for (index i = 0; i < SIDE; ++i)
            apply_row(source_of(row + i), gathered.row(i, a.cols), a.cols, lines[i], affine_of(row + i), false, false,
                      edge);
        gathered.stream(SIDE * a.cols);
    } else {
        for (index i = done; i < SIDE; ++i)
            apply_row(source_of(row + i), a.y + (row + i) * a.y_stride, a.cols, lines[i], affine_of(row + i), FAR,
                      joined && row + i + 1 < a.rows, edge);
    }
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
