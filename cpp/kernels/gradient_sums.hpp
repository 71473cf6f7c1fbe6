// What a row is summed to for its gradient, in one read of x and dy: what its moments are made of, and beside that g and
// its product with x - p, p the pivot of the moments, in the terms of rows_backward.cpp (which says what becomes of them).
//
// Invariant: which elements meet in which order depends on the length of the row alone.
#pragma once

#include "kernels/narrow_rows.hpp"
#include "simd/turned.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Narrow rows are joined side by side, c1 and c2 as well (but where conversions are most of the work; nor those that the
// narrowest vectors read as well alone).
template <class S>
ONEPASS_INLINE bool narrow(const RowsBackward<S>& a) {
    if (sizeof(Arith<S>) > 4 || (NATIVE < 64 && sizeof(S) == 2)) return false;
    const index most = sizeof(S) == 2 ? 2048 : NATIVE == 64 && a.far ? 1024 : 1536;   // bytes
    return a.rows >= SIDE && (NATIVE > 16 || a.cols >= LANES<float>) && a.cols * index(sizeof(S)) <= most;
}

// Which readings send for a later row: both, where dx is streamed, if arithmetic does not take longer than memory. Else the
// last one alone; and where rows come from a cache and dx is streamed, the first sends for what it reads SOON, of which
// some is gone again. (The last one alone for narrow rows as well, unless the first cache is small, and they are not of the
// NARROWEST.) And none, if dx is not streamed, and rows lie end to end: the processor's own prefetcher does as well then.
// (But not for RMS norm, which computes less.)
enum class Sends { none, last, soon, both };
template <class S>
constexpr bool MAY_SEND = NATIVE > 16 || sizeof(S) > 2;
template <class S>
constexpr bool MAY_SEND_SOON = NATIVE > 16 && sizeof(S) == 4;
constexpr index NARROWEST = 256;   // bytes

// How many bytes a row has, at least, for which both send: as it was quicker. (Wide rows leave little room in the first
// cache for what was sent for, so it had better come late. Narrow vectors send for each line several times.)
template <class S>
ONEPASS_INLINE index sent_by_both(const RowsBackward<S>& a) {
    constexpr index KIB = 1 << 10, NEVER = PTRDIFF_MAX;
    constexpr bool WIDE_VECTORS = NATIVE == 64, SLOW = NATIVE == 16 || (NATIVE == 32 && sizeof(S) == 2);
    if (WIDE_VECTORS && a.far) return 0;
    if (!roomy_first_cache && a.far) return SLOW ? 2 * KIB : 0;
    if (!roomy_first_cache && a.centered && !SLOW && sizeof(S) > 2) return 4 * KIB;
    return SLOW ? NEVER : WIDE_VECTORS || a.far ? 8 * KIB : 16 * KIB;
}
template <class S>
ONEPASS_INLINE Sends who_sends(const RowsBackward<S>& a) {
    const index bytes = a.cols * index(sizeof(S));
    if (narrow(a)) return NATIVE > 16 && a.stream && !roomy_first_cache && bytes > NARROWEST ? Sends::both : Sends::last;
    if (!a.stream) return a.centered && a.x_stride == a.cols && a.dy_stride == a.cols ? Sends::none : Sends::last;
    return bytes >= sent_by_both(a) ? Sends::both : a.centered && !a.far ? Sends::soon : Sends::last;
}

// What the first reading of a row sends for, or the LAST. Where both send, each for all of a later row: what is sent for
// while all places for what is underway are taken is lost, and the first is quicker than memory is. The last one sends for
// all twice, or (in two steps) for what is three times as far; and the first for what it reads SOON, in wide rows. (In
// others, for what it reads now: one loop for both.) Else the last one sends alone, but that the first may send SOON, in
// its own row. (Rows of whole pages lie in few sets of the first cache: half as far from memory, where both send.)
template <Sends WHO, bool LAST, class S>
ONEPASS_INLINE auto sent_for(const RowsBackward<S>& a, index row) {
    if constexpr (WHO == Sends::soon && !LAST) {
        return Shares<S, 1, 2, Way::straight>{{a.x + row * a.x_stride + soon<S, WIDE_ROW>(a.cols, a.x_stride),
                                               a.dy + row * a.dy_stride + soon<S, WIDE_ROW>(a.cols, a.dy_stride)}};
    } else {
        constexpr bool BOTH = WHO == Sends::both;
        const bool pages = a.cols * index(sizeof(S)) % 4096 == 0;
        const index ahead = narrow(a) && a.ahead < SIDE ? index(SIDE)
                            : BOTH && a.far && pages    ? (a.ahead + 1) / 2
                                                        : a.ahead;
        const index later = row + ahead * (BOTH && LAST && !roomy_first_cache ? 3 : 1);
        constexpr Way WAY = !BOTH ? Way::straight : LAST ? Way::twice : Way::both;
        const S *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
        const index come_soon = sizeof(S) == sizeof(Arith<S>) && sent_soon<S>(a.cols) ? SOON<S> : 0;
        return Shares<S, 1, BOTH || (LAST && WHO != Sends::none) ? 2 : 0, WAY>{
            {a.x + later * a.x_stride, a.dy + later * a.dy_stride}, 0, {x + come_soon, dy + come_soon}};
    }
}

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

// Whether rows that do not begin with a cache line are read line by line. That takes a few steps more, and so does not pay
// where all is in a near cache; nor where rows are wide and come from memory, which is sent for as fast as they are read.
// (Narrow rows, which are joined: in RMS norm alone.)
template <bool CENTERED, class S>
ONEPASS_INLINE bool by_lines(const RowsBackward<S>& a) {
    constexpr index WIDE = 8 << 10;   // bytes
    const index bytes = a.cols * index(sizeof(S));
    return a.stream ? bytes <= WIDE : !CENTERED || bytes >= WIDE;
}

