// Weighted moments: masks (weights of 0 and 1), sample weights, and missing values left out.
//
//   count = sum(w),  mean = sum(w x) / count,  M2 = sum(w (x - mean)^2)
//
// joined chunk by chunk (weighted_chunks.hpp), in double: weights may be, and no float overflows there. Padding may hold
// anything. With dy, the sums that the gradient of a masked norm needs as well (groups_backward.cpp).
// Invariant: a row is seen as a matrix of FOLD columns, and what is left of it as one of ROWS rows, so rows and columns
// take the same path, and which elements meet in which order depends on the shape alone.
#include "kernels/moments.hpp"
#include "kernels/weighted_chunks.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int FOLD = 64;   // columns that a row becomes

// Columns that hold nothing yet.
template <bool GRADIENT, class S, class Lanes>
ONEPASS_INLINE void begin(const Block<S>& a, index j, Vec<double> pivot, Lanes lanes) {
    const Vec<double> nothing = {};
    store(a.pivot + j, pivot, lanes);
    store(a.count + j, nothing, lanes);
    store(a.low + j, nothing, lanes);
    store(a.m2 + j, nothing, lanes);
    if constexpr (GRADIENT) {
        store(a.sum + j, nothing, lanes);
        store(a.product + j, nothing, lanes);
    }
}

// The pivot of each column is its first element that counts: constants give exactly themselves. Where none counts, it is
// the first that has a dy, so that its product is not taken from far away.
template <bool SKIPNA, bool GRADIENT, class S, class W, bool EACH>
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
        if constexpr (GRADIENT)
            find([&](index i, Vec<double>) ONEPASS_FLAT { return not_zero(load_doubles(a.dy + i * a.stride + j, lanes)); });
        begin<GRADIENT>(a, j, pivot, lanes);
    });
}

template <bool EACH, bool SKIPNA, bool GRADIENT, class S, class W>
void take_columns(const Weighted<S, W>& a) {
    const Block<S> block = {a.x,     a.dy,    a.rows, a.cols, a.stride, a.before, a.after,
                            a.count, a.pivot, a.low,  a.m2,   a.sum,    a.product};
    const Weights<W, EACH> weights = {a.weight, a.weight_row};
    place_pivots<SKIPNA, GRADIENT>(block, weights);
    add_block<SKIPNA, GRADIENT>(block, weights, ROWS);
    if constexpr (SINGLE<S>) bring_into_range(block);
}

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

// A row as columns.
template <bool EACH, bool SKIPNA, bool GRADIENT, class S, class W>
class Folded {
    double count_[FOLD], pivot_[FOLD], low_[FOLD], m2_[FOLD], sum_[FOLD], product_[FOLD];
    Arith<S> before_[FOLD], after_[FOLD];
    index columns_;

    ONEPASS_INLINE Block<S> block(const S* x, const S* dy, index rows, index cols) {
        return {x, dy, rows, cols, cols, before_, after_, count_, pivot_, low_, m2_, sum_, product_};
    }
    template <class F>
    ONEPASS_INLINE double total(const F& value) const {
        return sum_columns<double>(columns_, value);
    }

