// Weighted moments: masks (weights of 0 and 1), sample weights, and missing values left out.
//
//   count = sum(w),  mean = sum(w x) / count,  M2 = sum(w (x - mean)^2)
//
// joined chunk by chunk with the weights' sums in the place of counts (West 1979; Chan, Golub & LeVeque 1979). All in
// double: weights may be, and no float overflows there. What has no weight is never computed with: padding may hold
// anything. With dy, the sums that the gradient of a masked norm needs as well (groups_backward.cpp).
// Invariant: a row is seen as a matrix of FOLD columns, and what is left of it as one of ROWS rows, so rows and columns take
// the same path, and which elements meet in which order depends on the shape alone.
#include "kernels/ahead.hpp"
#include "kernels/moments.hpp"
#include "simd/doubles.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int ROWS = 8;    // of a chunk
constexpr int FOLD = 64;   // columns that a row becomes

// What elements weigh, each for itself or all of a row the same: a mask's lanes that count, or weights.
template <class W, bool EACH>
struct Weights {
    const W* p;
    index row;
    template <class Lanes>
    ONEPASS_INLINE Vec<double> weight(index i, index j, Lanes lanes) const {
        if constexpr (sizeof(W) == 1)
            return splat(1.0);   // where it counts
        else if constexpr (EACH)
            return load(p + i * row + j, lanes);
        else
            return first(splat(any(lanes) ? p[i * row] : 0.0), lanes);
    }
    template <class Lanes>
    ONEPASS_INLINE Valid valid(index i, index j, Lanes lanes) const {
        if constexpr (sizeof(W) > 1)
            return above_zero(weight(i, j, lanes));
        else if constexpr (EACH)
            return load_valid(p + i * row + j, lanes);
        else
            return all_or_none(any(lanes) && p[i * row] != 0, lanes);
    }

  private:
    ONEPASS_INLINE static bool any(All) { return true; }
    ONEPASS_INLINE static bool any(First lanes) { return lanes.n > 0; }
    ONEPASS_INLINE static Vec<double> first(Vec<double> a, All) { return a; }
    ONEPASS_INLINE static Vec<double> first(Vec<double> a, First lanes) { return keep(a, lanes.n); }
};

// A block of rows of one problem, and where its sums go, an element a column.
template <class S>
struct Block {
    const S *x, *dy;
    index rows, cols, stride;
    const Arith<S>*before, *after;
    double *count, *pivot, *low, *m2, *sum, *product;
};

// float32 needs no range of its own in double: what was found is brought into it.
template <class S>
constexpr bool SINGLE = sizeof(Arith<S>) == sizeof(float);
template <class S, class Lanes>
ONEPASS_INLINE Vec<double> in_range(const Block<S>& a, index j, Lanes lanes, Vec<double> x, Vec<double> pivot) {
    return (x * load_doubles(a.before + j, lanes) - pivot) * load_doubles(a.after + j, lanes);
}
template <class S>
ONEPASS_INLINE void bring_into_range(const Block<S>& a) {
    each_vector<double>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const Vec<double> before = load_doubles(a.before + j, lanes), k = before * load_doubles(a.after + j, lanes);
        const auto scale = [&](double* sums, Vec<double> by) ONEPASS_FLAT { store(sums + j, load(sums + j, lanes) * by, lanes); };
        scale(a.pivot, before);
        scale(a.low, k);
        scale(a.m2, k * k);
        if (a.dy) scale(a.product, k);
    });
}

// Nothing of nothing is nothing.
ONEPASS_INLINE Vec<double> share_of(Vec<double> part, Vec<double> whole) {
    return where(above_zero(whole), Vec<double>{part.v / whole.v});
}

// Of a column, with a chunk that has come to it: how much all of that weighs, its M2, and how far its mean has moved.
struct Joined {
    Vec<double> count, m2, moved;
};

// All that counts weighs the same: d is counted from the mean so far, which is one of the elements or lies among them. So
// the squares are at most ROWS + 1 times those about the new mean, and nothing waits for a mean of the chunk's own.
ONEPASS_INLINE Joined join(const Vec<double> (&d)[ROWS], const Valid (&valid)[ROWS], Vec<double> count, Vec<double> m2) {
    Vec<double> squared[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) squared[i] = d[i] * d[i];
    const Vec<double> total = count + count8(valid), sum = sum8(d), moved = share_of(sum, total);
    return {total, (m2 + sum8(squared)) - sum * moved, moved};
}

