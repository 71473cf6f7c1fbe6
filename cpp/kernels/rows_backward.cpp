// Gradients of a norm of contiguous rows, from those of its result:
//
//   y = xhat * weight + bias,  xhat = (x - mean) * rstd,  g = dy * weight
//   dx = rstd * (g - c1 - xhat * c2),  c1 = mean(g),  c2 = mean(g * xhat)
//   dweight = sum over rows of dy * xhat,  dbias = sum over rows of dy
//
// (Ba, Kiros & Hinton 2016.) For d mean / dx_j = 1/n and d rstd / dx_j = -rstd^2 xhat_j / n, whatever eps is: of what x_j
// does to all of the row, the mean's share is c1 and the deviation's xhat_j * c2. RMS norm (Zhang & Sennrich 2019) has no
// mean, and so no c1.
//
// x and dy come from memory once: x for its moments, dy for the sums, and both from the cache for dx. dweight and dbias are
// added up in the arithmetic type, row after row, so that how many rows are taken together is no matter of bits.
//
// dx is finite wherever it can be, as far as |dy * weight| stays below a quarter of the largest number; dweight and dbias
// as far as the sums over the rows of one call do.
#include "kernels/row_line.hpp"
#include "kernels/write.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Rows that share one trip over weight, dweight and dbias. More would not leave x and dy in the first-level cache.
constexpr int BAND = 2;

// dy enters g as dy * down, dx leaves as dx * up: {1, 1} unless the sums would overflow.
template <class T>
struct Gradient {
    Line<T> line;
    T down, up, c1, c2;
};

template <bool CENTERED, bool LOW, bool RANGED, class T>
struct Normalized {
    Deviation<T, LOW, RANGED> deviation;
    Vec<T> scale;
    ONEPASS_INLINE explicit Normalized(const Line<T>& line) : deviation(line), scale(splat(line.scale)) {}
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x) const {
        if constexpr (CENTERED || RANGED) x = deviation(x);
        return x * scale;
    }
};

