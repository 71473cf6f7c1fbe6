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
// x and dy come from memory once: x for its moments, dy for c1 and c2, both from the cache for dx and for what the row adds
// to dweight and dbias. (A row at a time: two, with a trip over dweight and dbias saved, left no room in the first-level
// cache for rows on their way from memory. And no stores while dy is on its way: they would wait for it, and the next loads
// for them.)
//
// dx is finite wherever it can be, as far as |dy * weight| stays below a quarter of the largest number; dweight and dbias
// as far as the sums over the rows of one call do.
#include "kernels/ahead.hpp"
#include "kernels/narrow_rows.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// dy enters g as dy * down, dx leaves as dx * up: {1, 1} unless the sums would overflow.
template <class T>
struct Gradient {
    Line<T> line;
    T down, up, c1, c2;
};

// Narrow rows are joined side by side, c1 and c2 as well (but where conversions are most of the work).
template <class S>
ONEPASS_INLINE bool narrow(const RowsBackward<S>& a) {
    if (sizeof(Arith<S>) > 4 || (NATIVE < 64 && sizeof(S) == 2)) return false;
    const index most = sizeof(S) == 2 ? 2048 : NATIVE == 64 && a.far ? 1024 : 1536;   // bytes
    return a.rows >= SIDE && a.cols >= LANES<float> && a.cols * index(sizeof(S)) <= most;
}

// Where each reading sends for a later row: where dx is streamed, if arithmetic does not take longer than memory. (Wide
// rows leave little room in the first cache for what was sent for, so it had better come late.)
template <class S>
constexpr bool MAY_SHARE = NATIVE == 64 || (NATIVE == 32 && sizeof(S) > 2);
template <class S>
ONEPASS_INLINE bool shared(const RowsBackward<S>& a) {
    const index least = (NATIVE == 64 ? 0 : 8 << 10) + (a.far ? 0 : 8 << 10);   // bytes
    return a.stream && !narrow(a) && a.cols * index(sizeof(S)) >= least;
}

// What the reading number TIME of a row sends for: 0 for its moments, 1 for c1 and c2, 2 for dx. Where SHARED each for all
// of a later row: what is sent for while all places for what is underway are taken is lost, and the first two are quicker
// than memory is. The last one sends for all twice, or (in two steps) for what is three times as far. Else it sends alone.
template <bool SHARED, int TIME, class S>
ONEPASS_INLINE auto sent_for(const RowsBackward<S>& a, index row) {
    const index ahead = narrow(a) && a.ahead < SIDE ? index(SIDE) : a.ahead;
    const index later = row + ahead * (SHARED && TIME == 2 && !roomy_first_cache ? 3 : 1);
    constexpr Way WAY = !SHARED ? Way::straight : TIME == 2 ? Way::twice : Way::half;
    return Shares<S, 1, SHARED || TIME == 2 ? 2 : 0, WAY>{{a.x + later * a.x_stride, a.dy + later * a.dy_stride}};
}

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

// What each lane sums of g and of g * xhat.
template <class T>
struct LaneSums {
    Vec<T> g[PARTS] = {}, gx[PARTS] = {};
};

// Of the columns start..end of a row. Each chunk by itself, in the order in which it lies: one chain of additions for all
// of a row would take longer than to read it. (Added as they come: with all of them taken first, for in_order(), rows
// across cache lines take up to a tenth longer.)
template <bool SHARED, bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE LaneSums<Arith<S>> sum_lanes_of(const RowsBackward<S>& a, index row, index start, index end,
                                               const Line<Arith<S>>& line, Arith<S> scaled_down) {
    using T = Arith<S>;
    constexpr index STEP = CHUNK * LANES<T>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const Normalized<CENTERED, LOW, RANGED, T> normalized(line);
    const Vec<T> down = splat(scaled_down);
    const auto later = sent_for<SHARED, 1>(a, row);
    const auto add = [&](index i, Vec<T>& sum, Vec<T>& product, auto lanes) ONEPASS_FLAT {
        later.at(i);
        const Vec<T> xhat = normalized(load(x + i, lanes));
        Vec<T> g = load(dy + i, lanes);
        if constexpr (RANGED) g = g * down;
        g = g * load(a.weight + i, lanes);
        if constexpr (CENTERED) sum = sum + g;
        product = product + g * xhat;
    };
    LaneSums<T> sums;
    index i = start;
    for (; i + STEP <= end; i += STEP)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) {
            Vec<T> sum = {}, product = {};
#pragma GCC unroll 8
            for (int k = 0; k < CHUNK; ++k) add(i + k * LANES<T> + part * WIDTH<T>, sum, product, All{});
            if constexpr (CENTERED) sums.g[part] = sums.g[part] + sum;
            sums.gx[part] = sums.gx[part] + product;
        }
    for (; i + LANES<T> <= end; i += LANES<T>)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) add(i + part * WIDTH<T>, sums.g[part], sums.gx[part], All{});
    if (i < end)
        for (int part = 0; part < PARTS; ++part)
            add(i + part * WIDTH<T>, sums.g[part], sums.gx[part], First{end - i - part * WIDTH<T>});
    return sums;
}