// Of elements of a row, x - pivot and g, and how they are summed.
template <bool CENTERED, class S>
struct Terms {
    using T = Arith<S>;
    struct Of {
        Vec<T> d, g;
    };
    const S *x, *dy;
    const T* weight;
    Vec<T> about, one = hidden_one<T>();
    ONEPASS_INLINE Terms(const RowsBackward<S>& a, index row, T pivot)
        : x(a.x + row * a.x_stride), dy(a.dy + row * a.dy_stride), weight(a.weight), about(splat(pivot)) {}

    // Those at i, as load_at(p) loads from p.
    template <class Load>
    ONEPASS_INLINE Of at(index i, const Load& load_at) const {
        Vec<T> d = load_at(x + i);
        if constexpr (CENTERED) d = minus(d, about, one);
        return {d, load_at(dy + i) * load_at(weight + i)};
    }
    ONEPASS_INLINE static void add(const Of& of, Vec<T>& sum, Vec<T>& product) {
        if constexpr (CENTERED) sum = held(sum + of.g);
        product = held(product + of.g * of.d);
    }
    ONEPASS_INLINE static Sums<Vec<T>> sums_of(Vec<T> d) { return {d, d * d}; }
};

// The sums of whole chunks from `start` on, line by line; the result is where they end.
template <Sends WHO, bool CENTERED, class S>
ONEPASS_INLINE index sum_by_lines(const RowsBackward<S>& a, index row, index start, index end, Arith<S> pivot,
                                  LaneSums<Arith<S>>& to) {
    using T = Arith<S>;
    constexpr index STEP = CHUNK * LANES<T>;
    typedef Terms<CENTERED, S> Row;
    const Row terms(a, row, pivot);
    const auto later = sent_for<WHO, false>(a, row);
    const Turned<T> turned(terms.x);
    // (Held, so that a line is not loaded again for the pack behind it.)
    const auto read = [&](index i, const auto& load_at) ONEPASS_FLAT {
        const typename Row::Of of = terms.at(i, load_at);
        return typename Row::Of{held(of.d), held(of.g)};
    };
    Sums<Vec<T>> all = {};
    Vec<T> all_g = {}, all_gx = {};
    for (; start + STEP <= end; start += STEP) {
        Vec<T> sum = {}, product = {};
        const index first = start + turned.head;
        typename Row::Of line = read(first - LANES<T>, [&](const T* p) ONEPASS_FLAT { return turned.load_before(p); });
        const auto pack = [&](int k) ONEPASS_FLAT {
            const index at = first + k * LANES<T>;
            later.at(at);
            const typename Row::Of next = k + 1 < CHUNK
                                              ? read(at, [](const T* p) ONEPASS_FLAT { return load(p); })
                                              : read(at, [&](const T* p) ONEPASS_FLAT { return turned.load_behind(p); });
            const typename Row::Of of = {turned.join(line.d, next.d), turned.join(line.g, next.g)};
            line = next;
            Row::add(of, sum, product);
            return Row::sums_of(of.d);
        };
        all = all + tree_of<CHUNK>(pack);
        if constexpr (CENTERED) all_g = all_g + sum;
        all_gx = all_gx + product;
    }
    to.x[0] = {turned.back(all.sum), turned.back(all.squares)};
    to.products.g[0] = turned.back(all_g);
    to.products.gx[0] = turned.back(all_gx);
    return start;
}

// Of the columns start..end of a row. g and the products are summed chunk by chunk in the order in which they lie (one
// chain of additions for all of a row would take longer than to read it), x as its moments always are. A few chunks of one
// part of the lanes after another, so that all is in registers. (And held there, for what is used once compilers put off
// until it is, and run out of them: each store in here would wait for those that are streamed.)
template <Sends WHO, bool LINES, bool CENTERED, class S>
ONEPASS_INLINE LaneSums<Arith<S>> sum_lanes_of(const RowsBackward<S>& a, index row, index start, index end,
                                               Arith<S> pivot) {
    using T = Arith<S>;
    constexpr index STEP = CHUNK * LANES<T>, GROUP = PARTS == 1 ? STEP : 2 * STEP;
    typedef Terms<CENTERED, S> Row;
    const Row terms(a, row, pivot);
    const auto later = sent_for<WHO, false>(a, row);
    const auto add = [&](index i, Vec<T>& sum, Vec<T>& product, auto lanes) ONEPASS_FLAT {
        const typename Row::Of of = terms.at(i, [&](const auto* p) ONEPASS_FLAT { return load(p, lanes); });
        Row::add(of, sum, product);
        return of.d;
    };
    LaneSums<T> sums;
    index i = start;
    if constexpr (LINES) i = sum_by_lines<WHO, CENTERED>(a, row, start, end, pivot, sums);
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
                    return Row::sums_of(add(at, sum, product, All{}));
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
                sums.x[part] + Row::sums_of(add(i + part * WIDTH<T>, sums.products.g[part], sums.products.gx[part], All{}));
    if (i < end)
        for (int part = 0; part < PARTS; ++part) {
            const index at = i + part * WIDTH<T>, left = end - at;
            sums.x[part] = sums.x[part] +
                           Row::sums_of(keep(add(at, sums.products.g[part], sums.products.gx[part], First{left}), left));
        }
    if constexpr (!CENTERED)   // (and so compilers leave out what comes before)
        for (Sums<Vec<T>>& of : sums.x) of.sum = Vec<T>{};
    return sums;
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
