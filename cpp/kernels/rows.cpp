// Rows: the moments of each contiguous row in one read, and the row normalized.
//
//   y = (x - mean) * rstd * weight + bias,   rstd = 1 / sqrt(M2 / (n - ddof) + eps)
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

// What is left of a block behind its last whole chunk: fewer than eight packs, the last one perhaps in part.
template <class T>
struct Tail {
    Vec<T> count, mean, m2;
};

template <class S, class T, bool RANGED>
ONEPASS_INLINE Tail<T> tail_moments(const S* x, index n, int part, const Shift<T, RANGED>& shift) {
    const index full = n / LANES<T>, last = n % LANES<T> - part * WIDTH<T>;
    const S* p = x + part * WIDTH<T>;
    const Vec<T> end = last > 0 ? keep(shift(load(p + full * LANES<T>, First{last})), last) : Vec<T>{};
    Vec<T> sum = end;
    for (index i = 0; i < full; ++i) sum = sum + shift(load(p + i * LANES<T>));
    const Vec<T> mean = sum * blend(splat(INVERSE<T>[full + 1]), splat(INVERSE<T>[full]), last);
    const Vec<T> e = keep(end - mean, last);
    Vec<T> m2 = e * e;
    for (index i = 0; i < full; ++i) {
        const Vec<T> d = shift(load(p + i * LANES<T>)) - mean;
        m2 = m2 + d * d;
    }
    return {blend(splat(T(full + 1)), splat(T(full)), last), mean, m2};
}

template <class S, class T, bool RANGED>
ONEPASS_INLINE Moments block_moments(const S* x, index n, const Shift<T, RANGED>& shift) {
    const Vec<T> one = hidden_one<T>();
    Vec<T> means[BLOCK][PARTS], squares[BLOCK][PARTS];
    const index chunks = n / (CHUNK * LANES<T>);
    for (index c = 0; c < chunks; ++c) {
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; ++j) {
            const S* p = x + c * (CHUNK * LANES<T>) + j * WIDTH<T>;
            Vec<T> d[CHUNK];
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) d[i] = shift(load(p + i * LANES<T>));
            const Vec<T> mean = (((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]))) * splat(T(1) / CHUNK);
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) {
                d[i] = minus(d[i], mean, one);
                d[i] = d[i] * d[i];
            }
            means[c][j] = mean;
            squares[c][j] = ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
        }
    }
    const index rest = n - chunks * (CHUNK * LANES<T>);
    Tail<T> tail[PARTS] = {};
    if (rest)
        for (int j = 0; j < PARTS; ++j) tail[j] = tail_moments(x + (n - rest), rest, j, shift);

    Vec<T> sum[PARTS];
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
    const double mean = double(sum_lanes(sum)) / double(n);

    const Vec<T> centre = splat(T(mean));
    for (int j = 0; j < PARTS; ++j) {
        Vec<T> within = tail[j].m2, between = {};
        for (index c = 0; c < chunks; ++c) {
            const Vec<T> d = means[c][j] - centre;
            within = within + squares[c][j];
            between = between + d * d;
        }
        const Vec<T> d = tail[j].mean - centre;
        sum[j] = (within + between * splat(T(CHUNK))) + tail[j].count * (d * d);
    }
    return {double(n), 0.0, mean, double(sum_lanes(sum))};
}

// The mean of the row's first pack; for a constant row exactly its constant.
template <class S, class T>
ONEPASS_INLINE T choose_pivot(const S* x, index n, T before) {
    if (n < LANES<T>) return load(x, First{1}).v[0] * before;
    Vec<T> first[PARTS];
    for (int j = 0; j < PARTS; ++j) first[j] = load(x + j * WIDTH<T>) * splat(before);
    return sum_lanes(first) * (T(1) / LANES<T>);
}

