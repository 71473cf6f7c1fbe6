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
#include "kernels/row_line.hpp"
#include "kernels/write.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// dy enters g as dy * down, dx leaves as dx * up: {1, 1} unless the sums would overflow.
template <class T>
struct Gradient {
    Line<T> line;
    T down, up, c1, c2;
};

// What the reading number TIME of a row sends for: 0 for its moments, 1 for c1 and c2, 2 for dx. From memory a third each,
// from a cache the last one all.
template <bool FAR, int TIME, class S>
ONEPASS_INLINE auto sent_for(const RowsBackward<S>& a, index row) {
    const index later = row + a.ahead;
    return Shares<S, FAR ? 3 : 1, FAR || TIME == 2 ? 2 : 0>{{a.x + later * a.x_stride, a.dy + later * a.dy_stride},
                                                            FAR ? a.cols * TIME / 3 : 0};
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

// c1 and c2, summed in blocks of the row, as its moments are.
template <bool FAR, bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE void sum_row(const RowsBackward<S>& a, index row, Gradient<Arith<S>>& of) {
    using T = Arith<S>;
    constexpr index SIZE = index(BLOCK) * CHUNK * LANES<T>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const Normalized<CENTERED, LOW, RANGED, T> normalized(of.line);
    const Vec<T> down = splat(of.down);
    const auto later = sent_for<FAR, 1>(a, row);
    double g_total = 0, gx_total = 0;
    for (index start = 0; start < a.cols; start += SIZE) {
        const index end = a.cols - start < SIZE ? a.cols : start + SIZE;
        Vec<T> g_sum[PARTS] = {}, gx_sum[PARTS] = {};
        const auto add = [&](index i, int part, auto lanes) ONEPASS_FLAT {
            later.at(i);
            const Vec<T> xhat = normalized(load(x + i, lanes));
            Vec<T> g = load(dy + i, lanes);
            if constexpr (RANGED) g = g * down;
            g = g * load(a.weight + i, lanes);
            if constexpr (CENTERED) g_sum[part] = g_sum[part] + g;
            gx_sum[part] = gx_sum[part] + g * xhat;
        };
        index i = start;
        for (; i + LANES<T> <= end; i += LANES<T>)
#pragma GCC unroll 4
            for (int part = 0; part < PARTS; ++part) add(i + part * WIDTH<T>, part, All{});
        if (i < end)
            for (int part = 0; part < PARTS; ++part) add(i + part * WIDTH<T>, part, First{end - i - part * WIDTH<T>});
        if constexpr (CENTERED) g_total += double(sum_lanes(g_sum));
        gx_total += double(sum_lanes(gx_sum));
    }
    of.c1 = T(g_total / double(a.cols));
    of.c2 = T(gx_total / double(a.cols));
}

template <bool FAR, bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE void write_dx(const RowsBackward<S>& a, index row, const Gradient<Arith<S>>& of, Edge<S>& edge) {
    using T = Arith<S>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const T* weight = a.weight;
    T *dweight = a.dweight, *dbias = a.dbias;
    const Normalized<CENTERED, LOW, RANGED, T> normalized(of.line);
    const Vec<T> c1 = splat(of.c1), c2 = splat(of.c2), scale = splat(of.line.scale);
    // 1 / deviation in true units may be beyond T, where its product with g is not. The greater power comes last.
    const Vec<T> down = splat(of.down), back = splat(of.line.before * of.up), after = splat(of.line.after);
    const auto later = sent_for<FAR, 2>(a, row);
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
    const bool stream = FAR || a.stream, joined = row + 1 < a.rows && rows_join<S>(stream, a.cols, a.dx_stride);
    S* dx = a.dx + row * a.dx_stride;
    write_row<T>(dx, lead_of(dx, dweight, stream), a.cols, source, value, stream, joined, edge);
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

template <bool FAR, bool CENTERED, bool LOW, class S>
ONEPASS_INLINE void plain_row(const RowsBackward<S>& a, index row, const Line<Arith<S>>& line, Edge<S>& edge) {
    using T = Arith<S>;
    Gradient<T> of = {line, T(1), T(1), T(0), T(0)};
    sum_row<FAR, CENTERED, LOW, false>(a, row, of);
    if (__builtin_expect(finite(of), 1))
        write_dx<FAR, CENTERED, LOW, false>(a, row, of, edge);
    else
        ranged_row<CENTERED>(a, row, line, edge);
}

template <bool FAR, bool CENTERED, class S>
void all_rows(const RowsBackward<S>& a) {
    using T = Arith<S>;
    Edge<S> edge;
    for (index row = 0; row < a.rows; ++row) {
        Finished f;
        const auto x = sending<FAR>(Plain<S>{a.x + row * a.x_stride}, sent_for<FAR, 0>(a, row));
        const Line<T> line = line_of<CENTERED, T>(x, a.cols, a.finish, f);
        if (__builtin_expect(line.ranged, 0))
            ranged_row<CENTERED>(a, row, line, edge);
        else if (CENTERED && line.low != 0)
            plain_row<FAR, CENTERED, true>(a, row, line, edge);
        else
            plain_row<FAR, CENTERED, false>(a, row, line, edge);
    }
    if (a.stream) stream_fence();
}

template <class S>
void rows_backward(const RowsBackward<S>& a) {
    // (Narrower vectors compute for longer than memory takes: there the last reading is enough.)
    if constexpr (NATIVE == 64)
        if (a.far) return a.centered ? all_rows<true, true>(a) : all_rows<true, false>(a);
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
