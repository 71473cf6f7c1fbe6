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
// Invariant: a row is seen as a matrix of FOLD columns, so rows and columns take the same path, and which elements meet in
// which order depends on the shape alone.
#include "kernels/ahead.hpp"
#include "kernels/narrow_rows.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int FOLD = 64;   // columns that a row becomes

// Where the sums of each column stand: those of x - pivot, of its square, of dy and of dy (x - pivot). What they become
// stands there as well: the mean, less the pivot, and M2, sum and product.
template <class T>
struct Places {
    T *pivot, *low, *m2, *sum, *product;
    ONEPASS_INLINE Places at(index j) const { return {pivot + j, low + j, m2 + j, sum + j, product + j}; }
};

template <class T>
struct Part {
    Vec<T> low, m2, sum, product;
};
template <class T, class Lanes>
ONEPASS_INLINE Part<T> load_part(const Places<T>& of, index j, Lanes lanes) {
    return {load(of.low + j, lanes), load(of.m2 + j, lanes), load(of.sum + j, lanes), load(of.product + j, lanes)};
}
template <class T, class Lanes>
ONEPASS_INLINE void store_part(const Places<T>& to, index j, const Part<T>& part, Lanes lanes) {
    store(to.low + j, part.low, lanes);
    store(to.m2 + j, part.m2, lanes);
    store(to.sum + j, part.sum, lanes);
    store(to.product + j, part.product, lanes);
}
template <class T>
ONEPASS_INLINE Part<T> operator+(const Part<T>& a, const Part<T>& b) {
    return {a.low + b.low, a.m2 + b.m2, a.sum + b.sum, a.product + b.product};
}

template <int OF_EACH>
ONEPASS_INLINE Part<float> lower_halves(const Part<float>& a, const Part<float>& b) {
    return {lower_halves<OF_EACH>(a.low, b.low), lower_halves<OF_EACH>(a.m2, b.m2), lower_halves<OF_EACH>(a.sum, b.sum),
            lower_halves<OF_EACH>(a.product, b.product)};
}
template <int OF_EACH>
ONEPASS_INLINE Part<float> upper_halves(const Part<float>& a, const Part<float>& b) {
    return {upper_halves<OF_EACH>(a.low, b.low), upper_halves<OF_EACH>(a.m2, b.m2), upper_halves<OF_EACH>(a.sum, b.sum),
            upper_halves<OF_EACH>(a.product, b.product)};
}

// Of one element, x - pivot and dy.
template <class T>
ONEPASS_INLINE Part<T> part_of(Vec<T> d, Vec<T> e) {
    return {d, d * d, e, e * d};
}
template <bool WHOLE, class T, class S, class Value, class Lanes>
ONEPASS_INLINE Part<T> part_of(const S* dy, index stride, index rows, const Value& value, Lanes lanes) {
    Part<T> part = {};
    if constexpr (WHOLE) {
        Vec<T> d[CHUNK], e[CHUNK];
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) {
            d[i] = value(i);
            e[i] = load(dy + i * stride, lanes);
        }
        part.low = sum8(d);
        part.sum = sum8(e);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) {
            e[i] = e[i] * d[i];
            d[i] = d[i] * d[i];
        }
        part.m2 = sum8(d);
        part.product = sum8(e);
    } else {
        for (index i = 0; i < rows; ++i) part = part + part_of<T>(value(i), load(dy + i * stride, lanes));
    }
    return part;
}

// What is sent for while x is read, if x comes from `far` away: what lies BEHIND it, and from `end` on `jump` further on.
template <class S>
struct Later {
    bool far;
    const S* end;
    index jump;
    // How far from x, where i is read.
    ONEPASS_INLINE index from(const S* x, index i) const {
        const index at = i + BEHIND<S>;
        return x + at < end ? at : at + jump;
    }
};

// Adds `rows` <= CHUNK rows of all columns. Lines are read whole: of rows that are pages apart sixteen lie in one set of
// the first-level cache, and what is left of them would be gone when its turn came. FOLDED: these are the columns of a
// folded row.
template <bool WHOLE, bool RANGED, bool FOLDED, class S>
ONEPASS_INLINE void add_chunk(const S* x, const S* dy, index stride, index rows, index cols, const Arith<S>* before,
                              const Arith<S>* after, Places<Arith<S>> to, Later<S> later) {
    using T = Arith<S>;
    const Vec<T> one = hidden_one<T>();
    Ahead<S, CHUNK * WIDTH<T>> next_x(x + CHUNK * stride, stride, cols), next_dy(dy + CHUNK * stride, stride, cols);
    each_vector<T>(FOLDED ? 0 : to_line(x), cols, [&](index j, auto lanes) ONEPASS_FLAT {
        if (FOLDED && later.far) {
            const index n = WHOLE ? CHUNK : rows, at = later.from(x, j * n);
            send(x + at, x + j * n, n * WIDTH<T>);
            send(dy + at, dy + j * n, n * WIDTH<T>);
        } else if (WHOLE && later.far) {   // in two steps: of x and dy, a chunk is more than a roomy cache holds, too
            next_x.template step<SECOND>();
            next_dy.template step<SECOND>();
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) {
                send_soon(x + i * stride + j);
                send_soon(dy + i * stride + j);
            }
        }
        const Vec<T> pivot = load(to.pivot + j, lanes);
        const auto value = [&](index i) ONEPASS_FLAT {
            const Vec<T> v = load(x + i * stride + j, lanes);
            if constexpr (RANGED) return (v * load(before + j, lanes) - pivot) * load(after + j, lanes);
            return minus(v, pivot, one);
        };
        store_part(to, j, load_part(to, j, lanes) + part_of<WHOLE, T>(dy + j, stride, rows, value, lanes), lanes);
    });
}

