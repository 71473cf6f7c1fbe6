// Rows: the moments of each contiguous row in one read, and the row normalized.
//
//   y = (x - mean) * rstd * weight + bias,   rstd = 1 / sqrt(M2 / (n - ddof) + eps)
//
// (Ba, Kiros & Hinton 2016; without the mean, M2 the sum of squares about 0, it is Zhang & Sennrich's RMS norm, 2019.)
//
// Statistics from row_moments.hpp, then a second read of the row from the cache.
#include "kernels/row_line.hpp"
#include "kernels/write.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// What comes behind the standardized value: weight and bias of an element, or of the row.
template <class T, bool WEIGHT, bool BIAS>
struct ByElement {
    const T *weight, *bias;
    template <class Lanes>
    ONEPASS_INLINE Vec<T> operator()(Vec<T> v, index i, Lanes lanes) const {
        if constexpr (WEIGHT) v = v * load(weight + i, lanes);
        if constexpr (BIAS) v = v + load(bias + i, lanes);
        return v;
    }
};

template <class T>
struct ByRow {
    T weight, bias;
    template <class Lanes>
    ONEPASS_INLINE Vec<T> operator()(Vec<T> v, index, Lanes) const {
        return v * splat(weight) + splat(bias);
    }
};

template <bool LOW, bool RANGED, class S, class Source, class Affine, class Meanwhile = Nothing>
ONEPASS_INLINE void apply_row(const Source& x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine,
                              bool streamed, bool joined, Edge<S>& edge, Meanwhile&& meanwhile = {}) {
    using T = Arith<S>;
    const Deviation<T, LOW, RANGED> deviation(line);
    const Vec<T> scale = splat(line.scale);
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    const auto value = [&](Vec<T> v, index i, auto lanes) ONEPASS_FLAT { return affine(deviation(v) * scale, i, lanes); };
    write_row<T>(y, n, source, value, streamed, joined, edge, meanwhile);
}

template <class S, class Source, class Affine, class Meanwhile = Nothing>
ONEPASS_INLINE void apply_row(const Source& x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine,
                              bool streamed, bool joined, Edge<S>& edge, Meanwhile&& meanwhile = {}) {
    if (line.before != 1 || line.after != 1)   // seldom enough to have nothing done meanwhile
        apply_row<true, true>(x, y, n, line, affine, streamed, joined, edge);
    else if (line.low != 0)
        apply_row<true, false>(x, y, n, line, affine, streamed, joined, edge, meanwhile);
    else
        apply_row<false, false>(x, y, n, line, affine, streamed, joined, edge, meanwhile);
}

// ---- what the table offers ----

template <class S>
ONEPASS_INLINE void keep_statistics(const RowsNorm<S>& a, index row, const Finished& f) {
    using T = Arith<S>;
    if (a.mean) a.mean[row] = T(f.true_mean);
    if (a.rstd) a.rstd[row] = T(f.rstd);
}

template <bool CENTERED, class S, class Source>
__attribute__((noinline)) Line<Arith<S>> row_line(const RowsNorm<S>& a, const Source& x, index row) {
    Finished f;
    const Line<Arith<S>> line = line_of<CENTERED, Arith<S>>(x, a.cols, a.finish, f);
    keep_statistics(a, row, f);
    return line;
}

// A sum that is streamed is added again for y, which is quicker than to read it. Memory would rest meanwhile: so while a
// row is written, the next one is sent for.
template <class S>
struct Sent {
    Added<S> sum;
    index ahead;
    template <class Lanes>
    ONEPASS_INLINE Vec<Arith<S>> at(index i, Lanes lanes) const {
        __builtin_prefetch(sum.x + i + ahead, 0, 2);
        __builtin_prefetch(sum.residual + i + ahead, 0, 2);
        return sum.at(i, lanes);
    }
};

template <class S, class Source>
ONEPASS_INLINE void write_sum(const Source& x, S* sum, index n, bool streamed, bool joined, Edge<S>& edge) {
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    const auto value = [](auto v, index, auto) ONEPASS_FLAT { return v; };
    write_row<Arith<S>>(sum, n, source, value, streamed, joined, edge);
}

// The sum first: it may be written over x or residual.
template <bool CENTERED, class S, class Affine>
ONEPASS_INLINE void norm_sum(const RowsNorm<S>& a, index row, const Affine& affine, Edge<S>& edge, Edge<S>& sum_edge) {
    const Added<S> x = {a.x + row * a.x_stride, a.residual + row * a.residual_stride};
    S* y = a.y + row * a.y_stride;
    S* sum = a.sum + row * a.sum_stride;
    const Line<Arith<S>> line = row_line<CENTERED>(a, x, row);
    if (a.stream) {
        const Sent<S> sent = {x, a.x_stride == a.cols && a.residual_stride == a.cols ? a.cols : 0};
        const bool more = row + 1 < a.rows;
        write_sum(sent, sum, a.cols, true, more && rows_join<S>(true, a.cols, a.sum_stride), sum_edge);
        apply_row(sent, y, a.cols, line, affine, true, more && rows_join<S>(true, a.cols, a.y_stride), edge);
    } else {
        write_sum(x, sum, a.cols, false, false, sum_edge);
        apply_row(Plain<S>{sum}, y, a.cols, line, affine, false, false, edge);
    }
}