template <bool RANGED, class S>
ONEPASS_INLINE Moments row_moments(const S* x, index n, const Range& range) {
    using T = Arith<S>;
    constexpr index SIZE = index(BLOCK) * CHUNK * LANES<T>;
    const T before = T(range.before), pivot = choose_pivot(x, n, before);
    const Shift<T, RANGED> shift = {pivot, before, T(range.after)};
    if (n <= SIZE) {
        Moments m = block_moments(x, n, shift);
        m.mean = double(pivot);
        return m;
    }
    // A stack of finished subtrees, as a binary counter holds its ones.
    Moments stack[LEVELS];
    int depth = 0;
    for (index start = 0, number = 1; start < n; start += SIZE, ++number) {
        stack[depth++] = block_moments(x + start, n - start < SIZE ? n - start : SIZE, shift);
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

template <bool LOW, bool RANGED, class S, class Affine>
ONEPASS_INLINE void apply_row(const S* x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine, bool streamed,
                              bool joined, Edge<S>& edge) {
    using T = Arith<S>;
    const Vec<T> mean = splat(line.mean), low = splat(line.low), scale = splat(line.scale);
    const Vec<T> before = splat(line.before), after = splat(line.after);
    const auto value = [&](index i, auto lanes) ONEPASS_FLAT {
        Vec<T> v = load(x + i, lanes);
        if constexpr (RANGED) v = v * before;
        v = v - mean;
        if constexpr (RANGED) v = v * after;
        if constexpr (LOW) v = v - low;
        return affine(v * scale, i, lanes);
    };
    write_row<T>(y, n, value, streamed, joined, edge);
}

template <class S, class Affine>
ONEPASS_INLINE void apply_row(const S* x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine, bool streamed,
                              bool joined, Edge<S>& edge) {
    if (line.before != 1 || line.after != 1)
        apply_row<true, true>(x, y, n, line, affine, streamed, joined, edge);
    else if (line.low != 0)
        apply_row<true, false>(x, y, n, line, affine, streamed, joined, edge);
    else
        apply_row<false, false>(x, y, n, line, affine, streamed, joined, edge);
}

// ---- what the table offers ----

template <class S>
__attribute__((noinline)) Moments ranged_moments(const S* x, index n, Range range) {
    return row_moments<true>(x, n, range);
}

template <class S>
__attribute__((noinline)) Line<Arith<S>> row_line(const RowsNorm<S>& a, index row) {
    using T = Arith<S>;
    const S* x = a.x + row * a.x_stride;
    Range range = {1.0, 1.0};
    Moments m = row_moments<false>(x, a.cols, range);
    Finished f = finish<T>(m.count, m.mean, m.low, m.m2, a.finish, 1.0, 1.0);
    if (__builtin_expect(!f.in_range, 0)) {
        range = other_range<T>(m.m2);
        m = ranged_moments(x, a.cols, range);
        f = finish<T>(m.count, m.mean, m.low, m.m2, a.finish, range.before, range.after);
    }
    if (a.mean) a.mean[row] = T(f.true_mean);
    if (a.rstd) a.rstd[row] = T(f.rstd);
    return {T(f.mean), T(f.low), T(f.scale), T(range.before), T(range.after)};
}

template <class S, class Affine>
ONEPASS_INLINE void norm(const RowsNorm<S>& a, const Affine& affine) {
    // One row at a time: two or more side by side would share the loads of weight and bias, but rows of 4 KiB then share
    // the sets of the cache, and lost everywhere it was measured but at the shortest.
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const Line<Arith<S>> line = row_line(a, row);
        apply_row(a.x + row * a.x_stride, a.y + row * a.y_stride, a.cols, line, affine, a.stream, joined && row + 1 < a.rows, edge);
    }
    if (a.stream) stream_fence();
}

template <class S>
void rows_norm(const RowsNorm<S>& a) {
    using T = Arith<S>;
    if (a.weight && a.bias) return norm(a, ByElement<T, true, true>{a.weight, a.bias});
    if (a.weight) return norm(a, ByElement<T, true, false>{a.weight, nullptr});
    if (a.bias) return norm(a, ByElement<T, false, true>{nullptr, a.bias});
    norm(a, ByElement<T, false, false>{nullptr, nullptr});
}

template <class S>
void rows_moments(const RowsMoments<S>& a) {
    const bool ranged = a.range.before != 1 || a.range.after != 1;
    for (index row = 0; row < a.rows; ++row) {
        const S* x = a.x + row * a.stride;
        const Moments m = ranged ? ranged_moments(x, a.cols, a.range) : row_moments<false>(x, a.cols, a.range);
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
        apply_row(a.x + row * a.x_stride, a.y + row * a.y_stride, a.cols, line, affine, a.stream, joined && row + 1 < a.rows, edge);
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
