// The gradient of groups that span many rows, its sums: batch, group and instance norm.
//
//   xhat = (x - mean) rstd,  y = xhat weight + bias
//   dbias = sum(dy),  dweight = sum(dy xhat),  g = dy weight
//   dx = rstd (g - mean(g) - xhat mean(g xhat))
//
// Only mean and rstd tie the elements of a group together: d mean = -rstd sum(g) and d rstd = rstd^2 sum(g (x - mean)), and
// what each of both hands back to an element are the two means (Ioffe & Szegedy 2015).
//
// So one sweep takes, beside the moments, sum = sum(dy) and product = sum(dy (x - mean)), of sums about a pivot near the
// mean (sums.hpp has the formula of the moments, and what is done where a pivot was astray):
//
//   product = sum(dy (x - p)) - (mean - p) sum(dy)
//
// A second sweep writes dx (groups_backward_apply.cpp).
// Invariant: rows that are joined have the bits of rows alone, and either those of a matrix's columns (comoments.hpp).
#include "kernels/comoments.hpp"
#include "kernels/row_moments.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Once more, and from better pivots, the columns whose pivots were astray, and with them what shares a vector with them.
template <bool RANGED, class S>
__attribute__((noinline)) void settle(const Comoments<S>& a) {
    using T = Arith<S>;
    const Places<T> to = {a.pivot, a.low, a.m2, a.sum, a.product};
    for (index j = 0; j < a.cols; j += WIDTH<T>) {
        const index n = a.cols - j < WIDTH<T> ? a.cols - j : WIDTH<T>;
        const T *before = RANGED ? a.before + j : nullptr, *after = RANGED ? a.after + j : nullptr;
        if (!better_pivots(to.pivot + j, to.low + j, to.m2 + j, after, n, T(a.rows))) continue;
        add_rows_of<RANGED, false>(a.x + j, a.dy + j, a.stride, a.dy_stride, a.rows, n, before, after, to.at(j),
                                   {false, nullptr, 0});
        finish_sums(to.at(j), n, T(a.rows));
    }
}

template <bool RANGED, class S>
void columns_comoments(const Comoments<S>& a) {
    using T = Arith<S>;
    const Places<T> to = {a.pivot, a.low, a.m2, a.sum, a.product};
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const Vec<T> pivot = first_pivot<T>(a.rows, [&](index i) ONEPASS_FLAT {
            const Vec<T> v = load(a.x + i * a.stride + j, lanes);
            if constexpr (RANGED) return v * load(a.before + j, lanes);
            return v;
        });
        store(to.pivot + j, pivot, lanes);
    });
    add_rows_of<RANGED, false>(a.x, a.dy, a.stride, a.dy_stride, a.rows, a.cols, a.before, a.after, to,
                               {a.far, nullptr, 0});
    if (finish_sums(to, a.cols, T(a.rows))) settle<RANGED>(a);
}

// A row's sums, as double, become its moments, and what is kept of it.
template <class S>
ONEPASS_INLINE Moments put_row(const Comoments<S>& a, index row, Arith<S> pivot, double low, double m2, double sum,
                               double product, double of_count) {
    using T = Arith<S>;
    const double count = double(a.cols);
    const Moments m = from_sums(low, m2, count, of_count);
    a.pivot[row] = pivot;
    a.low[row] = T(m.mean);
    a.m2[row] = T(m.m2);
    a.sum[row] = T(sum);
    a.product[row] = T(product - sum * m.mean);
    return {count, double(pivot), m.mean, m.m2};
}

// The rows from..to, one by one.
template <bool RANGED, class S>
__attribute__((noinline)) void rows_alone(const Comoments<S>& a, index from, index end) {
    using T = Arith<S>;
    const index full = a.cols / FOLD, rest = a.cols % FOLD;
    alignas(PACK) T sums[5][FOLD], before[FOLD], after[FOLD];
    const Places<T> to = {sums[0], sums[1], sums[2], sums[3], sums[4]};
    const Later<S> later = {a.far, a.x + a.left, a.jump};
    const double of_count = 1.0 / double(a.cols);
    for (index row = from; row < end; ++row) {
        const S *x = a.x + row * a.stride, *dy = a.dy + row * a.dy_stride;
        for (int j = 0; RANGED && j < FOLD; ++j) {
            before[j] = a.before[row];
            after[j] = a.after[row];
        }
        const auto about = [&](T pivot) ONEPASS_FLAT {
            for (int j = 0; j < FOLD; ++j) to.pivot[j] = pivot;
            add_rows_of<RANGED, true>(x, dy, index(FOLD), index(FOLD), full, index(FOLD), before, after, to, later);
            const index at = full * FOLD;
            if (rest)
                add_chunk<false, RANGED, true>(x + at, dy + at, index(FOLD), index(FOLD), 1, rest, before, after, to,
                                               later);
            const auto total = [](const T* of) ONEPASS_FLAT {
                return double(sum_columns<T>(FOLD, [of](index i) ONEPASS_FLAT { return load(of + i); }));
            };
            return put_row(a, row, pivot, total(to.low), total(to.m2), total(to.sum), total(to.product), of_count);
        };
        T pivot = choose_pivot<T>(Plain<S>{x}, a.cols, RANGED ? before[0] : T(1));
        for (int tries = 0; tries < 2; ++tries) {
            const Moments m = about(pivot);
            if (!astray(m)) break;
            pivot = T(m.mean + m.low / (RANGED ? double(after[0]) : 1.0));
        }
    }
}

