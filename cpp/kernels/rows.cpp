// Rows: the moments of each contiguous row in one read, and the row normalized.
//
//   y = (x - mean) * rstd * weight + bias,   rstd = 1 / sqrt(M2 / (n - ddof) + eps)
//
// (Ba, Kiros & Hinton 2016; without the mean, M2 the sum of squares about 0, it is Zhang & Sennrich's RMS norm, 2019.)
//
// A chunk of eight packs is held in registers: the mean of each lane, then the squares about that mean. Chunks are joined
// about the mean of the block by Chan's formula for many parts (Chan, Golub & LeVeque 1979),
//
//   M2 = sum(M2_c) + sum(n_c (mean_c - mean)^2),
//
// and blocks in a binary tree. Everything is taken from a pivot near the mean, where the difference is exact.
// Invariant: which elements meet in which order depends on the length of the row alone.
#include "kernels/moments.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;     // packs
constexpr int BLOCK = 32;    // chunks: 16 KiB, half of a first-level cache
constexpr int LEVELS = 48;   // of the tree of blocks

// Reciprocals of how many elements a lane of the tail holds.
template <class T>
constexpr T INVERSE[CHUNK + 1] = {0, 1, T(1) / 2, T(1) / 3, T(1) / 4, T(1) / 5, T(1) / 6, T(1) / 7, T(1) / 8};

template <class T, bool RANGED>
struct Shift {
    T pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x) const {
        if constexpr (RANGED) return (x * splat(before) - splat(pivot)) * splat(after);
        return x - splat(pivot);
    }
};

// Where the elements of a row come from: memory, or the sum of two rows, rounded as it would be in memory.
template <class S>
struct Plain {
    const S* x;
    template <class Lanes>
    ONEPASS_INLINE Vec<Arith<S>> at(index i, Lanes lanes) const {
        return load(x + i, lanes);
    }
};
template <class S>
struct Added {
    const S *x, *residual;
    template <class Lanes>
    ONEPASS_INLINE Vec<Arith<S>> at(index i, Lanes lanes) const {
        return as_stored(load(x + i, lanes) + load(residual + i, lanes), x);
    }
};

// What is left of a block behind its last whole chunk: fewer than eight packs, the last one perhaps in part.
template <class T>
struct Tail {
    Vec<T> count, mean, m2;
};

// Elements start..start + n, n less than a chunk. Not centered: about 0, from a pivot of 0.
template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Tail<T> tail_moments(const Source& x, index start, index n, int part, const Shift<T, RANGED>& shift) {
    const index full = n / LANES<T>, last = n % LANES<T> - part * WIDTH<T>;
    start += part * WIDTH<T>;
    const Vec<T> end = last > 0 ? keep(shift(x.at(start + full * LANES<T>, First{last})), last) : Vec<T>{};
    Vec<T> mean = {};
    if constexpr (CENTERED) {
        Vec<T> sum = end;
        for (index i = 0; i < full; ++i) sum = sum + shift(x.at(start + i * LANES<T>, All{}));
        mean = sum * blend(splat(INVERSE<T>[full + 1]), splat(INVERSE<T>[full]), last);
    }
    const Vec<T> e = keep(end - mean, last);
    Vec<T> m2 = e * e;
    for (index i = 0; i < full; ++i) {
        const Vec<T> d = shift(x.at(start + i * LANES<T>, All{})) - mean;
        m2 = m2 + d * d;
    }
    return {blend(splat(T(full + 1)), splat(T(full)), last), mean, m2};
}

template <class T>
ONEPASS_INLINE Vec<T> sum8(const Vec<T> (&d)[CHUNK]) {
    return ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
}