// Whatever it weighs: d is counted from the pivot, and the squares from the chunk's own mean.
ONEPASS_INLINE Joined join(const Vec<double> (&d)[ROWS], const Vec<double> (&w)[ROWS], const Valid (&valid)[ROWS],
                           Vec<double> count, Vec<double> m2, Vec<double> low) {
    Vec<double> part[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) part[i] = w[i] * d[i];
    const Vec<double> weight = sum8(w), mean = share_of(sum8(part), weight), total = count + weight;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        const Vec<double> from_mean = d[i] - mean;
        part[i] = where(valid[i], w[i] * (from_mean * from_mean));
    }
    const Vec<double> share = share_of(weight, total), delta = where(above_zero(weight), mean - low);
    return {total, (m2 + sum8(part)) + delta * delta * (count * share), delta * share};
}

// ROWS elements of each of some columns. `lanes` are the columns', of(i) those of row i.
template <bool SKIPNA, bool GRADIENT, class S, class W, bool EACH, class Lanes, class Of>
ONEPASS_INLINE void add_chunk(const Block<S>& a, const Weights<W, EACH>& weights, index row, index j, Lanes lanes,
                              const Of& of) {
    constexpr bool STEADY = sizeof(W) == 1 && SINGLE<S>;
    const Vec<double> pivot = load(a.pivot + j, lanes), low = load(a.low + j, lanes);
    const Vec<double> count = load(a.count + j, lanes), m2 = load(a.m2 + j, lanes);
    Vec<double> d[ROWS], w[ROWS], e[ROWS], about[ROWS];
    Valid valid[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        const index at = (row + i) * a.stride + j;
        const Vec<double> x = load_doubles(a.x + at, of(i));
        const Vec<double> from_pivot = SINGLE<S> ? x - pivot : in_range(a, j, lanes, x, pivot);
        valid[i] = weights.valid(row + i, j, of(i));
        if constexpr (SKIPNA) valid[i] = both(valid[i], not_nan(x));
        d[i] = where(valid[i], STEADY ? from_pivot - low : from_pivot);
        if constexpr (!STEADY) w[i] = where(valid[i], weights.weight(row + i, j, of(i)));
        if constexpr (GRADIENT) {
            e[i] = load_doubles(a.dy + at, of(i));
            about[i] = e[i] * where(not_zero(e[i]), from_pivot - low);
        }
    }
    Joined to;
    if constexpr (STEADY)
        to = join(d, valid, count, m2);
    else
        to = join(d, w, valid, count, m2, low);
    store(a.count + j, to.count, lanes);
    store(a.low + j, low + to.moved, lanes);
    store(a.m2 + j, to.m2, lanes);
    if constexpr (GRADIENT) {
        const Vec<double> sum = load(a.sum + j, lanes) + sum8(e);
        store(a.product + j, (load(a.product + j, lanes) + sum8(about)) - to.moved * sum, lanes);
        store(a.sum + j, sum, lanes);
    }
}

// All of a block, on sums that are 0. What lies so many rows `ahead` is sent for.
template <bool SKIPNA, bool GRADIENT, class S, class W, bool EACH>
__attribute__((noinline)) void add_block(const Block<S>& block, const Weights<W, EACH>& of, index ahead) {
    const Block<S> a = block;   // in registers: stores could change what is referred to
    const Weights<W, EACH> weights = of;
    constexpr index STEP = ROWS * WIDTH<double>;
    for (index row = 0; row < a.rows; row += ROWS) {
        index j = 0;
        if (row + ROWS <= a.rows) {
            const index later = row + ahead;
            Ahead<S, STEP, true> next(a.x + later * a.stride, a.stride, a.cols);
            Ahead<S, STEP, true> next_dy((GRADIENT ? a.dy : a.x) + later * a.stride, a.stride, a.cols);
            Ahead<W, STEP, true> next_weights(weights.p + later * weights.row, weights.row, a.cols);
            for (; j + WIDTH<double> <= a.cols; j += WIDTH<double>) {
                next.step();
                if constexpr (GRADIENT) next_dy.step();
                if constexpr (EACH) next_weights.step();
                add_chunk<SKIPNA, GRADIENT>(a, weights, row, j, All{}, [](int) ONEPASS_FLAT { return All{}; });
            }
        }
        for (; j < a.cols; j += WIDTH<double>)
            add_chunk<SKIPNA, GRADIENT>(a, weights, row, j, First{a.cols - j},
                                        [&](int i) ONEPASS_FLAT { return First{row + i < a.rows ? a.cols - j : 0}; });
    }
}

