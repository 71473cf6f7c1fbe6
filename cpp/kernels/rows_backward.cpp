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
// dweight and dbias. (A row at a time: two, with a trip over dweight and dbias saved, left no room in the first-level cache
// for rows on their way from memory. And no stores while x and dy are on their way: they would wait for them, and the next
// loads for the stores.) Where p was astray, or the sums of products overflow or have lost digits below the least normal
// number, c1 and c2 are summed once more, from xhat.
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

// Which readings send for a later row: both, where dx is streamed, if arithmetic does not take longer than memory. (Wide
// rows leave little room in the first cache for what was sent for, so it had better come late.) Else the last one alone;
// and where rows come from a cache and dx is streamed, the first sends for what it reads SOON, of which some is gone again.
enum class Sends { last, soon, both };
template <class S>
constexpr bool MAY_SEND = NATIVE == 64 || (NATIVE == 32 && sizeof(S) > 2);
template <class S>
constexpr bool MAY_SEND_SOON = MAY_SEND<S> && sizeof(S) == 4;
template <class S>
ONEPASS_INLINE Sends who_sends(const RowsBackward<S>& a) {
    const index least = (NATIVE == 64 ? 0 : 8 << 10) + (a.far ? 0 : 8 << 10);   // bytes
    if (!a.stream || narrow(a)) return Sends::last;
    return a.cols * index(sizeof(S)) >= least ? Sends::both : a.centered && !a.far ? Sends::soon : Sends::last;
}

// What the first reading of a row sends for, or the LAST. Where both send, each for all of a later row: what is sent for
// while all places for what is underway are taken is lost, and the first is quicker than memory is. The last one sends for
// all twice, or (in two steps) for what is three times as far. Else it sends alone, but that the first may send SOON, in
// its own row. (Rows of whole pages lie in few sets of the first cache: half as far, where both send.)
template <Sends WHO, bool LAST, class S>
ONEPASS_INLINE auto sent_for(const RowsBackward<S>& a, index row) {
    if constexpr (WHO == Sends::soon && !LAST) {
        return Shares<S, 1, 2, Way::straight>{{a.x + row * a.x_stride + SOON<S>, a.dy + row * a.dy_stride + SOON<S>}};
    } else {
        constexpr bool BOTH = WHO == Sends::both;
        const bool pages = a.cols * index(sizeof(S)) % 4096 == 0;
        const index ahead = narrow(a) && a.ahead < SIDE ? index(SIDE) : BOTH && pages ? (a.ahead + 1) / 2 : a.ahead;
        const index later = row + ahead * (BOTH && LAST && !roomy_first_cache ? 3 : 1);
        constexpr Way WAY = !BOTH ? Way::straight : LAST ? Way::twice : Way::half;
        return Shares<S, 1, BOTH || LAST ? 2 : 0, WAY>{{a.x + later * a.x_stride, a.dy + later * a.dy_stride}};
    }
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

// What each lane sums of g, and of its product with xhat or with x - pivot.
template <class T>
struct LaneProducts {
    Vec<T> g[PARTS] = {}, gx[PARTS] = {};
};
// And of x, for its moments.
template <class T>
struct LaneSums {
    Sums<Vec<T>> x[PARTS] = {};
    LaneProducts<T> products;
};

// Of the columns start..end of a row. g and the products are summed chunk by chunk in the order in which they lie (one
// chain of additions for all of a row would take longer than to read it), x as its moments always are. A few chunks of one
// part of the lanes after another, so that all is in registers. (And held there, for what is used once compilers put off
// until it is, and run out of them: each store in here would wait for those that are streamed.)
template <Sends WHO, bool CENTERED, class S>
ONEPASS_INLINE LaneSums<Arith<S>> sum_lanes_of(const RowsBackward<S>& a, index row, index start, index end,
                                               Arith<S> pivot) {
    using T = Arith<S>;
    constexpr index STEP = CHUNK * LANES<T>, GROUP = PARTS == 1 ? STEP : 2 * STEP;
    const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
    const T* weight = a.weight;
    const Vec<T> one = hidden_one<T>(), about = splat(pivot);
    const auto later = sent_for<WHO, false>(a, row);
    const auto add = [&](index i, Vec<T>& sum, Vec<T>& product, auto lanes) ONEPASS_FLAT {
        Vec<T> d = load(x + i, lanes);
        if constexpr (CENTERED) d = minus(d, about, one);
        const Vec<T> g = load(dy + i, lanes) * load(weight + i, lanes);
        if constexpr (CENTERED) sum = held(sum + g);
        product = held(product + g * d);
        return d;
    };
    const auto sums_of = [](Vec<T> d) ONEPASS_FLAT { return Sums<Vec<T>>{d, d * d}; };
    LaneSums<T> sums;
    index i = start;
    while (i + STEP <= end) {
        const index to = end - i < GROUP ? i + STEP : i + GROUP;
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) {
            Sums<Vec<T>> all = sums.x[part];
            Vec<T> g = sums.products.g[part], gx = sums.products.gx[part];
            for (index j = i; j < to; j += STEP) {
                Vec<T> sum = {}, product = {};
                const auto vector = [&](int k) ONEPASS_FLAT {
                    const index at = j + k * LANES<T> + part * WIDTH<T>;
                    if (k % PARTS == part) later.at(at);
                    return sums_of(add(at, sum, product, All{}));
                };
                all = all + tree_of<CHUNK>(vector);
                if constexpr (CENTERED) g = g + sum;
                gx = gx + product;
            }
            sums.x[part] = all;
            sums.products.g[part] = g;
            sums.products.gx[part] = gx;
        }
        i = to;
    }
    for (; i + LANES<T> <= end; i += LANES<T>)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part)
            sums.x[part] =
                sums.x[part] + sums_of(add(i + part * WIDTH<T>, sums.products.g[part], sums.products.gx[part], All{}));
    if (i < end)
        for (int part = 0; part < PARTS; ++part) {
            const index at = i + part * WIDTH<T>, left = end - at;
            sums.x[part] =
                sums.x[part] + sums_of(keep(add(at, sums.products.g[part], sums.products.gx[part], First{left}), left));
        }
    if constexpr (!CENTERED)   // (and so compilers leave out what comes before)
        for (Sums<Vec<T>>& of : sums.x) of.sum = Vec<T>{};
    return sums;
}