template <bool CENTERED, class Source, class T, bool RANGED>
ONEPASS_INLINE Moments block_moments(const Source& x, index start, index n, const Shift<T, RANGED>& shift) {
    const Vec<T> one = hidden_one<T>();
    Vec<T> means[BLOCK][PARTS], squares[BLOCK][PARTS];
    const index chunks = n / (CHUNK * LANES<T>);
    for (index c = 0; c < chunks; ++c) {
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; ++j) {
            const index at = start + c * (CHUNK * LANES<T>) + j * WIDTH<T>;
            Vec<T> d[CHUNK];
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) d[i] = shift(x.at(at + i * LANES<T>, All{}));
            if constexpr (CENTERED) {
                const Vec<T> mean = sum8(d) * splat(T(1) / CHUNK);
                means[c][j] = mean;
#pragma GCC unroll 8
                for (int i = 0; i < CHUNK; ++i) d[i] = minus(d[i], mean, one);
            }
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) d[i] = d[i] * d[i];
            squares[c][j] = sum8(d);
        }
    }
    const index rest = n - chunks * (CHUNK * LANES<T>);
    Tail<T> tail[PARTS] = {};
    if (rest)
        for (int j = 0; j < PARTS; ++j) tail[j] = tail_moments<CENTERED>(x, start + n - rest, rest, j, shift);

    double mean = 0.0;
    Vec<T> sum[PARTS];
    if constexpr (CENTERED) {
        for (int j = 0; j < PARTS; ++j) {
            Vec<T> even = {}, odd = {};
            index c = 0;
            for (; c + 1 < chunks; c += 2) {
                even = even + means[c][j];
                odd = odd + means[c + 1][j];
            }
            if (c < chunks) even = even + means[c][j];
            sum[j] = (even + odd) * splat(T(CHUNK)) + tail[j].count * tail[j].mean;
        }
        mean = double(sum_lanes(sum)) / double(n);
    }

    const Vec<T> centre = splat(T(mean));
    for (int j = 0; j < PARTS; ++j) {
        Vec<T> within = tail[j].m2, between = {};
        for (index c = 0; c < chunks; ++c) {
            within = within + squares[c][j];
            if constexpr (CENTERED) {
                const Vec<T> d = means[c][j] - centre;
                between = between + d * d;
            }
        }
        const Vec<T> d = tail[j].mean - centre;
        sum[j] = (within + between * splat(T(CHUNK))) + tail[j].count * (d * d);
    }
    return {double(n), 0.0, mean, double(sum_lanes(sum))};
}

// The mean of the row's first pack; for a constant row exactly its constant.
template <class T, class Source>
ONEPASS_INLINE T choose_pivot(const Source& x, index n, T before) {
    if (n < LANES<T>) return x.at(0, First{1}).v[0] * before;
    Vec<T> first[PARTS];
    for (int j = 0; j < PARTS; ++j) first[j] = x.at(j * WIDTH<T>, All{}) * splat(before);
    return sum_lanes(first) * (T(1) / LANES<T>);
}

template <bool RANGED, bool CENTERED, class T, class Source>
ONEPASS_INLINE Moments row_moments(const Source& x, index n, const Range& range) {
    constexpr index SIZE = index(BLOCK) * CHUNK * LANES<T>;
    const T before = T(range.before), pivot = CENTERED ? choose_pivot(x, n, before) : T(0);
    const Shift<T, RANGED> shift = {pivot, before, T(range.after)};
    // A stack of finished subtrees, as a binary counter holds its ones.
    Moments stack[LEVELS];
    int depth = 0;
    for (index start = 0, number = 1; start < n; start += SIZE, ++number) {
        const Moments m = block_moments<CENTERED>(x, start, n - start < SIZE ? n - start : SIZE, shift);
        if (n <= SIZE) return {m.count, double(pivot), m.low, m.m2};
        stack[depth++] = m;
        for (index bits = number; !(bits & 1); bits >>= 1, --depth)
            stack[depth - 2] = merge(stack[depth - 2], stack[depth - 1]);
    }
    for (; depth > 1; --depth) stack[depth - 2] = merge(stack[depth - 2], stack[depth - 1]);
    // Every block's mean counts from the pivot. The low part lies behind `after`, as finish() expects it.
    const double low = stack[0].mean + stack[0].low;
    return {double(n), double(pivot), low, stack[0].m2};
}

// ---- apply ----

template <class T>
struct Line {
    T mean, low, scale, before, after;
};

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

template <bool LOW, bool RANGED, class S, class Source, class Affine>
ONEPASS_INLINE void apply_row(const Source& x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine, bool streamed,
                              bool joined, Edge<S>& edge) {
    using T = Arith<S>;
    const Vec<T> mean = splat(line.mean), low = splat(line.low), scale = splat(line.scale);
    const Vec<T> before = splat(line.before), after = splat(line.after);
    const auto value = [&](index i, auto lanes) ONEPASS_FLAT {
        Vec<T> v = x.at(i, lanes);
        if constexpr (RANGED) v = v * before;
        v = v - mean;
        if constexpr (RANGED) v = v * after;
        if constexpr (LOW) v = v - low;
        return affine(v * scale, i, lanes);
    };
    write_row<T>(y, n, value, streamed, joined, edge);
}