  public:
    ONEPASS_INLINE Folded(index columns, double pivot, Arith<S> before, Arith<S> after) : columns_(columns) {
        for (index j = 0; !SINGLE<S> && j < columns; ++j) {
            before_[j] = before;
            after_[j] = after;
        }
        const Block<S> all = block(nullptr, nullptr, 0, columns);
        each_vector<double>(columns,
                            [&](index j, auto lanes) ONEPASS_FLAT { begin<GRADIENT>(all, j, splat(pivot), lanes); });
    }
    ONEPASS_INLINE void add(const S* x, const S* dy, const W* weight, index weight_col, index rows, index cols) {
        add_block<SKIPNA, GRADIENT>(block(x, dy, rows, cols), Weights<W, EACH>{weight, cols * weight_col}, 2 * ROWS);
    }
    // What is left of a row: one chunk, the last of whose elements there are not.
    ONEPASS_INLINE void add_rest(const S* x, const S* dy, const W* weight, index weight_col, index n, index cols) {
        const Block<S> a = block(x, dy, ROWS, cols);
        for (index j = 0; j < cols; j += WIDTH<double>)
            add_chunk<SKIPNA, GRADIENT>(a, Weights<W, EACH>{weight, cols * weight_col}, 0, j, All{},
                                        [&](int i) ONEPASS_FLAT { return First{n - i * cols - j}; });
    }
    ONEPASS_INLINE void put(const Weighted<S, W>& a, index row) const {
        const auto of = [](const double* sums, index j) ONEPASS_FLAT { return load(sums + j); };
        const double count = total([&](index j) ONEPASS_FLAT { return of(count_, j); });
        const double shifted = total([&](index j) ONEPASS_FLAT { return of(count_, j) * of(low_, j); });
        const double mean = count > 0 ? shifted / count : 0.0;
        const auto distance = [&](index j) ONEPASS_FLAT { return of(low_, j) - splat(mean); };
        a.count[row] = count;
        a.pivot[row] = pivot_[0];
        a.low[row] = mean;
        a.m2[row] = total([&](index j) ONEPASS_FLAT { return of(m2_, j) + of(count_, j) * (distance(j) * distance(j)); });
        if constexpr (GRADIENT) {
            a.sum[row] = total([&](index j) ONEPASS_FLAT { return of(sum_, j); });
            a.product[row] = total([&](index j) ONEPASS_FLAT { return of(product_, j) + of(sum_, j) * distance(j); });
        }
    }
};

template <bool EACH, bool SKIPNA, bool GRADIENT, class S, class W>
void take_rows(const Weighted<S, W>& a) {
    constexpr index PACKS = ROWS * LANES<double>;   // elements of the narrowest chunk
    const index whole = a.cols / (ROWS * FOLD) * ROWS, at = whole * FOLD, rest = a.cols - at;
    const index narrow = (rest + PACKS - 1) / PACKS * LANES<double>;
    for (index row = 0; row < a.rows; ++row) {
        const S *x = a.x + row * a.stride, *dy = GRADIENT ? a.dy + row * a.stride : nullptr;
        const W* weight = a.weight + row * a.weight_row;
        const double pivot = pivot_of<SKIPNA>(x, dy, weight, a.weight_col, a.cols);
        const Arith<S> before = SINGLE<S> ? Arith<S>(1) : a.before[row];
        Folded<EACH, SKIPNA, GRADIENT, S, W> folded(whole ? FOLD : narrow, pivot * double(before), before, a.after[row]);
        if (whole) folded.add(x, dy, weight, a.weight_col, whole, FOLD);
        if (rest)
            folded.add_rest(x + at, GRADIENT ? dy + at : nullptr, weight + at * a.weight_col, a.weight_col, rest, narrow);
        folded.put(a, row);
    }
    if constexpr (SINGLE<S>)
        bring_into_range(
            Block<S>{a.x, a.dy, 1, a.rows, 0, a.before, a.after, a.count, a.pivot, a.low, a.m2, a.sum, a.product});
}

// (A norm's mask has an element for each row of columns, and for each element of a row.)
template <class S, class W>
void columns_weighted(const Weighted<S, W>& a) {
    const bool each = a.weight_col != 0;
    if constexpr (sizeof(W) == 1)
        if (a.dy) return take_columns<false, false, true>(a);
    if (a.skipna) return each ? take_columns<true, true, false>(a) : take_columns<false, true, false>(a);
    each ? take_columns<true, false, false>(a) : take_columns<false, false, false>(a);
}
template <class S, class W>
void rows_weighted(const Weighted<S, W>& a) {
    if constexpr (sizeof(W) == 1) {
        if (a.dy) return take_rows<true, false, true>(a);
        if (a.weight_col == 0) return take_rows<false, true, false>(a);
    }
    a.skipna ? take_rows<true, true, false>(a) : take_rows<true, false, false>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_masked = columns_weighted<S, std::uint8_t>;
    kernels.columns_weighted = columns_weighted<S, double>;
    kernels.rows_masked = rows_weighted<S, std::uint8_t>;
    kernels.rows_weighted = rows_weighted<S, double>;
}

}   // namespace

void add_weighted(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