// The sums of a row's lanes, where that is shorter than a chunk of folds: what is added to a column is added in turn, so it
// may as well stay in registers. (The narrowest vectors leave it none beyond three folds.) VECTOR: of one at most; FOLDS:
// of one fold, or more.
enum class Holds { vector, fold, folds };
constexpr index SHORT = NATIVE > 16 ? CHUNK * FOLD - 1 : 3 * FOLD;
template <Holds HOLDS, class T, class S>
ONEPASS_INLINE void add_short(const Comoments<S>& a, index row, T pivot, const Later<S>& later, Part<T> (&lanes)[PARTS]) {
    const S *x = a.x + row * a.stride, *dy = a.dy + row * a.dy_stride;
    const Vec<T> about = splat(pivot), one = hidden_one<T>();
    const auto at_end = [&](index at, index left) ONEPASS_FLAT {
        const First in = {left};
        return part_of<T>(keep(minus(load(x + at, in), about, one), left), load(dy + at, in));
    };
    const auto send_later = [&](index at) ONEPASS_FLAT {
        if (!later.far) return;
        const index sent = later.from(x, at);
        send(x + sent, x + at + SOON<S>, WIDTH<T>);
        send(dy + sent, dy + at + SOON<S>, WIDTH<T>);
    };
    if constexpr (HOLDS == Holds::vector) {
        send_later(0);
        lanes[0] = at_end(0, a.cols);
        return;
    }
    const auto add = [&](index at, Part<T>& to) ONEPASS_FLAT {
        const index left = a.cols - at;
        send_later(at);
        to = to + (left >= WIDTH<T> ? part_of<T>(minus(load(x + at), about, one), load(dy + at)) : at_end(at, left));
    };
    for (index pack = 0; pack < a.cols && (HOLDS == Holds::fold || pack < FOLD); pack += LANES<T>)
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; ++j) {
            index at = pack + j * WIDTH<T>;
            if (at >= a.cols) break;
            if constexpr (HOLDS == Holds::fold) {
                add(at, lanes[j]);
            } else {
                Part<T> column = {};
                for (; at < a.cols; at += FOLD) add(at, column);
                lanes[j] = lanes[j] + column;
            }
        }
}

// Short rows are joined side by side (narrow_rows.hpp says why), but those whose pivots are astray. The result is the first
// of the last ones, fewer than SIDE.
template <Holds HOLDS, class S>
__attribute__((noinline)) index join_rows(const Comoments<S>& given, const Later<S>& later, double of_count) {
    const Comoments<S> a = given;   // which no store changes
    index row = 0;
    for (; row + SIDE <= a.rows; row += SIDE) {
        Part<float> rows[SIDE];
        float pivot[SIDE], low[SIDE], m2[SIDE], sum[SIDE], product[SIDE];
        for (int i = 0; i < SIDE; ++i) {
            pivot[i] = choose_pivot<float>(Plain<S>{a.x + (row + i) * a.stride}, a.cols, 1.0F);
            Part<float> lanes[PARTS] = {};
            add_short<HOLDS>(a, row + i, pivot[i], later, lanes);
            rows[beside(i)] = fold_parts(lanes, Plus());
        }
        // (A sum begins with 0, so that none is -0.)
        store_part(Places<float>{nullptr, low, m2, sum, product}, 0, Part<float>{} + fold_beside(rows, Plus()), All{});
        std::int32_t lost[SIDE];
        for (int i = 0; i < SIDE; ++i)
            lost[i] = astray(
                put_row(a, row + i, pivot[i], double(low[i]), double(m2[i]), double(sum[i]), double(product[i]), of_count));
        for (int i = 0; i < SIDE; ++i)
            if (__builtin_expect(lost[i], 0)) rows_alone<false>(a, row + i, row + i + 1);
    }
    return row;
}

template <class S>
__attribute__((noinline)) void short_rows(const Comoments<S>& a, index row, const Later<S>& later, double of_count) {
    using T = Arith<S>;
    for (; row < a.rows; ++row) {
        const T pivot = choose_pivot<T>(Plain<S>{a.x + row * a.stride}, a.cols, T(1));
        Part<T> lanes[PARTS] = {};
        add_short<Holds::folds>(a, row, pivot, later, lanes);
        const auto total = [&](Vec<T> Part<T>::* of) ONEPASS_FLAT {
            Vec<T> all[PARTS];
            for (int j = 0; j < PARTS; ++j) all[j] = lanes[j].*of;
            return double(sum_lanes(all));
        };
        const Moments m = put_row(a, row, pivot, total(&Part<T>::low), total(&Part<T>::m2), total(&Part<T>::sum),
                                  total(&Part<T>::product), of_count);
        if (__builtin_expect(astray(m), 0)) rows_alone<false>(a, row, row + 1);
    }
}

template <bool RANGED, class S>
void rows_comoments(const Comoments<S>& a) {
    if constexpr (!RANGED)
        if (a.cols <= SHORT) {
            const Later<S> later = {a.far, a.x + a.left, a.jump};
            const double of_count = 1.0 / double(a.cols);
            index row = 0;
            if constexpr (sizeof(Arith<S>) == 4)
                row = WITH_MASKS && a.cols <= WIDTH<float> ? join_rows<Holds::vector>(a, later, of_count)
                      : a.cols <= FOLD                     ? join_rows<Holds::fold>(a, later, of_count)
                                                           : join_rows<Holds::folds>(a, later, of_count);
            return short_rows(a, row, later, of_count);
        }
    rows_alone<RANGED>(a, 0, a.rows);
}

template <class S>
void choose_columns_comoments(const Comoments<S>& a) {
    a.before ? columns_comoments<true>(a) : columns_comoments<false>(a);
}
template <class S>
void choose_rows_comoments(const Comoments<S>& a) {
    a.before ? rows_comoments<true>(a) : rows_comoments<false>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_comoments = choose_columns_comoments<S>;
    kernels.rows_comoments = choose_rows_comoments<S>;
}

}   // namespace

void add_groups_backward(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
