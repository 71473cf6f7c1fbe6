// What the kernels of every instruction set offer: plain structs and a table of function pointers.
//
// This header is read by units of every instruction set and by the layers above, so it holds declarations only: no inline
// function whose copies the linker could merge. Kernels are single-threaded, take raw pointers and allocate nothing.
// Strides are in elements. S is the type in memory, Arith<S> the type of the arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/types.hpp"

namespace onepass {

using index = std::ptrdiff_t;

// Rows of columns whose sums are taken at once: a block, which shares one set of partial moments, has as many, or where
// there are many rows some times as many. Part of the result's bits.
constexpr index COLUMN_BLOCK = 128;
// Bytes that the columns which are summed at once take at most, as elements of the arithmetic.
constexpr index COLUMN_TILE = 8192;

// Bytes from what is read to what is sent for, where it comes from memory, or from a cache that is shared: the processor
// itself looks less far, and stops where pages end. SENT_SOON: what has come half of the way from memory.
constexpr index SENT_FAR = 8192, SENT_NEAR = 4096, SENT_SOON = 2048;

// Bytes of a row that is written from its first element on, across cache lines (where it is not streamed, and what is read
// beside it lies on lines): what comes before y's lines and behind them would take two vectors more, with masks.
constexpr index SHORT_ROW = 1024;

// And of one that is streamed, if rows lie end to end: many are written into the first cache so, and streamed from there.
constexpr index GATHERED_ROW = 256;

// Narrow rows that the widest vectors join (narrow_rows.hpp); narrower ones a part of them.
constexpr index JOINED_ROWS = 16;

// Whether a core's first-level cache holds more than 32 KiB (machine.cpp). What was sent for into a smaller one is gone
// before it is read.
__attribute__((visibility("hidden"))) extern const bool roomy_first_cache;

// A group's count, mean and sum of squares about the mean; the mean is the unevaluated sum mean + low.
struct Moments {
    double count, mean, low, m2;
};

// Powers of two that bring a group into range: its elements enter the statistics as (x * before - pivot) * after.
// {1, 1} unless squares would overflow (before small) or vanish (after large).
struct Range {
    double before, after;
};

// What a group's statistics are finished with: variance m2 / (count - ddof), plus eps.
struct Finish {
    double ddof, eps;
};

// How weight and bias (none, weight alone, or both) lie along rows: an element for every `segment` elements of a row, and
// every `period` rows the same ones again. Layer norm: 1 and 1. Group norm: an element a channel, a row a group of
// channels.
template <class T>
struct RowAffine {
    const T *weight, *bias;
    index segment, period;
    index first;   // of the rows, as the period counts them
};

// Norm of contiguous rows. centered: about the mean, or (RMS norm) about 0. mean and rstd: one a row, or null. rows_norm
// takes weights of segment 1, rows_norm_segments (centered) those of longer ones. rows_add_norm normalizes x + residual,
// rounded to S, and writes that to sum; its weights have segment and period 1.
template <class S>
struct RowsNorm {
    const S* x;
    S* y;
    index rows, cols, x_stride, y_stride;
    RowAffine<Arith<S>> affine;
    Finish finish;
    Arith<S>*mean, *rstd;
    bool stream;   // results with non-temporal stores
    index ahead;   // rows from the one that is read to the one that is sent for: farther where streamed
    bool beyond;   // x comes from, and y goes to, farther than the nearer caches
    bool far;      // and from and to memory
    bool centered;
    bool across;   // rows of y are short (SHORT_ROW, GATHERED_ROW)
    const S* residual;
    S* sum;
    index residual_stride, sum_stride;
    Arith<S>* held;   // where streamed: room for a row of sums
};

// The gradients of a norm of contiguous rows. What rows add to the weight's and the bias's is added to dweight and dbias,
// an element a column (RMS norm, not centered, has no dbias). dx may be x.
template <class S>
struct RowsBackward {
    const S *x, *dy;
    S* dx;
    index rows, cols, x_stride, dy_stride, dx_stride;
    const Arith<S>* weight;   // an element a column
    Finish finish;
    Arith<S>*dweight, *dbias;
    bool stream;   // dx with non-temporal stores
    bool far;      // x and dy come from memory, and dx is streamed
    index ahead;   // rows from the one that is read to the one that is sent for
    bool centered;
};

// The sums of `blocks` rows of partial sums, taken in double, in order.
template <class T>
struct Partials {
    const T* partial;
    index blocks, cols, stride;
    T* sum;
};

// How groups are applied, an element a group (a row, or a column):
//   y = (((x * before - mean) * after - low) * scale) * weight + bias
// weight and bias: of rows, both or neither; of columns, both, neither, or the bias alone. row_weight and row_bias, an
// element a row of a block of columns, take their place where the normalized axis carries them. Null before and after: all
// in range.
template <class T>
struct Lines {
    T *mean, *low, *scale, *before, *after;
    const T *weight, *bias, *row_weight, *row_bias;
};

// Applies lines to rows (an element of each array a row) or to columns (an element a column).
template <class S>
struct Apply {
    const S* x;
    S* y;
    index rows, cols, x_stride, y_stride;
    Lines<Arith<S>> line;
    bool stream;
    bool apart;   // of columns: rows lie apart, and come from and go farther than the nearer caches
};

// Rows' moments, an element a row: the mean is mean + low.
template <class S>
struct RowsMoments {
    const S* x;
    index rows, cols, stride;
    Range range;
    double *mean, *low, *m2;
    bool far;   // x comes from memory, or from a cache that is shared
};

// The partial moments of a block of rows of at most COLUMN_TILE columns, an element a column; the mean is pivot + low. Sums
// of COLUMN_BLOCK rows each are added.
template <class S>
struct ColumnsMoments {
    const S* x;
    index rows, cols, stride;
    bool centered;
    const Arith<S>*before, *after;
    Arith<S>*pivot, *low, *m2;
    bool beyond;        // it pays to send for x
    bool mostly, far;   // more of x than others leave of the caches comes from memory, or all of it
};

// The moments of cols groups from those of `blocks` blocks. Those of a block stand `stride` elements behind the last
// block's, those of a group `step` elements behind the last group's. Every block counts `count` but the `lasts` last ones.
template <class T, class A>
struct Blocks {
    const T *mean, *low, *m2;
    index blocks, stride, cols, step;
    double count, last;
    const A* after;   // of Range; null: all in range
    double *mean_out, *low_out, *m2_out;
    index lasts = 1;
};

// sum(dy) and sum(dy (x - mean)) of cols cells from those of their pieces, which stand one after the other `stride`
// elements apart; a piece's mean is pivot + low, and mean and mean_low are the cell's.
template <class T, class A>
struct Products {
    const T *pivot, *low, *sum, *product;
    index pieces, stride, cols;
    const A* after;   // as Blocks has it
    const double *mean, *mean_low;
    double *sum_out, *product_out;
};

// The lines of cols groups from their moments, and the statistics to return (or null). The result: were all in range?
template <class T>
struct Finishing {
    index cols;
    double count;
    const double *mean, *low, *m2;
    Finish how;
    Lines<T> line;
    T *true_mean, *rstd;
    double* scale = nullptr;   // likewise: the line's, before it was rounded
};

// Lines from statistics that are given, an element a group; they go to true_mean and rstd, too, or these are null.
template <class T>
struct Given {
    index cols;
    const T *mean, *var;
    double eps;
    Lines<T> line;   // mean, low and scale
    T *true_mean, *rstd;
};

// product = scale * weight, which is weighed no more: weight becomes 1. But where that leaves the range of T, product is
// the scale, and the weight remains. The result: are there such?
template <class T>
struct Joining {
    index cols;
    const T* scale;
    T *weight, *product;
};

// Weighted moments, an element a column (of at most COLUMN_BLOCK rows), or an element a row. The weight of an element
// stands at row * weight_row + column * weight_col, weight_col 0 or 1; of rows 1, or 0 where all weigh 1 and NaN is
// skipped. Elements of weight 0 do not exist, nor does NaN where it is to be skipped. The mean is pivot + low. With a dy
// (or null), which lies as x does, and the mask of a norm: sum = sum(dy) and product = sum(dy (x - mean)) of all elements,
// masked or not, but those whose dy is 0: what has no weight was normalized nevertheless.
template <class S, class W>
struct Weighted {
    const S *x, *dy;
    const W* weight;
    index rows, cols, stride, weight_row, weight_col;
    bool skipna;
    const Arith<S>*before, *after;   // of Range; never null
    double *count, *pivot, *low, *m2, *sum, *product;
};

// Moments of x together with sum = sum(dy) and product = sum(dy (x - mean)), an element a column (of at most COLUMN_BLOCK
// rows), or an element a row.
template <class S>
struct Comoments {
    const S *x, *dy;
    index rows, cols, stride, dy_stride;
    const Arith<S>*before, *after;   // of Range; null: all in range
    Arith<S>*pivot, *low, *m2, *sum, *product;
    bool far;           // x and dy come from memory
    index left, jump;   // of rows: what comes `left` elements behind x lies `jump` elements further on
};

// dx = ((dy * weight - shift) - (((x * before - mean) * after - low) * slope) * gain * before * after, its parameters an
// element a column or an element a row; all of them given, but weight may be null. plain: without shift and slope.
// lows: low is not 0 everywhere; ranged: before and after are not 1 everywhere. Of rows, which are channels of several
// samples, the weight begins with channel 0, and if it wraps, so do the others: row 0 is of channel `first`.
template <class S>
struct Gradient {
    const S *x, *dy;
    S* dx;
    index rows, cols, x_stride, dy_stride, stride;
    const Arith<S>*mean, *low, *before, *after, *shift, *slope, *gain, *weight;
    bool stream, plain, lows, ranged;
    index first = 0, channels = 0;
    bool wraps = false;
};

// The least and the greatest of each row, or of each column; both NaN where it holds NaN or an infinity. Of rows either
// may be null.
template <class S>
struct Extremes {
    const S* x;
    index rows, cols, stride;
    Arith<S>*min, *max;
    bool far = false;   // as RowsMoments has it
};

// What the least and the greatest of a group become.
template <class T>
struct Ends {
    T lower, upper;
};

// How groups are scaled between their extremes, an element a group (a row, or a column):
//   y = ((x * before - min) * after) * scale + lower,   at most upper, and upper itself where x is max
// before and after are powers of two. Both null: all 1.
template <class T>
struct Scales {
    T *min, *max, *scale, *before, *after;
};

template <class T>
struct FinishExtremes {
    index groups;
    const T *min, *max;
    Ends<T> ends;
    Scales<T> by;
};

template <class S>
struct Scale {
    const S* x;
    S* y;
    index rows, cols, x_stride, y_stride;
    Scales<Arith<S>> by;
    Ends<Arith<S>> ends;
    bool stream;
};

template <class S>
struct Kernels {
    void (*rows_norm)(const RowsNorm<S>&);
    void (*rows_norm_segments)(const RowsNorm<S>&);
    void (*rows_add_norm)(const RowsNorm<S>&);
    void (*rows_backward)(const RowsBackward<S>&);
    void (*sum_partials)(const Partials<Arith<S>>&);
    void (*rows_moments)(const RowsMoments<S>&);
    void (*rows_apply)(const Apply<S>&);
    void (*columns_moments)(const ColumnsMoments<S>&);
    void (*columns_apply)(const Apply<S>&);
    void (*merge_blocks)(const Blocks<Arith<S>, Arith<S>>&);
    void (*merge_moments)(const Blocks<double, Arith<S>>&);
    void (*merge_products)(const Products<Arith<S>, Arith<S>>&);
    void (*merge_double_products)(const Products<double, Arith<S>>&);
    void (*take_given)(const Given<Arith<S>>&);
    bool (*join_weights)(const Joining<Arith<S>>&);
    bool (*finish_groups)(const Finishing<Arith<S>>&);
    void (*rows_extremes)(const Extremes<S>&);
    void (*columns_extremes)(const Extremes<S>&);
    bool (*finish_extremes)(const FinishExtremes<Arith<S>>&);   // the result: are before and after all 1?
    void (*rows_scale)(const Scale<S>&);
    void (*columns_scale)(const Scale<S>&);
    void (*widen)(const S* x, Arith<S>* y, index n);
    void (*rows_masked)(const Weighted<S, std::uint8_t>&);
    void (*rows_weighted)(const Weighted<S, double>&);
    void (*columns_masked)(const Weighted<S, std::uint8_t>&);
    void (*columns_weighted)(const Weighted<S, double>&);
    void (*rows_comoments)(const Comoments<S>&);
    void (*columns_comoments)(const Comoments<S>&);
    void (*rows_gradient)(const Gradient<S>&);
    void (*columns_gradient)(const Gradient<S>&);
};

struct Table {
    Kernels<float> f32;
    Kernels<double> f64;
    Kernels<Float16> f16;
    Kernels<BFloat16> bf16;
    // The ceilings that a norm is measured against.
    void (*copy)(const float* x, float* y, index n, bool stream);
    double (*read)(const float* x, index n);
};

// One of each for every instruction set: fills in the kernels of its file.
#define ONEPASS_DECLARE(isa)                      \
    namespace isa {                               \
    void add_rows(Table& table);                  \
    void add_rows_add(Table& table);              \
    void add_rows_apply(Table& table);            \
    void add_rows_backward(Table& table);         \
    void add_columns(Table& table);               \
    void add_columns_apply(Table& table);         \
    void add_groups(Table& table);                \
    void add_extremes(Table& table);              \
    void add_weighted(Table& table);              \
    void add_groups_backward(Table& table);       \
    void add_groups_backward_apply(Table& table); \
    void add_ceilings(Table& table);              \
    }
ONEPASS_DECLARE(baseline)
#if defined(__x86_64__)
ONEPASS_DECLARE(v3)
ONEPASS_DECLARE(v4)
#endif
#undef ONEPASS_DECLARE

}   // namespace onepass
