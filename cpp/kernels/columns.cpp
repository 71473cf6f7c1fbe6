// Columns: the moments of each column of a block of rows in one read, their merge over blocks, and the columns normalized.
//
//   y = (x - mean) * rstd * weight + bias, the statistics an element a column
//
// Eight rows of one vector of columns are held in registers: their mean, then the squares about it, then one Welford step
// of eight rows at a time (Welford 1962; Chan, Golub & LeVeque 1979). Blocks are merged about their common mean in double.
// Lanes never meet, so the order of additions is that of the rows, whatever the vector's width.
// Invariant: the cut into blocks and chunks depends on the number of rows alone.
#include "kernels/ahead.hpp"
#include "kernels/moments.hpp"
#include "kernels/write.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int CHUNK = 8;   // rows

template <class T, bool RANGED>
struct Shift {
    Vec<T> pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x) const {
        if constexpr (RANGED) return (x * before - pivot) * after;
        return x - pivot;
    }
};

template <class T>
struct Part {
    Vec<T> mean, m2;
};

template <class T>
ONEPASS_INLINE Vec<T> sum8(const Vec<T> (&d)[CHUNK]) {
    return ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
}

// Moments of `rows` <= CHUNK values in each lane, row i at x + at[i]. A whole chunk stays in registers.
template <bool WHOLE, bool CENTERED, class S, class T, bool RANGED, class Lanes>
ONEPASS_INLINE Part<T> chunk_moments(const S* x, const index* at, index rows, const Shift<T, RANGED>& shift, Vec<T> one,
                                     Lanes lanes) {
    Part<T> part = {};
    if constexpr (WHOLE) {
        Vec<T> d[CHUNK];
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = shift(load(x + at[i], lanes));
        if constexpr (CENTERED) part.mean = sum8(d) * splat(T(1) / CHUNK);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) {
            if constexpr (CENTERED) d[i] = minus(d[i], part.mean, one);
            d[i] = d[i] * d[i];
        }
        part.m2 = sum8(d);
    } else {
        if constexpr (CENTERED) {
            for (index i = 0; i < rows; ++i) part.mean = part.mean + shift(load(x + at[i], lanes));
            part.mean = part.mean * splat(T(1) / T(rows));
        }
        for (index i = 0; i < rows; ++i) {
            const Vec<T> d = shift(load(x + at[i], lanes)) - part.mean;
            part.m2 = part.m2 + d * d;
        }
    }
    return part;
}

// One chunk of all columns. The first sets the pivots and the moments, every further one is merged into them.
template <bool WHOLE, bool FIRST, bool RANGED, bool CENTERED, class S>
ONEPASS_INLINE void chunk_of_columns(ColumnsMoments<S> a, index row, index rows) {
    using T = Arith<S>;
    index at[CHUNK];
    for (index i = 0; i < CHUNK; ++i) at[i] = (i < rows ? row + i : 0) * a.stride;
    const Vec<T> one = hidden_one<T>();
    const Vec<T> share = splat(T(rows) / T(row + rows)), spread = splat(T(row) * (T(rows) / T(row + rows)));
    Ahead<S, CHUNK> ahead(a.x + (row + CHUNK) * a.stride, a.stride, a.cols);
    each_vector<T>(to_line(a.x), a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const S* x = a.x + j;
        if constexpr (WHOLE) ahead.step();
        Shift<T, RANGED> shift = {};
        if constexpr (RANGED) {
            shift.before = load(a.before + j, lanes);
            shift.after = load(a.after + j, lanes);
        }
        if constexpr (FIRST && CENTERED) {
            const auto value = [&](int i) ONEPASS_FLAT {
                const Vec<T> v = load(x + at[i], lanes);
                if constexpr (RANGED) return v * shift.before;
                return v;
            };
            if constexpr (WHOLE) {
                const Vec<T> d[CHUNK] = {value(0), value(1), value(2), value(3), value(4), value(5), value(6), value(7)};
                shift.pivot = sum8(d) * splat(T(1) / CHUNK);
            } else {
                shift.pivot = value(0);
            }
        } else if constexpr (CENTERED) {
            shift.pivot = load(a.pivot + j, lanes);
        }
        const Part<T> part = chunk_moments<WHOLE, CENTERED>(x, at, rows, shift, one, lanes);
        if constexpr (FIRST) {
            store(a.pivot + j, shift.pivot, lanes);
            store(a.low + j, part.mean, lanes);
            store(a.m2 + j, part.m2, lanes);
        } else {
            const Vec<T> mean = load(a.low + j, lanes), delta = part.mean - mean;
            store(a.low + j, mean + delta * share, lanes);
            store(a.m2 + j, (load(a.m2 + j, lanes) + part.m2) + delta * delta * spread, lanes);
        }
    });
}