// Where x, y, weight and bias of one row fill the first-level cache, every row would fetch weight and bias again. So a few
// rows are applied together, a stretch of columns at a time. (Not pack by pack, with weight and bias in registers: wherever
// rows are whole pages long that was a third slower, however loads and stores were ordered.)
constexpr int BAND = 8;          // rows
constexpr index STRETCH = 512;   // columns
constexpr index FILLS = 8192;    // bytes of a row of weights

template <class S>
ONEPASS_INLINE bool bands(const RowsNorm<S>& a) {
    return a.affine.weight && !a.residual && a.affine.period == 1 && a.cols * index(sizeof(Arith<S>)) >= FILLS;
}

template <bool CENTERED, class S, class AffineOfRow>
ONEPASS_INLINE void norm_band(const RowsNorm<S>& a, index row, index rows, const AffineOfRow& affine_at) {
    Line<Arith<S>> line[BAND];
    for (index i = 0; i < rows; ++i) line[i] = row_line<CENTERED>(a, Plain<S>{a.x + (row + i) * a.x_stride}, row + i);
    Edge<S> edge;
    for (index from = 0; from < a.cols;) {
        // Stretches end where the first row's cache lines do.
        const S* y = a.y + row * a.y_stride;
        const index past = index(reinterpret_cast<std::uintptr_t>(y + from + STRETCH) % PACK) / index(sizeof(S));
        const index to = from + STRETCH - past < a.cols ? from + STRETCH - past : a.cols;
        for (index i = 0; i < rows; ++i)
            apply_row(Plain<S>{a.x + (row + i) * a.x_stride + from}, a.y + (row + i) * a.y_stride + from, to - from,
                      line[i], affine_at(from), a.stream, false, edge);
        from = to;
    }
}

// Where rows come from a cache, the next row's moments are taken while a row is written: arithmetic for the units that
// would only wait for stores. It takes 32 registers, and rows of one block.
template <class S>
ONEPASS_INLINE bool interleaved(const RowsNorm<S>& a) {
    return !a.residual && !a.stream && a.cols <= BLOCK_SIZE<Arith<S>>;
}

// The processor's own prefetcher goes on into what lies between rows, and into the next one only when it is read.
template <class S>
ONEPASS_INLINE void send_for(const RowsNorm<S>& a, index row) {
    if (!a.far || row >= a.rows) return;
    const S* x = a.x + row * a.x_stride;
    for (index i = 0; i < a.cols; i += PACK / index(sizeof(S))) __builtin_prefetch(x + i, 0, 2);
}

// All rows but the last, whose line is returned.
template <bool CENTERED, class S, class AffineOfRow>
ONEPASS_INLINE Line<Arith<S>> norm_interleaved(const RowsNorm<S>& a, const AffineOfRow& affine_of) {
    using T = Arith<S>;
    const double inverse = inverse_freedom(double(a.cols), a.finish);
    Edge<S> edge;
    Line<T> line = row_line<CENTERED>(a, Plain<S>{a.x}, 0);
    for (index row = 0; row + 1 < a.rows; ++row) {
        const Plain<S> x = {a.x + row * a.x_stride}, next = {x.x + a.x_stride};
        const T pivot = CENTERED ? choose_pivot(next, a.cols, T(1)) : T(0);
        send_for(a, row + 2);
        LaneMoments<CENTERED, Plain<S>, T, false> lanes(next, 0, a.cols, {pivot, 1, 1});
        apply_row(x, a.y + row * a.y_stride, a.cols, line, affine_of(row), false, false, edge, lanes);
        lanes.rest();
        const Moments m = moments_of(lanes, a.cols);
        Finished f;
        line = line_of<CENTERED, T>({m.count, double(pivot), m.mean, m.m2}, next, a.cols, a.finish, inverse, f);
        keep_statistics(a, row + 1, f);
    }
    return line;
}

