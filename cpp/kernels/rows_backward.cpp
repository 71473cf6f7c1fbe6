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
// x and dy are read twice. Once from memory, for all sums: c2 as well needs no mean but the pivot that the moments are
// taken about (sums.hpp), for
//
//   sum(g * (x - mean)) = sum(g * (x - p)) - (mean - p) * sum(g)
//
// and p is near enough to cost no more digits here than there. Then from the cache, for dx and for what the row adds to
// dweight and dbias. (Where dx is streamed a row at a time: two, with a trip over dweight and dbias saved, left no room in
// the first-level cache for rows on their way from memory. And no stores while x and dy are on their way: they would wait
// for them, and the next loads for the stores.) Where p was astray, or the sums of products overflow or have lost digits
// below the least normal number, c1 and c2 are summed once more, from xhat.
//
// dx is finite wherever it can be, as far as |dy * weight| stays below a quarter of the largest number; dweight and dbias
// as far as the sums over the rows of one call do.
#include "kernels/gradient_sums.hpp"
#include "kernels/write_across.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// dy enters g as dy * down, dx leaves as dx * up: {1, 1} unless the sums would overflow.
template <class T>
struct Gradient {
    Line<T> line;
    T down, up, c1, c2;
};

// Whether two rows are written at once. With AVX-512 only such as fill a roomy first cache with what is read beside them.
template <class S>
ONEPASS_INLINE bool in_pairs(const RowsBackward<S>& a) {
    const index least = NATIVE == 64 && roomy_first_cache ? 8 << 10 : 0;   // bytes
    return a.cols * index(sizeof(Arith<S>)) >= least && pair<S>(a.stream, a.dx_stride);
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

// c1 and c2 from the sums of a row, and what its mean has `beyond` the pivot; NaN where these are not to be had from them.
// (No branch: the sign of a mean product is as good as random, so every second one would be mispredicted.)
struct Means {
    double c1, c2;
};
template <class T, class Number = Constants<false>>
ONEPASS_INLINE Means means_of(double g, double gx, double beyond, double of_count, double scale) {
    constexpr double LEAST = double(Limits<T>::least_normal) / (sizeof(T) == 4 ? 0x1p-23 : 0x1p-52);
    const double c2 = (gx - beyond * g) * of_count * scale;
    return {g * of_count, __builtin_fabs(gx * of_count) >= Number()(LEAST) ? c2 : __builtin_nan("")};
}
template <class Number = Constants<false>, class T>
ONEPASS_INLINE Gradient<T> gradient_of(const Line<T>& line, double g, double gx, double beyond, double of_count) {
    const Means of = means_of<T, Number>(g, gx, beyond, of_count, double(line.scale));
    return {line, T(1), T(1), T(of.c1), T(of.c2)};
}

// The moments of a row, and the sums beside them, in blocks.
template <Sends WHO, bool LINES, bool CENTERED, class S>
ONEPASS_INLINE Gradient<Arith<S>> read_row(const RowsBackward<S>& a, index row, double inverse, double of_count) {
    using T = Arith<S>;
    typedef Constants<WHO == Sends::soon || WHO == Sends::both> Number;
    const Plain<S> x = {a.x + row * a.x_stride};
    const T pivot = CENTERED ? choose_pivot<T, Number>(x, a.cols, T(1)) : T(0);
    double g = 0, gx = 0;
    const Moments m = joined_blocks(a.cols, BLOCK_SIZE<T>, double(pivot), [&](index start, index n) ONEPASS_FLAT {
        const LaneSums<T> sums = sum_lanes_of<WHO, LINES, CENTERED>(a, row, start, start + n, pivot);
        if constexpr (CENTERED) g += double(sum_lanes(sums.products.g));
        gx += double(sum_lanes(sums.products.gx));
        return moments_of<T>(sums.x, n, 1.0 / double(n));
    });
    Finished f;
    const Line<T> line = line_of<CENTERED, T, Number>(m, x, a.cols, a.finish, inverse, f);
    return gradient_of<Number>(line, g, gx, CENTERED && astray<Number>(m) ? __builtin_nan("") : m.low, of_count);
}

// c1 and c2 from xhat, summed in blocks of the row, as its moments are.
template <bool CENTERED, class S>
ONEPASS_INLINE void sum_row(const RowsBackward<S>& a, index row, Gradient<Arith<S>>& of) {
    using T = Arith<S>;
    constexpr index SIZE = BLOCK_SIZE<T>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const Normalized<CENTERED, true, true, T> normalized(of.line);
    const Vec<T> down = splat(of.down);
    double c1 = 0, c2 = 0;
    for (index start = 0; start < a.cols; start += SIZE) {
        LaneProducts<T> sums;
        const auto add = [&](index i, int part, auto lanes) ONEPASS_FLAT {
            const Vec<T> g = load(dy + i, lanes) * down * load(a.weight + i, lanes);
            sums.g[part] = sums.g[part] + g;
            sums.gx[part] = sums.gx[part] + g * normalized(load(x + i, lanes));
        };
        for (index i = start; i < a.cols && i < start + SIZE; i += LANES<T>)
            for (int part = 0; part < PARTS; ++part) {
                const index at = i + part * WIDTH<T>, left = a.cols - at;
                left >= WIDTH<T> ? add(at, part, All{}) : add(at, part, First{left});
            }
        c1 += double(sum_lanes(sums.g));
        c2 += double(sum_lanes(sums.gx));
    }
    of.c1 = T(c1 / double(a.cols));
    of.c2 = T(c2 / double(a.cols));
}

// dx from g and xhat, but for what brings a row into range.
template <bool CENTERED, class T>
ONEPASS_INLINE Vec<T> dx_of(Vec<T> g, Vec<T> xhat, Vec<T> c1, Vec<T> c2, Vec<T> scale) {
    if constexpr (CENTERED) g = g - c1;
    return (g - xhat * c2) * scale;
}

template <Sends WHO, bool CENTERED, bool LOW, bool RANGED, class S>
ONEPASS_INLINE void write_dx(const RowsBackward<S>& a, index row, const Gradient<Arith<S>>& of, Edge<S>& edge) {
    using T = Arith<S>;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const T* weight = a.weight;
    T *dweight = a.dweight, *dbias = a.dbias;
    const Normalized<CENTERED, LOW, RANGED, T> normalized(of.line);
    const Vec<T> c1 = splat(of.c1), c2 = splat(of.c2), scale = splat(of.line.scale);
    // 1 / deviation in true units may be beyond T, where its product with g is not. The greater power comes last.
    const Vec<T> down = splat(of.down), back = splat(of.line.before * of.up), after = splat(of.line.after);
    const auto later = sent_for<WHO, true>(a, row);
    const auto source = [=](index i, auto lanes) ONEPASS_FLAT {
        later.at(i);
        return Both<T>{load(x + i, lanes), load(dy + i, lanes)};
    };
    const auto value = [=](Both<T> of, index i, auto lanes) ONEPASS_FLAT {
        const Vec<T> xhat = normalized(of.x), d = of.dy;
        store(dweight + i, load(dweight + i, lanes) + d * xhat, lanes);
        if constexpr (CENTERED) store(dbias + i, load(dbias + i, lanes) + d, lanes);
        const Vec<T> g = (RANGED ? d * down : d) * load(weight + i, lanes), dx = dx_of<CENTERED>(g, xhat, c1, c2, scale);
        return RANGED ? dx * back * after : dx;
    };
    const bool stream = WHO == Sends::last ? a.stream : WHO != Sends::none,
               joined = row + 1 < a.rows && rows_join<S>(stream, a.cols, a.dx_stride);
    S* dx = a.dx + row * a.dx_stride;
    if constexpr (MAY_MOVE && (WHO == Sends::both || WHO == Sends::soon || (WHO == Sends::last && sizeof(S) < sizeof(T)))) {
        const index lead = to_line(dweight) % WIDTH<T>;
        if (stream && (to_line(dx) - lead) % WIDTH<T> != 0 && a.cols >= 4 * Edge<S>::LINE)
            return stream_across<T>(dx, lead, a.cols, source, value, joined, edge);
    }
    write_row<T>(dx, lead_of(dx, dweight, stream), a.cols, source, value, stream, joined, edge,
                 Alone<sizeof(S) != sizeof(T)>{});
}

// Two rows at once, not streamed: weight is read, and dweight and dbias are read and written, for both.
template <bool CENTERED, bool LOW, class S>
ONEPASS_INLINE void write_two_dx(const RowsBackward<S>& a, index row, const Gradient<Arith<S>> (&of)[2]) {
    using T = Arith<S>;
    const S* x[] = {a.x + row * a.x_stride, a.x + (row + 1) * a.x_stride};
    const S* dy[] = {a.dy + row * a.dy_stride, a.dy + (row + 1) * a.dy_stride};
    const T* weight = a.weight;
    T *dweight = a.dweight, *dbias = a.dbias;
    typedef Normalized<CENTERED, LOW, false, T> Normal;
    const Normal normalized[] = {Normal(of[0].line), Normal(of[1].line)};
    const Vec<T> c1[] = {splat(of[0].c1), splat(of[1].c1)}, c2[] = {splat(of[0].c2), splat(of[1].c2)},
                 scale[] = {splat(of[0].line.scale), splat(of[1].line.scale)};
    Vec<T> w, products, sums;   // from the first row for the second
    const auto value = [&](int k, index i, auto lanes) ONEPASS_FLAT {
        const Vec<T> xhat = normalized[k](load(x[k] + i, lanes)), d = held(load(dy[k] + i, lanes));
        if (k == 0) w = held(load(weight + i, lanes));
        products = (k == 0 ? load(dweight + i, lanes) : products) + d * xhat;
        if constexpr (CENTERED) sums = (k == 0 ? load(dbias + i, lanes) : sums) + d;
        if (k == 1) {
            store(dweight + i, products, lanes);
            if constexpr (CENTERED) store(dbias + i, sums, lanes);
        }
        return dx_of<CENTERED>(d * w, xhat, c1[k], c2[k], scale[k]);
    };
    S* dx = a.dx + row * a.dx_stride;
    write_two<T>(dx, a.dx_stride, lead_of(dx, dweight, false), a.cols, value);
}

template <class T>
ONEPASS_INLINE bool finite(const Gradient<T>& of) {
    return of.c1 - of.c1 == 0 && of.c2 - of.c2 == 0;
}

// Whether g is zero in all of a row, as for what a loss leaves out;
template <class S>
ONEPASS_INLINE bool nothing(const RowsBackward<S>& a, index row) {
    const S* dy = a.dy + row * a.dy_stride;
    return all_zero<Arith<S>>(
        a.cols, [&](index i, auto lanes) ONEPASS_FLAT { return load(dy + i, lanes) * load(a.weight + i, lanes); });
}
// or xhat, as for what was padded with zeros.
template <bool CENTERED, class S>
ONEPASS_INLINE bool constant(const RowsBackward<S>& a, index row) {
    const S* x = a.x + row * a.x_stride;
    return all_zero<Arith<S>>(CENTERED ? a.cols - 1 : a.cols, [&](index i, auto lanes) ONEPASS_FLAT {
        const auto v = load(x + i, lanes);
        return CENTERED ? v - load(x + i + 1, lanes) : v;
    });
}

// A row that is not in range, or whose sums were not to be had by the way.
template <bool CENTERED, class S>
__attribute__((noinline)) void ranged_row(const RowsBackward<S>& a, index row, Gradient<Arith<S>> of, Edge<S>& edge) {
    using T = Arith<S>;
    of.c2 = T(0);   // as it is where g or xhat is zero
    if (!of.line.ranged && finite(of) && (nothing(a, row) || constant<CENTERED>(a, row)))
        return write_dx<Sends::last, CENTERED, true, false>(a, row, of, edge);
    sum_row<CENTERED>(a, row, of);
    if (!finite(of)) {
        of.down = T(Limits<T>::shrink);
        of.up = T(1 / Limits<T>::shrink);
        sum_row<CENTERED>(a, row, of);
    }
    write_dx<Sends::last, CENTERED, true, true>(a, row, of, edge);
}

template <Sends WHO, bool CENTERED, class S>
ONEPASS_INLINE void write_row_of(const RowsBackward<S>& a, index row, const Gradient<Arith<S>>& of, Edge<S>& edge) {
    if (__builtin_expect(of.line.ranged || !finite(of), 0))
        ranged_row<CENTERED>(a, row, of, edge);
    else if (CENTERED && of.line.low != 0)
        write_dx<WHO, CENTERED, true, false>(a, row, of, edge);
    else
        write_dx<WHO, CENTERED, false, false>(a, row, of, edge);
}

// Two rows, by themselves where one is not as usual.
template <bool CENTERED, class S>
ONEPASS_INLINE void write_two_of(const RowsBackward<S>& a, index row, const Gradient<Arith<S>> (&of)[2], Edge<S>& edge) {
    if (__builtin_expect(of[0].line.ranged || of[1].line.ranged || !finite(of[0]) || !finite(of[1]), 0))
        for (int k = 0; k < 2; ++k) write_row_of<Sends::last, CENTERED>(a, row + k, of[k], edge);
    else if (CENTERED && (of[0].line.low != 0 || of[1].line.low != 0))
        write_two_dx<CENTERED, true>(a, row, of);
    else
        write_two_dx<CENTERED, false>(a, row, of);
}

// The rows from `row` on, as many as are joined.
template <Sends WHO, bool CENTERED, class S>
__attribute__((noinline)) void narrow_rows(const RowsBackward<S>& a, index row, double of_count, Edge<S>& edge) {
    constexpr bool LINES = MAY_TURN<S> && !CENTERED;
    Line<float> lines[SIDE];
    RowsNorm<S> norm = {};
    norm.cols = a.cols;
    norm.finish = a.finish;
    Vec<float> g[SIDE], gx[SIDE];
    const auto sums_of = [&](index i, float pivot) ONEPASS_FLAT {
        const LaneSums<float> sums = sum_lanes_of<WHO, LINES, CENTERED>(a, i, 0, a.cols, pivot);
        g[beside(int(i - row))] = fold_parts(sums.products.g, Plus());
        gx[beside(int(i - row))] = fold_parts(sums.products.gx, Plus());
        return fold_parts(sums.x, Plus());
    };
    double beyond[SIDE];
    narrow_lines<CENTERED>(
        norm, row, [&](index i) ONEPASS_FLAT { return Plain<S>{a.x + i * a.x_stride}; }, sums_of, lines, beyond);
    float sum[SIDE], product[SIDE];
    store(sum, fold_beside(g, Plus()));
    store(product, fold_beside(gx, Plus()));
    float scale[SIDE], c1[SIDE], c2[SIDE];
    for (int i = 0; i < SIDE; ++i) scale[i] = lines[i].scale;
    for (int i = 0; i < SIDE; ++i) {   // (becomes vector code)
        const Means of =
            means_of<float>(0.0 + double(sum[i]), 0.0 + double(product[i]), beyond[i], of_count, double(scale[i]));
        c1[i] = float(of.c1);
        c2[i] = float(of.c2);
    }
    const auto gradient = [&](int i) ONEPASS_FLAT { return Gradient<float>{lines[i], 1, 1, c1[i], c2[i]}; };
    if (WHO != Sends::both && pair<S>(a.stream, a.dx_stride))   // (both send where dx is streamed)
        for (int i = 0; i < SIDE; i += 2) write_two_of<CENTERED>(a, row + i, {gradient(i), gradient(i + 1)}, edge);
    else
        for (int i = 0; i < SIDE; ++i) write_row_of<WHO, CENTERED>(a, row + i, gradient(i), edge);
}

// All rows from `row` on but one that is left, which is the result.
template <bool LINES, bool CENTERED, class S>
__attribute__((noinline)) index pairs_of_rows(const RowsBackward<S>& a, index row, double inverse, double of_count,
                                              Edge<S>& edge) {
    const auto read = [&](index i) ONEPASS_FLAT { return read_row<Sends::last, LINES, CENTERED>(a, i, inverse, of_count); };
    for (; row + 2 <= a.rows; row += 2) write_two_of<CENTERED>(a, row, {read(row), read(row + 1)}, edge);
    return row;
}

template <Sends WHO, bool LINES, bool CENTERED, class S>
void all_rows(const RowsBackward<S>& a) {
    using T = Arith<S>;
    const double inverse = inverse_freedom(double(a.cols), a.finish), of_count = 1.0 / double(a.cols);
    Edge<S> edge;
    index row = 0;
    if constexpr (sizeof(T) == 4 && (WHO == Sends::last || WHO == Sends::both))
        if (narrow(a))
            for (; row + SIDE <= a.rows; row += SIDE) narrow_rows<WHO, CENTERED>(a, row, of_count, edge);
    if constexpr (WHO == Sends::none || WHO == Sends::last)
        if (in_pairs(a)) row = pairs_of_rows<LINES, CENTERED>(a, row, inverse, of_count, edge);
    for (; row < a.rows; ++row)
        write_row_of<WHO, CENTERED>(a, row, read_row<WHO, LINES, CENTERED>(a, row, inverse, of_count), edge);
    if (a.stream) stream_fence();
}

template <Sends WHO, bool CENTERED, class S>
ONEPASS_INLINE void choose_lines(const RowsBackward<S>& a) {
    if constexpr (MAY_TURN<S>)
        if (by_lines<CENTERED>(a)) return all_rows<WHO, true, CENTERED>(a);
    all_rows<WHO, false, CENTERED>(a);
}
template <class S>
void rows_backward(const RowsBackward<S>& a) {
    const Sends who = who_sends(a);
    if constexpr (MAY_SEND<S>)
        if (who == Sends::both)
            return a.centered ? choose_lines<Sends::both, true>(a) : choose_lines<Sends::both, false>(a);
    if constexpr (MAY_SEND_SOON<S>)
        if (who == Sends::soon) return all_rows<Sends::soon, false, true>(a);
    if (who == Sends::none) return choose_lines<Sends::none, true>(a);
    a.centered ? choose_lines<Sends::last, true>(a) : choose_lines<Sends::last, false>(a);
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