template <bool RANGED, bool CENTERED, class S>
void block_moments(const ColumnsMoments<S>& a) {
    if (a.rows < CHUNK) return chunk_of_columns<false, true, RANGED, CENTERED>(a, 0, a.rows);
    chunk_of_columns<true, true, RANGED, CENTERED>(a, 0, CHUNK);
    index row = CHUNK;
    for (; row + CHUNK <= a.rows; row += CHUNK) chunk_of_columns<true, false, RANGED, CENTERED>(a, row, CHUNK);
    if (row < a.rows) chunk_of_columns<false, false, RANGED, CENTERED>(a, row, a.rows - row);
}

template <class S>
void columns_moments(const ColumnsMoments<S>& a) {
    if (a.before)
        a.centered ? block_moments<true, true>(a) : block_moments<true, false>(a);
    else
        a.centered ? block_moments<false, true>(a) : block_moments<false, false>(a);
}

// All blocks at once about their common mean: the sum of the means first, then the squares of what each differs by. The
// sums of doubles are compensated; beside what floats can tell a double has digits enough.
template <bool RANGED, class T, class A>
ONEPASS_INLINE void merge_tiles(const Blocks<T, A>& a) {
    constexpr index TILE = 64;
    const double total = a.count * double(a.blocks - 1) + a.last;
    const index step = a.step;
    for (index start = 0; start < a.cols; start += TILE) {
        const index n = a.cols - start < TILE ? a.cols - start : TILE;
        const A* after = RANGED ? a.after + start : nullptr;
        const T *first = a.mean + start * step, *low_of_first = a.low + start * step, *m2_of_first = a.m2 + start * step;
        double high[TILE] = {}, low[TILE] = {}, mean[TILE];
        // The sum over all blocks b of value(b's elements, their mean counted from the first block's, b's count).
        const auto accumulate = [&](const auto& value) ONEPASS_FLAT {
            for (index b = 0; b < a.blocks; ++b) {
                const double count = b + 1 < a.blocks ? a.count : a.last;
                const index at = b * a.stride;
                for (index j = 0; j < n; ++j) {
                    double apart = double(first[at + j * step]) - double(first[j * step]);
                    if constexpr (RANGED) apart *= double(after[j]);
                    const double term = value(at, j, apart + double(low_of_first[at + j * step]), count);
                    if constexpr (sizeof(T) < sizeof(double)) {
                        high[j] += term;
                    } else {
                        const Pair sum = two_sum(high[j], term);
                        high[j] = sum.high;
                        low[j] += sum.low;
                    }
                }
            }
        };
        accumulate([&](index, index, double apart, double count) ONEPASS_FLAT { return apart * count; });
        for (index j = 0; j < n; ++j) {
            mean[j] = (high[j] + low[j]) / total;
            high[j] = low[j] = 0.0;
        }
        accumulate([&](index at, index j, double apart, double count) ONEPASS_FLAT {
            const double d = apart - mean[j];
            return double(m2_of_first[at + j * step]) + d * d * count;
        });
        for (index j = 0; j < n; ++j) {
            a.mean_out[start + j] = double(first[j * step]);
            a.low_out[start + j] = mean[j];
            a.m2_out[start + j] = high[j] + low[j];
        }
    }
}

template <class T, class A>
void merge_blocks(const Blocks<T, A>& a) {
    a.after ? merge_tiles<true>(a) : merge_tiles<false>(a);
}