template <bool CENTERED, class S, class AffineAt>
ONEPASS_INLINE void norm(const RowsNorm<S>& a, const AffineAt& affine_at) {
    const auto affine_of = [&](index row) ONEPASS_FLAT {
        const index period_row = a.affine.period == 1 ? 0 : (a.affine.first + row) % a.affine.period;
        return affine_at(period_row * (a.cols / a.affine.segment));
    };
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    Edge<S> edge, sum_edge;
    index row = 0, known = -1;   // the row whose line is known
    Line<Arith<S>> line = {};
    if (bands(a)) {
        for (; row < a.rows; row += BAND) norm_band<CENTERED>(a, row, a.rows - row < BAND ? a.rows - row : BAND, affine_at);
    } else if constexpr (NATIVE == 64) {
        if (interleaved(a)) {
            line = norm_interleaved<CENTERED>(a, affine_of);
            row = known = a.rows - 1;
        }
    }
    for (; row < a.rows; ++row) {
        if (a.residual) {
            norm_sum<CENTERED>(a, row, affine_of(row), edge, sum_edge);
            continue;
        }
        const Plain<S> x = {a.x + row * a.x_stride};
        if (row != known) line = row_line<CENTERED>(a, x, row);
        send_for(a, row + 1);
        apply_row(x, a.y + row * a.y_stride, a.cols, line, affine_of(row), a.stream, joined && row + 1 < a.rows, edge);
    }
    if (a.stream) stream_fence();
}

// A weight and a bias for every segment of a row.
template <bool CENTERED, class S>
void norm_segments(const RowsNorm<S>& a) {
    using T = Arith<S>;
    const RowAffine<T>& of = a.affine;
    const index segments = a.cols / of.segment;
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride) && of.segment >= 2 * Edge<S>::LINE;
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const Plain<S> x = {a.x + row * a.x_stride};
        const Line<T> line = row_line<CENTERED>(a, x, row);
        for (index i = 0; i < segments; ++i) {
            const index from = i * of.segment, channel = (of.first + row) % of.period * segments + i;
            const ByRow<T> affine = {of.weight ? of.weight[channel] : T(1), of.bias ? of.bias[channel] : T(0)};
            const bool more = row + 1 < a.rows || i + 1 < segments;
            apply_row(Plain<S>{x.x + from}, a.y + row * a.y_stride + from, of.segment, line, affine, a.stream,
                      joined && more, edge);
        }
    }
    if (a.stream) stream_fence();
}

template <bool CENTERED, class S>
ONEPASS_INLINE void choose_affine(const RowsNorm<S>& a) {
    using T = Arith<S>;
    const T *w = a.affine.weight, *b = a.affine.bias;
    if constexpr (CENTERED)   // RMS norm has no bias
        if (b) return norm<CENTERED>(a, [=](index at) ONEPASS_FLAT { return ByElement<T, true, true>{w + at, b + at}; });
    if (w) return norm<CENTERED>(a, [=](index at) ONEPASS_FLAT { return ByElement<T, true, false>{w + at, nullptr}; });
    norm<CENTERED>(a, [](index) ONEPASS_FLAT { return ByElement<T, false, false>{nullptr, nullptr}; });
}

template <class S>
void rows_norm(const RowsNorm<S>& a) {
    if (a.affine.segment > 1 && (a.affine.weight || a.affine.bias)) return norm_segments<true>(a);
    a.centered ? choose_affine<true>(a) : choose_affine<false>(a);
}

template <class S>
void rows_moments(const RowsMoments<S>& a) {
    using T = Arith<S>;
    const bool ranged = a.range.before != 1 || a.range.after != 1;
    for (index row = 0; row < a.rows; ++row) {
        const Plain<S> x = {a.x + row * a.stride};
        const Moments m =
            ranged ? ranged_moments<true, T>(x, a.cols, a.range) : row_moments<false, true, T>(x, a.cols, a.range);
        a.mean[row] = m.mean;
        a.low[row] = m.low;
        a.m2[row] = m.m2;
    }
}

template <class S>
void rows_apply(const Apply<S>& a) {
    using T = Arith<S>;
    const Lines<T>& of = a.line;
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const T before = of.before ? of.before[row] : T(1), after = of.after ? of.after[row] : T(1);
        const Line<T> line = {of.mean[row], of.low[row], of.scale[row], before, after};
        const ByRow<T> affine = {of.weight ? of.weight[row] : T(1), of.bias ? of.bias[row] : -T(0)};
        apply_row(Plain<S>{a.x + row * a.x_stride}, a.y + row * a.y_stride, a.cols, line, affine, a.stream,
                  joined && row + 1 < a.rows, edge);
    }
    if (a.stream) stream_fence();
}

template <class S>
void widen_all(const S* x, Arith<S>* y, index n) {
    each_vector<Arith<S>>(n, [&](index i, auto lanes) ONEPASS_FLAT { store(y + i, load(x + i, lanes), lanes); });
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.widen = widen_all<S>;
    kernels.rows_norm = rows_norm<S>;
    kernels.rows_moments = rows_moments<S>;
    kernels.rows_apply = rows_apply<S>;
}

}   // namespace

void add_rows(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