// Half a chunk, from its row `first` on, as sum8() adds them.
template <class T, class S, class Value, class Lanes>
ONEPASS_INLINE Part<T> half_of(const S* dy, index stride, int first, const Value& value, Lanes lanes) {
    const auto row = [&](int i) ONEPASS_FLAT { return part_of<T>(value(i), held(load(dy + i * stride, lanes))); };
    return (row(first) + row(first + 1)) + (row(first + 2) + row(first + 3));
}

// Adds a whole chunk of columns in two halves, a piece of its columns at a time: x and dy often lie alike within pages, so
// that of rows that are pages apart all sixteen lines would lie in one set of the first-level cache, which holds eight or
// twelve; what the processor fetches ahead of them would be gone before it is read.
template <class S>
ONEPASS_INLINE void add_halves(const S* x, const S* dy, index stride, index cols, const Places<Arith<S>>& to) {
    using T = Arith<S>;
    constexpr index PIECE = 1024 / sizeof(T);
    alignas(PACK) T room[4][PIECE];
    const Places<T> half = {nullptr, room[0], room[1], room[2], room[3]};
    const Vec<T> one = hidden_one<T>();
    for (index from = 0, end = to_line(x); from < cols; from = end, end += PIECE) {
        if (end > cols) end = cols;
        const auto each_half = [&](int first, const auto& put) ONEPASS_FLAT {
            each_vector<T>(end - from, [&](index i, auto lanes) ONEPASS_FLAT {
                const index j = from + i;
                const Vec<T> pivot = load(to.pivot + j, lanes);
                const auto value = [&](int k) ONEPASS_FLAT { return minus(load(x + k * stride + j, lanes), pivot, one); };
                put(i, half_of<T>(dy + j, stride, first, value, lanes), lanes);
            });
        };
        each_half(0, [&](index i, const Part<T>& part, auto lanes) ONEPASS_FLAT { store_part(half, i, part, lanes); });
        each_half(CHUNK / 2, [&](index i, const Part<T>& part, auto lanes) ONEPASS_FLAT {
            store_part(to, from + i, load_part(to, from + i, lanes) + (load_part(half, i, lanes) + part), lanes);
        });
    }
}

// All rows, from pivots that are known. The sums that they are added to are 0.
template <bool RANGED, bool FOLDED, class S>
ONEPASS_INLINE void add_rows_of(const S* x, const S* dy, index stride, index rows, index cols, const Arith<S>* before,
                                const Arith<S>* after, const Places<Arith<S>>& to, const Later<S>& later) {
    for (index j = 0; j < cols; ++j) to.low[j] = to.m2[j] = to.sum[j] = to.product[j] = 0;
    index row = 0;
    if constexpr (!RANGED && !FOLDED && sizeof(S) == sizeof(Arith<S>))   // (16 bits are converted, and that for longer)
        for (; !later.far && row + CHUNK <= rows; row += CHUNK)
            add_halves(x + row * stride, dy + row * stride, stride, cols, to);
    for (; row + CHUNK <= rows; row += CHUNK)
        add_chunk<true, RANGED, FOLDED>(x + row * stride, dy + row * stride, stride, CHUNK, cols, before, after, to, later);
    if (row < rows)
        add_chunk<false, RANGED, FOLDED>(x + row * stride, dy + row * stride, stride, rows - row, cols, before, after, to,
                                         later);
}

// Sums of `count` elements become moments. Was a pivot astray?
template <class T>
ONEPASS_INLINE bool finish_sums(const Places<T>& of, index cols, T count) {
    Vec<T> astray = {};
    each_vector<T>(cols, [&](index j, auto lanes) ONEPASS_FLAT {
        Part<T> part = load_part(of, j, lanes);
        const Vec<T> mean = part.low * (T(1) / count);
        part.product = part.product - part.sum * mean;
        part.m2 = part.m2 - part.low * mean;
        part.low = mean;
        store_part(of, j, part, lanes);
        astray = greater(how_astray(mean, part.m2, count), astray);
    });
    return any_positive(astray);
}