// c1 and c2 of rows row..row + ROWS; ADDS: and what they add to dweight and dbias. Sums are taken in blocks of the row, as
// its moments are.
template <int ROWS, bool CENTERED, bool LOW, bool RANGED, bool ADDS, class S>
ONEPASS_INLINE void sum_rows(const RowsBackward<S>& a, index row, Gradient<Arith<S>>* rows) {
    using T = Arith<S>;
    constexpr index SIZE = index(BLOCK) * CHUNK * LANES<T>;
    const T* weight = a.weight;
    T *dweight = a.dweight, *dbias = a.dbias;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    double g_total[ROWS] = {}, gx_total[ROWS] = {};
    for (index start = 0; start < a.cols; start += SIZE) {
        const index end = a.cols - start < SIZE ? a.cols : start + SIZE;
        Vec<T> g_sum[ROWS][PARTS] = {}, gx_sum[ROWS][PARTS] = {};
        const auto step = [&](index i, int part, auto lanes) ONEPASS_FLAT {
            const Vec<T> w = held(load(weight + i, lanes));
            Vec<T> dw = {}, db = {};
            if constexpr (ADDS) dw = load(dweight + i, lanes);
            if constexpr (ADDS && CENTERED) db = load(dbias + i, lanes);
#pragma GCC unroll 2
            for (int r = 0; r < ROWS; ++r) {
                const Normalized<CENTERED, LOW, RANGED, T> normalized(rows[r].line);
                const Vec<T> xhat = normalized(load(x + r * a.x_stride + i, lanes));
                const Vec<T> d = held(load(dy + r * a.dy_stride + i, lanes));
                if constexpr (ADDS) dw = dw + d * xhat;
                if constexpr (ADDS && CENTERED) db = db + d;
                const Vec<T> g = (RANGED ? d * splat(rows[r].down) : d) * w;
                if constexpr (CENTERED) g_sum[r][part] = g_sum[r][part] + g;
                gx_sum[r][part] = gx_sum[r][part] + g * xhat;
            }
            if constexpr (ADDS) store(dweight + i, dw, lanes);
            if constexpr (ADDS && CENTERED) store(dbias + i, db, lanes);
        };
        index i = start;
        for (; i + LANES<T> <= end; i += LANES<T>)
#pragma GCC unroll 4
            for (int part = 0; part < PARTS; ++part) step(i + part * WIDTH<T>, part, All{});
        if (i < end)
            for (int part = 0; part < PARTS; ++part) step(i + part * WIDTH<T>, part, First{end - i - part * WIDTH<T>});
        for (int r = 0; r < ROWS; ++r) {
            if constexpr (CENTERED) g_total[r] += double(sum_lanes(g_sum[r]));
            gx_total[r] += double(sum_lanes(gx_sum[r]));
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        rows[r].c1 = T(g_total[r] / double(a.cols));
        rows[r].c2 = T(gx_total[r] / double(a.cols));
    }
}

template <bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE void write_dx(const RowsBackward<S>& a, index row, const Gradient<Arith<S>>& of, Edge<S>& edge) {
    using T = Arith<S>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const T* weight = a.weight;
    const Normalized<CENTERED, LOW, RANGED, T> normalized(of.line);
    const Vec<T> c1 = splat(of.c1), c2 = splat(of.c2), scale = splat(of.line.scale);
    // 1 / deviation in true units may be beyond T, where its product with g is not. The greater power comes last.
    const Vec<T> down = splat(of.down), back = splat(of.line.before * of.up), after = splat(of.line.after);
    const auto value = [&](index i, auto lanes) ONEPASS_FLAT {
        const Vec<T> xhat = normalized(load(x + i, lanes));
        Vec<T> g = load(dy + i, lanes);
        if constexpr (RANGED) g = g * down;
        g = g * load(weight + i, lanes);
        if constexpr (CENTERED) g = g - c1;
        const Vec<T> dx = (g - xhat * c2) * scale;
        if constexpr (RANGED) return dx * back * after;
        return dx;
    };
    const bool joined = row + 1 < a.rows && rows_join<S>(a.stream, a.cols, a.dx_stride);
    write_row<T>(a.dx + row * a.dx_stride, a.cols, value, a.stream, joined, edge);
}

template <class T>
ONEPASS_INLINE bool finite(T a) {
    return a - a == 0;
}

// Any row, with all that is left out of the rows of a band.
template <bool CENTERED, class S>
__attribute__((noinline)) void ranged_row(const RowsBackward<S>& a, index row, Gradient<Arith<S>> of, bool summed,
                                          Edge<S>& edge) {
    using T = Arith<S>;
    if (!summed) sum_rows<1, CENTERED, true, true, true>(a, row, &of);
    if (!finite(of.c1) || !finite(of.c2)) {
        of.down = T(Limits<T>::shrink);
        of.up = T(1 / Limits<T>::shrink);
        sum_rows<1, CENTERED, true, true, false>(a, row, &of);
    }
    write_dx<CENTERED, true, true>(a, row, of, edge);
}

template <bool CENTERED, bool LOW, int ROWS, class S>
ONEPASS_INLINE void plain_rows(const RowsBackward<S>& a, index row, Gradient<Arith<S>>* rows, Edge<S>& edge) {
    sum_rows<ROWS, CENTERED, LOW, false, true>(a, row, rows);
    for (int r = 0; r < ROWS; ++r) {
        if (__builtin_expect(finite(rows[r].c1) && finite(rows[r].c2), 1))
            write_dx<CENTERED, LOW, false>(a, row + r, rows[r], edge);
        else
            ranged_row<CENTERED>(a, row + r, rows[r], true, edge);
    }
}

template <bool CENTERED, int ROWS, class S>
ONEPASS_INLINE void band(const RowsBackward<S>& a, index row, Edge<S>& edge) {
    using T = Arith<S>;
    Gradient<T> rows[ROWS];
    bool low = false, ranged = false;
    for (int r = 0; r < ROWS; ++r) {
        Finished f;
        const Line<T> line = line_of<CENTERED, T>(Plain<S>{a.x + (row + r) * a.x_stride}, a.cols, a.finish, f);
        rows[r] = {line, T(1), T(1), T(0), T(0)};
        low = low || line.low != 0;
        ranged = ranged || line.before != 1 || line.after != 1;
    }
    if (__builtin_expect(ranged, 0)) {
        for (int r = 0; r < ROWS; ++r) ranged_row<CENTERED>(a, row + r, rows[r], false, edge);
    } else if (CENTERED && low) {
        plain_rows<CENTERED, true, ROWS>(a, row, rows, edge);
    } else {
        plain_rows<CENTERED, false, ROWS>(a, row, rows, edge);
    }
}

template <bool CENTERED, class S>
void all_rows(const RowsBackward<S>& a) {
    Edge<S> edge;
    index row = 0;
    for (; row + BAND <= a.rows; row += BAND) band<CENTERED, BAND>(a, row, edge);
    for (; row < a.rows; ++row) band<CENTERED, 1>(a, row, edge);
    if (a.stream) stream_fence();
}

template <class S>
void rows_backward(const RowsBackward<S>& a) {
    a.centered ? all_rows<true>(a) : all_rows<false>(a);
}

template <class T>
void sum_partials(const Partials<T>& a) {
    constexpr index TILE = 64;   // columns
    for (index from = 0; from < a.cols; from += TILE) {
        const index n = a.cols - from < TILE ? a.cols - from : TILE;
        double sum[TILE] = {};
        for (index block = 0; block < a.blocks; ++block) {
            const T* partial = a.partial + block * a.stride + from;
            for (index i = 0; i < n; ++i) sum[i] += double(partial[i]);
        }
        for (index i = 0; i < n; ++i) a.sum[from + i] = T(sum[i]);
    }
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.rows_backward = rows_backward<S>;
    kernels.sum_partials = sum_partials<Arith<S>>;
}

}   // namespace

void add_rows_backward(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