// c1 and c2, summed in blocks of the row, as its moments are.
template <bool SHARED, bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE void sum_row(const RowsBackward<S>& a, index row, Gradient<Arith<S>>& of) {
    using T = Arith<S>;
    constexpr index SIZE = BLOCK_SIZE<T>;
    double g = 0, gx = 0;
    for (index start = 0; start < a.cols; start += SIZE) {
        const index end = a.cols - start < SIZE ? a.cols : start + SIZE;
        const LaneSums<T> sums = sum_lanes_of<SHARED, CENTERED, LOW, RANGED>(a, row, start, end, of.line, of.down);
        if constexpr (CENTERED) g += double(sum_lanes(sums.g));
        gx += double(sum_lanes(sums.gx));
    }
    of.c1 = T(g / double(a.cols));
    of.c2 = T(gx / double(a.cols));
}

template <bool SHARED, bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE void write_dx(const RowsBackward<S>& a, index row, const Gradient<Arith<S>>& of, Edge<S>& edge) {
    using T = Arith<S>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const T* weight = a.weight;
    T *dweight = a.dweight, *dbias = a.dbias;
    const Normalized<CENTERED, LOW, RANGED, T> normalized(of.line);
    const Vec<T> c1 = splat(of.c1), c2 = splat(of.c2), scale = splat(of.line.scale);
    // 1 / deviation in true units may be beyond T, where its product with g is not. The greater power comes last.
    const Vec<T> down = splat(of.down), back = splat(of.line.before * of.up), after = splat(of.line.after);
    const auto later = sent_for<SHARED, 2>(a, row);
    const auto source = [=](index i, auto lanes) ONEPASS_FLAT {
        later.at(i);
        return Both<T>{load(x + i, lanes), load(dy + i, lanes)};
    };
    const auto value = [=](Both<T> of, index i, auto lanes) ONEPASS_FLAT {
        const Vec<T> xhat = normalized(of.x), d = of.dy;
        store(dweight + i, load(dweight + i, lanes) + d * xhat, lanes);
        if constexpr (CENTERED) store(dbias + i, load(dbias + i, lanes) + d, lanes);
        Vec<T> g = (RANGED ? d * down : d) * load(weight + i, lanes);
        if constexpr (CENTERED) g = g - c1;
        const Vec<T> dx = (g - xhat * c2) * scale;
        return RANGED ? dx * back * after : dx;
    };
    const bool stream = SHARED || a.stream, joined = row + 1 < a.rows && rows_join<S>(stream, a.cols, a.dx_stride);
    S* dx = a.dx + row * a.dx_stride;
    write_row<T>(dx, lead_of(dx, dweight, stream), a.cols, source, value, stream, joined, edge,
                 Alone<sizeof(S) != sizeof(T)>{});
}

template <class T>
ONEPASS_INLINE bool finite(const Gradient<T>& of) {
    return of.c1 - of.c1 == 0 && of.c2 - of.c2 == 0;
}

// A row that is not in range, or whose sums overflow.
template <bool CENTERED, class S>
__attribute__((noinline)) void ranged_row(const RowsBackward<S>& a, index row, const Line<Arith<S>>& line, Edge<S>& edge) {
    using T = Arith<S>;
    Gradient<T> of = {line, T(1), T(1), T(0), T(0)};
    sum_row<false, CENTERED, true, true>(a, row, of);
    if (!finite(of)) {
        of.down = T(Limits<T>::shrink);
        of.up = T(1 / Limits<T>::shrink);
        sum_row<false, CENTERED, true, true>(a, row, of);
    }
    write_dx<false, CENTERED, true, true>(a, row, of, edge);
}