// c1 and c2 from the sums of a row, and what its mean has `beyond` the pivot; NaN where these are not to be had from them.
template <class T>
ONEPASS_INLINE Gradient<T> gradient_of(const Line<T>& line, double g, double gx, double beyond, double of_count) {
    constexpr double LEAST = double(Limits<T>::least_normal) / (sizeof(T) == 4 ? 0x1p-23 : 0x1p-52);
    const double c2 = (gx - beyond * g) * of_count * double(line.scale);
    return {line, T(1), T(1), T(g * of_count), T(__builtin_fabs(gx) * of_count >= LEAST ? c2 : __builtin_nan(""))};
}

// The moments of a row, and the sums beside them, in blocks.
template <Sends WHO, bool CENTERED, class S>
ONEPASS_INLINE Gradient<Arith<S>> read_row(const RowsBackward<S>& a, index row, double inverse, double of_count) {
    using T = Arith<S>;
    const Plain<S> x = {a.x + row * a.x_stride};
    const T pivot = CENTERED ? choose_pivot(x, a.cols, T(1)) : T(0);
    double g = 0, gx = 0;
    const Moments m = joined_blocks(a.cols, BLOCK_SIZE<T>, double(pivot), [&](index start, index n) ONEPASS_FLAT {
        const LaneSums<T> sums = sum_lanes_of<WHO, CENTERED>(a, row, start, start + n, pivot);
        if constexpr (CENTERED) g += double(sum_lanes(sums.products.g));
        gx += double(sum_lanes(sums.products.gx));
        return moments_of<T>(sums.x, n, 1.0 / double(n));
    });
    Finished f;
    const Line<T> line = line_of<CENTERED, T>(m, x, a.cols, a.finish, inverse, f);
    return gradient_of(line, g, gx, CENTERED && astray(m) ? __builtin_nan("") : m.low, of_count);
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
        Vec<T> g = (RANGED ? d * down : d) * load(weight + i, lanes);
        if constexpr (CENTERED) g = g - c1;
        const Vec<T> dx = (g - xhat * c2) * scale;
        return RANGED ? dx * back * after : dx;
    };
    const bool stream = WHO != Sends::last || a.stream,
               joined = row + 1 < a.rows && rows_join<S>(stream, a.cols, a.dx_stride);
    S* dx = a.dx + row * a.dx_stride;
    write_row<T>(dx, lead_of(dx, dweight, stream), a.cols, source, value, stream, joined, edge,
                 Alone<sizeof(S) != sizeof(T)>{});
}