// Columns that hold nothing yet.
template <class S, class Lanes>
ONEPASS_INLINE void begin(const Block<S>& a, index j, Vec<double> pivot, Lanes lanes) {
    const Vec<double> nothing = {};
    store(a.pivot + j, pivot, lanes);
    store(a.count + j, nothing, lanes);
    store(a.low + j, nothing, lanes);
    store(a.m2 + j, nothing, lanes);
    if (!a.dy) return;
    store(a.sum + j, nothing, lanes);
    store(a.product + j, nothing, lanes);
}

// The pivot of each column is its first element that counts: constants give exactly themselves. Where none counts, it is the
// first that has a dy, so that its product is not taken from far away.
template <bool SKIPNA, class S, class W, bool EACH>
ONEPASS_INLINE void place_pivots(const Block<S>& a, const Weights<W, EACH>& weights) {
    each_vector<double>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const Vec<double> before = SINGLE<S> ? splat(1.0) : load_doubles(a.before + j, lanes);
        Vec<double> pivot = {};
        Valid found = none_of(lanes);
        const auto find = [&](const auto& counts) ONEPASS_FLAT {
            for (index i = 0; i < a.rows && !all(found); ++i) {
                const Vec<double> x = load_doubles(a.x + i * a.stride + j, lanes);
                const Valid now = counts(i, x);
                pivot = choose(found, pivot, where(now, x * before));
                found = either(found, now);
            }
        };
        find([&](index i, Vec<double> x) ONEPASS_FLAT {
            const Valid valid = weights.valid(i, j, lanes);
            return SKIPNA ? both(valid, not_nan(x)) : valid;
        });
        if (a.dy)
            find([&](index i, Vec<double>) ONEPASS_FLAT { return not_zero(load_doubles(a.dy + i * a.stride + j, lanes)); });
        begin(a, j, pivot, lanes);
    });
}

struct Columns {
    static constexpr bool OF_A_NORM = false;   // its mask has an element for each row
    template <bool EACH, bool SKIPNA, bool GRADIENT, class S, class W>
    static void take(const Weighted<S, W>& a) {
        const Block<S> block = {a.x,     a.dy,    a.rows, a.cols, a.stride, a.before, a.after,
                                a.count, a.pivot, a.low,  a.m2,   a.sum,    a.product};
        const Weights<W, EACH> weights = {a.weight, a.weight_row};
        place_pivots<SKIPNA>(block, weights);
        add_block<SKIPNA, GRADIENT>(block, weights, ROWS);
        if constexpr (SINGLE<S>) bring_into_range(block);
    }
};

// Of a row, likewise; all its columns share it.
template <bool SKIPNA, class S, class W>
ONEPASS_INLINE double pivot_of(const S* x, const S* dy, const W* weight, index weight_col, index n) {
    for (index i = 0; i < n; ++i) {
        const double value = double(element(x + i));
        if (weight[i * weight_col] > 0 && !(SKIPNA && value != value)) return value;
    }
    for (index i = 0; dy && i < n; ++i)
        if (element(dy + i) != 0) return double(element(x + i));
    return 0.0;
}

// What is left of a row, fewer elements than FOLD columns have in a chunk, with behind it what does not count.
template <class S, class W>
struct Rest {
    S x[ROWS * FOLD], dy[ROWS * FOLD];
    W weight[ROWS * FOLD];

    Rest(const S* from_x, const S* from_dy, const W* from_weight, index n, index size) {
        fill(x, from_x, n, size, 0xff);   // NaN in every type, which is skipped where nothing is weighed
        if (from_dy) fill(dy, from_dy, n, size, 0);
        if (from_weight) fill(weight, from_weight, n, size, 0);
    }

  private:
    template <class E>
    static void fill(E* to, const E* from, index n, index size, int behind) {
        __builtin_memcpy(to, from, std::size_t(n) * sizeof(E));
        __builtin_memset(static_cast<void*>(to + n), behind, std::size_t(size - n) * sizeof(E));
    }
};

// The sum of f(column), for a pack of columns at a time, over all of FOLD or the first pack alone.
template <class F>
ONEPASS_INLINE double sum_of(bool all, const F& f) {
    Vec<double> sums[PARTS];
    for (int k = 0; k < PARTS; ++k) {
        Vec<double> d[FOLD / LANES<double>];
        sums[k] = f(k * WIDTH<double>);
        if (!all) continue;
#pragma GCC unroll 8
        for (int i = 0; i < FOLD / LANES<double>; ++i) d[i] = f(i * LANES<double> + k * WIDTH<double>);
        sums[k] = sum8(d);
    }
    return sum_lanes(sums);
}