// Tile by tile through arrays of its own, so that the loops become vector code.
template <bool RANGED, class T>
ONEPASS_INLINE bool finish_tiles(const Finishing<T>& a) {
    constexpr index TILE = 64;
    const Finish how = a.how;
    const double inverse = inverse_freedom(a.count, how);
    bool all = true;
    for (index start = 0; start < a.cols; start += TILE) {
        const index n = a.cols - start < TILE ? a.cols - start : TILE;
        const double* __restrict mean = a.mean + start;
        const double* __restrict low = a.low + start;
        const double* __restrict m2 = a.m2 + start;
        T out[3][TILE], statistics[2][TILE];
        double before[TILE], after[TILE];
        long in_range[TILE];
        for (index j = 0; RANGED && j < n; ++j) {
            before[j] = double(a.line.before[start + j]);
            after[j] = double(a.line.after[start + j]);
        }
        for (index j = 0; j < n; ++j) {
            const Finished f =
                finish<T>(inverse, mean[j], low[j], m2[j], how, RANGED ? before[j] : 1.0, RANGED ? after[j] : 1.0);
            out[0][j] = T(f.mean);
            out[1][j] = T(f.low);
            out[2][j] = T(f.scale);
            statistics[0][j] = T(f.true_mean);
            statistics[1][j] = T(f.rstd);
            in_range[j] = f.in_range ? 1 : 0;
        }
        for (index j = 0; j < n; ++j) {
            a.line.mean[start + j] = out[0][j];
            a.line.low[start + j] = out[1][j];
            a.line.scale[start + j] = out[2][j];
            all &= in_range[j] != 0;
        }
        for (index j = 0; a.true_mean && j < n; ++j) a.true_mean[start + j] = statistics[0][j];
        for (index j = 0; a.rstd && j < n; ++j) a.rstd[start + j] = statistics[1][j];
    }
    return all;
}

template <class T>
bool finish_groups(const Finishing<T>& a) {
    return a.line.before ? finish_tiles<true>(a) : finish_tiles<false>(a);
}

// ---- apply ----

enum class Affine { none, bias, column, row };

// By value: what is referred to, any store might change.
template <Affine AFFINE, bool LOW, bool RANGED, class S>
void apply(Apply<S> a) {
    using T = Arith<S>;
    const bool joined = rows_join<S>(a.stream, a.cols, a.y_stride);
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        const S* x = a.x + row * a.x_stride;
        const Lines<T> line = a.line;
        const Vec<T> row_weight = splat(AFFINE == Affine::row ? line.row_weight[row] : T(1));
        const Vec<T> row_bias = splat(AFFINE == Affine::row ? line.row_bias[row] : T(0));
        const auto source = [&](index j, auto lanes) ONEPASS_FLAT { return load(x + j, lanes); };
        const auto value = [&](Vec<T> v, index j, auto lanes) ONEPASS_FLAT {
            if constexpr (RANGED) v = v * load(line.before + j, lanes);
            v = v - load(line.mean + j, lanes);
            if constexpr (RANGED) v = v * load(line.after + j, lanes);
            if constexpr (LOW) v = v - load(line.low + j, lanes);
            v = v * load(line.scale + j, lanes);
            if constexpr (AFFINE == Affine::column) v = v * load(line.weight + j, lanes);
            if constexpr (AFFINE == Affine::column || AFFINE == Affine::bias) v = v + load(line.bias + j, lanes);
            if constexpr (AFFINE == Affine::row) v = v * row_weight + row_bias;
            return v;
        };
        write_row<T>(a.y + row * a.y_stride, a.cols, source, value, a.stream, joined && row + 1 < a.rows, edge);
    }
    if (a.stream) stream_fence();
}

template <Affine AFFINE, class S>
ONEPASS_INLINE void choose_apply(const Apply<S>& a) {
    if (a.line.before) return apply<AFFINE, true, true>(a);
    bool low = false;
    for (index j = 0; j < a.cols; ++j) low |= a.line.low[j] != 0;
    low ? apply<AFFINE, true, false>(a) : apply<AFFINE, false, false>(a);
}

template <class S>
void columns_apply(const Apply<S>& a) {
    if (a.line.row_weight) return choose_apply<Affine::row>(a);
    if (a.line.weight) return choose_apply<Affine::column>(a);
    if (a.line.bias) return choose_apply<Affine::bias>(a);
    choose_apply<Affine::none>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_moments = columns_moments<S>;
    kernels.merge_blocks = merge_blocks<Arith<S>, Arith<S>>;
    kernels.merge_moments = merge_blocks<double, Arith<S>>;
    kernels.finish_groups = finish_groups<Arith<S>>;
    kernels.columns_apply = columns_apply<S>;
}

}   // namespace

void add_columns(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