template <bool SHARED, bool CENTERED, bool LOW, class S>
ONEPASS_INLINE void plain_row(const RowsBackward<S>& a, index row, const Line<Arith<S>>& line, Edge<S>& edge) {
    using T = Arith<S>;
    Gradient<T> of = {line, T(1), T(1), T(0), T(0)};
    sum_row<SHARED, CENTERED, LOW, false>(a, row, of);
    if (__builtin_expect(finite(of), 1))
        write_dx<SHARED, CENTERED, LOW, false>(a, row, of, edge);
    else
        ranged_row<CENTERED>(a, row, line, edge);
}

// The rows from `row` on, as many as are joined.
template <bool CENTERED, class S>
__attribute__((noinline)) void narrow_rows(const RowsBackward<S>& a, index row, Edge<S>& edge) {
    Line<float> lines[SIDE];
    RowsNorm<S> norm = {};
    norm.cols = a.cols;
    norm.finish = a.finish;
    narrow_lines<CENTERED>(norm, row, [&](index i) ONEPASS_FLAT { return Plain<S>{a.x + i * a.x_stride}; }, lines);
    const auto plus = [](Vec<float> a, Vec<float> b, int) ONEPASS_FLAT { return a + b; };
    Vec<float> g[SIDE], gx[SIDE];
    for (int i = 0; i < SIDE; ++i) {
        const LaneSums<float> sums =
            CENTERED && lines[i].low != 0
                ? sum_lanes_of<false, CENTERED, true, false>(a, row + i, 0, a.cols, lines[i], 1.0F)
                : sum_lanes_of<false, CENTERED, false, false>(a, row + i, 0, a.cols, lines[i], 1.0F);
        g[beside(i)] = fold_parts(sums.g, plus);
        gx[beside(i)] = fold_parts(sums.gx, plus);
    }
    float c1[SIDE], c2[SIDE];
    store(c1, fold_beside(g, plus));
    store(c2, fold_beside(gx, plus));
    for (int i = 0; i < SIDE; ++i) {
        c1[i] = float((0.0 + double(c1[i])) / double(a.cols));
        c2[i] = float((0.0 + double(c2[i])) / double(a.cols));
    }
    for (int i = 0; i < SIDE; ++i) {
        const Gradient<float> of = {lines[i], 1, 1, c1[i], c2[i]};
        if (__builtin_expect(of.line.ranged || !finite(of), 0))
            ranged_row<CENTERED>(a, row + i, of.line, edge);
        else if (CENTERED && of.line.low != 0)
            write_dx<false, CENTERED, true, false>(a, row + i, of, edge);
        else
            write_dx<false, CENTERED, false, false>(a, row + i, of, edge);
    }
}

template <bool SHARED, bool CENTERED, class S>
void all_rows(const RowsBackward<S>& a) {
    using T = Arith<S>;
    Edge<S> edge;
    index row = 0;
    if constexpr (sizeof(T) == 4 && !SHARED)
        if (narrow(a))
            for (; row + SIDE <= a.rows; row += SIDE) narrow_rows<CENTERED>(a, row, edge);
    for (; row < a.rows; ++row) {
        Finished f;
        const auto x = sending<SHARED>(Plain<S>{a.x + row * a.x_stride}, sent_for<SHARED, 0>(a, row));
        const Line<T> line = line_of<CENTERED, T>(x, a.cols, a.finish, f);
        if (__builtin_expect(line.ranged, 0))
            ranged_row<CENTERED>(a, row, line, edge);
        else if (CENTERED && line.low != 0)
            plain_row<SHARED, CENTERED, true>(a, row, line, edge);
        else
            plain_row<SHARED, CENTERED, false>(a, row, line, edge);
    }
    if (a.stream) stream_fence();
}

template <class S>
void rows_backward(const RowsBackward<S>& a) {
    if constexpr (MAY_SHARE<S>)
        if (shared(a)) return a.centered ? all_rows<true, true>(a) : all_rows<true, false>(a);
    a.centered ? all_rows<false, true>(a) : all_rows<false, false>(a);
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