// Once more, and from better pivots, the columns whose pivots were astray, and with them what shares a vector with them.
template <bool RANGED, class S>
__attribute__((noinline)) void settle(const Comoments<S>& a) {
    using T = Arith<S>;
    const Places<T> to = {a.pivot, a.low, a.m2, a.sum, a.product};
    for (index j = 0; j < a.cols; j += WIDTH<T>) {
        const index n = a.cols - j < WIDTH<T> ? a.cols - j : WIDTH<T>;
        const T *before = RANGED ? a.before + j : nullptr, *after = RANGED ? a.after + j : nullptr;
        if (!better_pivots(to.pivot + j, to.low + j, to.m2 + j, after, n, T(a.rows))) continue;
        add_rows_of<RANGED, false>(a.x + j, a.dy + j, a.stride, a.rows, n, before, after, to.at(j), {false, nullptr, 0});
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
    add_rows_of<RANGED, false>(a.x, a.dy, a.stride, a.rows, a.cols, a.before, a.after, to, {a.far, nullptr, 0});
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
        const S *x = a.x + row * a.stride, *dy = a.dy + row * a.stride;
        for (int j = 0; RANGED && j < FOLD; ++j) {
            before[j] = a.before[row];
            after[j] = a.after[row];
        }
        const auto about = [&](T pivot) ONEPASS_FLAT {
            for (int j = 0; j < FOLD; ++j) to.pivot[j] = pivot;
            add_rows_of<RANGED, true>(x, dy, index(FOLD), full, index(FOLD), before, after, to, later);
            const index at = full * FOLD;
            if (rest) add_chunk<false, RANGED, true>(x + at, dy + at, index(FOLD), 1, rest, before, after, to, later);
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

// Rows of one fold are joined side by side (narrow_rows.hpp says why), but those whose pivots are astray. The result is the
// first of the last ones, fewer than SIDE.
template <class S>
__attribute__((noinline)) index join_rows(const Comoments<S>& a) {
    const Later<S> later = {a.far, a.x + a.left, a.jump};
    const double of_count = 1.0 / double(a.cols);
    const Vec<float> one = hidden_one<float>();
    index row = 0;
    for (; row + SIDE <= a.rows; row += SIDE) {
        Part<float> rows[SIDE];
        float pivot[SIDE], low[SIDE], m2[SIDE], sum[SIDE], product[SIDE];
        for (int i = 0; i < SIDE; ++i) {
            const S *x = a.x + (row + i) * a.stride, *dy = a.dy + (row + i) * a.stride;
            pivot[i] = choose_pivot<float>(Plain<S>{x}, a.cols, 1.0F);
            const Vec<float> about = splat(pivot[i]);
            Part<float> lanes[PARTS] = {};
            const auto add = [&](index at, int j, auto in, const auto& kept) ONEPASS_FLAT {
                const Vec<float> d = kept(minus(load(x + at, in), about, one));
                lanes[j] = lanes[j] + part_of<float>(d, load(dy + at, in));
            };
            for (index pack = 0; pack < a.cols; pack += LANES<float>)
#pragma GCC unroll 4
                for (int j = 0; j < PARTS; ++j) {
                    const index at = pack + j * WIDTH<float>, left = a.cols - at;
                    if (left <= 0) break;
                    if (later.far) {
                        const index sent = later.from(x, at);
                        send(x + sent, x + at, WIDTH<float>);
                        send(dy + sent, dy + at, WIDTH<float>);
                    }
                    if (left >= WIDTH<float>)
                        add(at, j, All{}, [](Vec<float> d) ONEPASS_FLAT { return d; });
                    else
                        add(at, j, First{left}, [=](Vec<float> d) ONEPASS_FLAT { return keep(d, left); });
                }
            rows[beside(i)] = fold_parts(lanes, Plus());
        }
        store_part(Places<float>{nullptr, low, m2, sum, product}, 0, fold_beside(rows, Plus()), All{});
        std::int32_t lost[SIDE];
        for (int i = 0; i < SIDE; ++i)
            lost[i] = astray(
                put_row(a, row + i, pivot[i], double(low[i]), double(m2[i]), double(sum[i]), double(product[i]), of_count));
        for (int i = 0; i < SIDE; ++i)
            if (__builtin_expect(lost[i], 0)) rows_alone<false>(a, row + i, row + i + 1);
    }
    return row;
}

template <bool RANGED, class S>
void rows_comoments(const Comoments<S>& a) {
    index row = 0;
    if constexpr (!RANGED && sizeof(Arith<S>) == 4)
        if (a.cols <= FOLD) row = join_rows(a);
    rows_alone<RANGED>(a, row, a.rows);
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