template <class T>
ONEPASS_INLINE bool finite(const Gradient<T>& of) {
    return of.c1 - of.c1 == 0 && of.c2 - of.c2 == 0;
}

// Whether g is zero in all of a row, as for what a loss leaves out.
template <class S>
ONEPASS_INLINE bool nothing(const RowsBackward<S>& a, index row) {
    using T = Arith<S>;
    const S* dy = a.dy + row * a.dy_stride;
    Vec<T> least = {};
    each_vector<T>(a.cols, [&](index i, auto lanes) ONEPASS_FLAT {
        const Vec<T> g = load(dy + i, lanes) * load(a.weight + i, lanes);
        least = lesser(least, where_equal(g, Vec<T>{}, Vec<T>{}, splat(T(-1))));
    });
    return least_lane(least) == 0;
}

// A row that is not in range, or whose sums were not to be had by the way.
template <bool CENTERED, class S>
__attribute__((noinline)) void ranged_row(const RowsBackward<S>& a, index row, const Line<Arith<S>>& line, Edge<S>& edge) {
    using T = Arith<S>;
    Gradient<T> of = {line, T(1), T(1), T(0), T(0)};
    if (!line.ranged && nothing(a, row)) return write_dx<Sends::last, CENTERED, true, false>(a, row, of, edge);
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
        ranged_row<CENTERED>(a, row, of.line, edge);
    else if (CENTERED && of.line.low != 0)
        write_dx<WHO, CENTERED, true, false>(a, row, of, edge);
    else
        write_dx<WHO, CENTERED, false, false>(a, row, of, edge);
}

// The rows from `row` on, as many as are joined.
template <bool CENTERED, class S>
__attribute__((noinline)) void narrow_rows(const RowsBackward<S>& a, index row, double of_count, Edge<S>& edge) {
    Line<float> lines[SIDE];
    RowsNorm<S> norm = {};
    norm.cols = a.cols;
    norm.finish = a.finish;
    Vec<float> g[SIDE], gx[SIDE];
    const auto sums_of = [&](index i, float pivot) ONEPASS_FLAT {
        const LaneSums<float> sums = sum_lanes_of<Sends::last, CENTERED>(a, i, 0, a.cols, pivot);
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
    for (int i = 0; i < SIDE; ++i)
        write_row_of<Sends::last, CENTERED>(
            a, row + i, gradient_of(lines[i], 0.0 + double(sum[i]), 0.0 + double(product[i]), beyond[i], of_count), edge);
}

template <Sends WHO, bool CENTERED, class S>
void all_rows(const RowsBackward<S>& a) {
    using T = Arith<S>;
    const double inverse = inverse_freedom(double(a.cols), a.finish), of_count = 1.0 / double(a.cols);
    Edge<S> edge;
    index row = 0;
    if constexpr (sizeof(T) == 4 && WHO == Sends::last)
        if (narrow(a))
            for (; row + SIDE <= a.rows; row += SIDE) narrow_rows<CENTERED>(a, row, of_count, edge);
    for (; row < a.rows; ++row)
        write_row_of<WHO, CENTERED>(a, row, read_row<WHO, CENTERED>(a, row, inverse, of_count), edge);
    if (a.stream) stream_fence();
}

template <class S>
void rows_backward(const RowsBackward<S>& a) {
    const Sends who = who_sends(a);
    if constexpr (MAY_SEND<S>)
        if (who == Sends::both) return a.centered ? all_rows<Sends::both, true>(a) : all_rows<Sends::both, false>(a);
    if constexpr (MAY_SEND_SOON<S>)
        if (who == Sends::soon) return all_rows<Sends::soon, true>(a);
    a.centered ? all_rows<Sends::last, true>(a) : all_rows<Sends::last, false>(a);
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