template <class S, class Source, class Affine>
ONEPASS_INLINE void apply_row(const Source& x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine, bool streamed,
                              bool joined, Edge<S>& edge) {
    if (line.before != 1 || line.after != 1)
        apply_row<true, true>(x, y, n, line, affine, streamed, joined, edge);
    else if (line.low != 0)
        apply_row<true, false>(x, y, n, line, affine, streamed, joined, edge);
    else
        apply_row<false, false>(x, y, n, line, affine, streamed, joined, edge);
}

// ---- what the table offers ----

template <bool CENTERED, class T, class Source>
__attribute__((noinline)) Moments ranged_moments(const Source& x, index n, Range range) {
    return row_moments<true, CENTERED, T>(x, n, range);
}

template <bool CENTERED, class S, class Source>
__attribute__((noinline)) Line<Arith<S>> row_line(const RowsNorm<S>& a, const Source& x, index row) {
    using T = Arith<S>;
    Range range = {1.0, 1.0};
    Moments m = row_moments<false, CENTERED, T>(x, a.cols, range);
    Finished f = finish<T>(m.count, m.mean, m.low, m.m2, a.finish, 1.0, 1.0);
    if (__builtin_expect(!f.in_range, 0)) {
        range = other_range<T>(m.m2);
        m = ranged_moments<CENTERED, T>(x, a.cols, range);
        f = finish<T>(m.count, m.mean, m.low, m.m2, a.finish, range.before, range.after);
    }
    if (a.mean) a.mean[row] = T(f.true_mean);
    if (a.rstd) a.rstd[row] = T(f.rstd);
    return {T(f.mean), T(f.low), T(f.scale), T(range.before), T(range.after)};
}

// The sum first: it may be written over x or residual, and where it is streamed it is quicker added again than read.
template <bool CENTERED, class S, class Affine>
ONEPASS_INLINE void norm_sum(const RowsNorm<S>& a, index row, const Affine& affine, Edge<S>& edge, Edge<S>& sum_edge) {
    const Added<S> x = {a.x + row * a.x_stride, a.residual + row * a.residual_stride};
    S* y = a.y + row * a.y_stride;
    S* sum = a.sum + row * a.sum_stride;
    const Line<Arith<S>> line = row_line<CENTERED>(a, x, row);
    const bool more = row + 1 < a.rows;
    const auto value = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    write_row<Arith<S>>(sum, a.cols, value, a.stream, more && rows_join<S>(a.stream, a.cols, a.sum_stride), sum_edge);
    const bool joined = more && rows_join<S>(a.stream, a.cols, a.y_stride);
    if (a.stream)
        apply_row(x, y, a.cols, line, affine, true, joined, edge);
    else
        apply_row(Plain<S>{sum}, y, a.cols, line, affine, false, joined, edge);
}

template <bool CENTERED, class S, class AffineOfRow>
ONEPASS_INLINE void norm(const RowsNorm<S>& a, const AffineOfRow& affine_of_row) {
    // One row at a time: two or more side by side would share the loads of weight and bias, but rows of 4 KiB then share
    // the sets of the cache, and lost everywhere it was measured but at the shortest.
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    const index segment = a.affine.segment;
    Edge<S> edge, sum_edge;
    for (index row = 0; row < a.rows; ++row) {
        const index period_row = a.affine.period == 1 ? 0 : (a.affine.first + row) % a.affine.period;
        const auto affine = affine_of_row(period_row * (a.cols / segment));
        if (a.residual) {
            norm_sum<CENTERED>(a, row, affine, edge, sum_edge);
            continue;
        }
        const Plain<S> x = {a.x + row * a.x_stride};
        const Line<Arith<S>> line = row_line<CENTERED>(a, x, row);
        apply_row(x, a.y + row * a.y_stride, a.cols, line, affine, a.stream, joined && row + 1 < a.rows, edge);
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
            apply_row(Plain<S>{x.x + from}, a.y + row * a.y_stride + from, of.segment, line, affine, a.stream, joined && more, edge);
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
        const Moments m = ranged ? ranged_moments<true, T>(x, a.cols, a.range) : row_moments<false, true, T>(x, a.cols, a.range);
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
        const ByRow<T> affine = {of.weight ? of.weight[row] : T(1), of.bias ? of.bias[row] : T(0)};
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