struct Rows {
    static constexpr bool OF_A_NORM = true;   // its mask has an element for each of a row's
    template <bool EACH, bool SKIPNA, bool GRADIENT, class S, class W>
    static void take(const Weighted<S, W>& a) {
        constexpr int PACK_ROWS = ROWS * LANES<double>;
        const index whole = a.cols / (ROWS * FOLD) * ROWS, at = whole * FOLD, rest = a.cols - at;
        const index narrow = (rest + PACK_ROWS - 1) / PACK_ROWS * LANES<double>;   // columns of the rest
        const bool all = whole || narrow > LANES<double>;
        double count[FOLD], pivot[FOLD], low[FOLD], m2[FOLD], sum[FOLD], product[FOLD];
        Arith<S> before[FOLD], after[FOLD];
        for (index row = 0; row < a.rows; ++row) {
            const S *x = a.x + row * a.stride, *dy = GRADIENT ? a.dy + row * a.stride : nullptr;
            const W* weight = a.weight + row * a.weight_row;
            const double range = SINGLE<S> ? 1.0 : double(a.before[row]);
            const double start = pivot_of<SKIPNA>(x, dy, weight, a.weight_col, a.cols) * range;
            for (int j = 0; !SINGLE<S> && j < FOLD; ++j) {
                before[j] = a.before[row];
                after[j] = a.after[row];
            }
            const auto add = [&](const S* x, const S* dy, const W* weight, index rows, index cols) ONEPASS_FLAT {
                const Block<S> block = {x, dy, rows, cols, cols, before, after, count, pivot, low, m2, sum, product};
                add_block<SKIPNA, GRADIENT>(block, Weights<W, EACH>{weight, cols * a.weight_col}, 2 * ROWS);
            };
            each_vector<double>(all ? FOLD : LANES<double>, [&](index j, auto lanes) ONEPASS_FLAT {
                begin(Block<S>{x, dy, 0, FOLD, 0, before, after, count, pivot, low, m2, sum, product}, j, splat(start), lanes);
            });
            if (whole) add(x, dy, weight, whole, FOLD);
            if (rest == ROWS * narrow) {
                if (rest) add(x + at, GRADIENT ? dy + at : nullptr, weight + at * a.weight_col, ROWS, narrow);
            } else {
                const Rest<S, W> copy(x + at, GRADIENT ? dy + at : nullptr, EACH ? weight + at : nullptr, rest, ROWS * narrow);
                add(copy.x, GRADIENT ? copy.dy : nullptr, EACH ? copy.weight : weight, ROWS, narrow);
            }

            const auto of = [](const double* sums, int j) ONEPASS_FLAT { return load(sums + j); };
            const double total = sum_of(all, [&](int j) ONEPASS_FLAT { return of(count, j); });
            const double shifted = sum_of(all, [&](int j) ONEPASS_FLAT { return of(count, j) * of(low, j); });
            const double mean = total > 0 ? shifted / total : 0.0;
            const auto distance = [&](int j) ONEPASS_FLAT { return of(low, j) - splat(mean); };
            a.count[row] = total;
            a.pivot[row] = start;
            a.low[row] = mean;
            a.m2[row] =
                sum_of(all, [&](int j) ONEPASS_FLAT { return of(m2, j) + of(count, j) * (distance(j) * distance(j)); });
            if constexpr (GRADIENT) {
                a.sum[row] = sum_of(all, [&](int j) ONEPASS_FLAT { return of(sum, j); });
                a.product[row] =
                    sum_of(all, [&](int j) ONEPASS_FLAT { return of(product, j) + of(sum, j) * distance(j); });
            }
        }
        if constexpr (SINGLE<S>)
            bring_into_range(Block<S>{a.x, a.dy, 1, a.rows, 0, a.before, a.after, a.count, a.pivot, a.low, a.m2, a.sum,
                                      a.product});
    }
};

template <class Kind, class S, class W>
void take(const Weighted<S, W>& a) {
    const bool each = a.weight_col != 0;
    if constexpr (sizeof(W) == 1)
        if (a.dy) return Kind::template take<Kind::OF_A_NORM, false, true>(a);
    if (a.skipna) return each ? Kind::template take<true, true, false>(a) : Kind::template take<false, true, false>(a);
    each ? Kind::template take<true, false, false>(a) : Kind::template take<false, false, false>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_masked = take<Columns, S, std::uint8_t>;
    kernels.columns_weighted = take<Columns, S, double>;
    kernels.rows_masked = take<Rows, S, std::uint8_t>;
    kernels.rows_weighted = take<Rows, S, double>;
}

}   // namespace

void add_weighted(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
