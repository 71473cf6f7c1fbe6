// Weighted moments: masks (weights of 0 and 1), sample weights, and missing values left out.
//
//   count = sum(w),  mean = sum(w x) / count,  M2 = sum(w (x - mean)^2)
//
// joined chunk by chunk with the weights' sums in the place of counts (West 1979; Chan, Golub & LeVeque 1979). All in
// double: weights may be, and no float overflows there. What has no weight is never computed with: padding may hold
// anything. With dy, the sums that the gradient of a masked norm needs as well (groups_backward.cpp).
// Invariant: a row is seen as a matrix of FOLD columns, so rows and columns take the same path, and which elements meet in
// which order depends on the shape alone.
#include "kernels/moments.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int ROWS = 8;    // of a chunk
constexpr int FOLD = 64;   // columns that a row becomes

using Wide = Native<double>::type;
using Mask = Native<double>::mask;

ONEPASS_INLINE Vec<double> where(Mask valid, Vec<double> a) { return {(Wide)((Mask)a.v & valid)}; }

// Elements of x or of the weights, as doubles.
template <class Lanes>
ONEPASS_INLINE Vec<double> widened(const double* p, Lanes lanes) {
    return load(p, lanes);
}
template <class Narrow>
ONEPASS_INLINE Vec<double> converted(const Narrow* p) {
    typedef Narrow narrow __attribute__((vector_size(sizeof(Narrow) * WIDTH<double>)));
    narrow v;
    __builtin_memcpy(&v, p, sizeof v);
    return {__builtin_convertvector(v, Wide)};
}
template <class Narrow>
ONEPASS_INLINE Vec<double> converted(const Narrow* p, index n) {
    Narrow part[WIDTH<double>] = {};
    for (index i = 0; i < n; ++i) part[i] = p[i];
    return converted(part);
}
ONEPASS_INLINE Vec<double> widened(const float* p, All) { return converted(p); }
ONEPASS_INLINE Vec<double> widened(const float* p, First lanes) { return converted(p, lanes.n); }
ONEPASS_INLINE Vec<double> widened(const std::uint8_t* p, All) { return converted(p); }
ONEPASS_INLINE Vec<double> widened(const std::uint8_t* p, First lanes) { return converted(p, lanes.n); }
template <class Half>
ONEPASS_INLINE Vec<double> widened_half(const Half* p, index n) {
    float wide[WIDTH<float>];
    store(wide, load(p, First{n}));
    return converted(wide);
}
ONEPASS_INLINE Vec<double> widened(const Float16* p, All) { return widened_half(p, WIDTH<double>); }
ONEPASS_INLINE Vec<double> widened(const Float16* p, First lanes) { return widened_half(p, lanes.n); }
ONEPASS_INLINE Vec<double> widened(const BFloat16* p, All) { return widened_half(p, WIDTH<double>); }
ONEPASS_INLINE Vec<double> widened(const BFloat16* p, First lanes) { return widened_half(p, lanes.n); }

// A block of rows of one problem, and where its sums go, an element a column.
template <class S, class W>
struct Block {
    const S *x, *dy;
    const W* weight;
    index rows, cols, stride, weight_row, weight_col;
    bool skipna;
    const Arith<S>*before, *after;
    double *count, *pivot, *low, *m2, *sum, *product;

    template <class Lanes>
    ONEPASS_INLINE Vec<double> weight_at(index i, index j, Lanes lanes) const {
        if (weight_col) return widened(weight + i * weight_row + j, lanes);
        return splat(double(weight[i * weight_row]));
    }
};

// The first element of each column that counts, as its pivot: constants give exactly themselves. Where none counts, the
// first that has a dy, so that its product is not taken from far away.
template <class S, class W>
ONEPASS_INLINE void begin(const Block<S, W>& a) {
    const auto first = [&](index j, const auto& counts) ONEPASS_FLAT {
        for (index i = 0; i < a.rows; ++i) {
            const double x = double(element(a.x + i * a.stride + j));
            if (!counts(i, x)) continue;
            a.pivot[j] = x * double(a.before[j]);
            return true;
        }
        return false;
    };
    for (index j = 0; j < a.cols; ++j) {
        a.count[j] = a.pivot[j] = a.low[j] = a.m2[j] = 0.0;
        const bool found = first(j, [&](index i, double x) ONEPASS_FLAT {
            return a.weight[i * a.weight_row + j * a.weight_col] > 0 && !(a.skipna && x != x);
        });
        if (!a.dy) continue;
        a.sum[j] = a.product[j] = 0.0;
        if (!found) first(j, [&](index i, double) ONEPASS_FLAT { return element(a.dy + i * a.stride + j) != 0; });
    }
}

ONEPASS_INLINE Mask above_zero(Vec<double> a) { return (Mask)(a.v > Wide{}); }
// Nothing of nothing is nothing.
ONEPASS_INLINE Vec<double> share_of(Vec<double> part, Vec<double> whole) {
    return where(above_zero(whole), Vec<double>{part.v / whole.v});
}

template <bool GRADIENT, class S, class W>
ONEPASS_INLINE void add_chunk(const Block<S, W>& a, index row, index rows) {
    each_vector<double>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const Vec<double> pivot = load(a.pivot + j, lanes), before = widened(a.before + j, lanes);
        const Vec<double> after = widened(a.after + j, lanes), any = splat(a.skipna ? 0.0 : 1.0);
        Vec<double> d[ROWS] = {}, w[ROWS] = {}, part[ROWS] = {}, e[ROWS] = {}, about[ROWS] = {};
        for (index i = 0; i < rows; ++i) {
            const index at = (row + i) * a.stride + j;
            const Vec<double> x = widened(a.x + at, lanes), shifted = (x * before - pivot) * after;
            w[i] = a.weight_at(row + i, j, lanes);
            const Mask valid = above_zero(w[i]) & ((Mask)(x.v == x.v) | (Mask)(any.v != Wide{}));
            w[i] = where(valid, w[i]);
            d[i] = where(valid, shifted);
            part[i] = w[i] * d[i];
            if constexpr (GRADIENT) {
                e[i] = widened(a.dy + at, lanes);
                about[i] = where((Mask)(e[i].v != Wide{}), shifted);
            }
        }
        const Vec<double> weight = sum8(w), mean = share_of(sum8(part), weight);
        for (index i = 0; i < rows; ++i) {
            const Vec<double> from_mean = d[i] - mean;
            part[i] = where(above_zero(w[i]), w[i] * (from_mean * from_mean));
        }
        const Vec<double> count = load(a.count + j, lanes), low = load(a.low + j, lanes), total = count + weight;
        const Vec<double> share = share_of(weight, total), delta = where(above_zero(weight), mean - low);
        store(a.low + j, low + delta * share, lanes);
        store(a.m2 + j, (load(a.m2 + j, lanes) + sum8(part)) + delta * delta * (count * share), lanes);
        store(a.count + j, total, lanes);
        if constexpr (GRADIENT) {
            // The chunk's product is taken about its own mean, and both are moved to the common one.
            const Vec<double> centre = low + delta, sum = load(a.sum + j, lanes), more = sum8(e);
            for (index i = 0; i < rows; ++i) about[i] = e[i] * where((Mask)(e[i].v != Wide{}), about[i] - centre);
            const Vec<double> moved = delta * (more * (splat(1.0) - share) - sum * share);
            store(a.product + j, (load(a.product + j, lanes) + sum8(about)) + moved, lanes);
            store(a.sum + j, sum + more, lanes);
        }
    });
}

template <class S, class W>
void block_moments(const Block<S, W>& a) {
    begin(a);
    for (index row = 0; row < a.rows; row += ROWS) {
        const index rows = a.rows - row < ROWS ? a.rows - row : index(ROWS);
        a.dy ? add_chunk<true>(a, row, rows) : add_chunk<false>(a, row, rows);
    }
}

template <class S, class W>
void columns_weighted(const Weighted<S, W>& a) {
    block_moments(Block<S, W>{a.x, a.dy, a.weight, a.rows, a.cols, a.stride, a.weight_row, a.weight_col, a.skipna, a.before,
                              a.after, a.count, a.pivot, a.low, a.m2, a.sum, a.product});
}

template <class S, class W>
void rows_weighted(const Weighted<S, W>& a) {
    const index full = a.cols / FOLD, rest = a.cols % FOLD, at = full * FOLD, from = full ? FOLD : 0;
    // The last row of the matrix, where it is not whole, has sums of its own.
    double sums[6][2 * FOLD];
    Arith<S> before[FOLD], after[FOLD];
    for (index row = 0; row < a.rows; ++row) {
        const index start = row * a.stride;
        const W* weight = a.weight + row * a.weight_row;
        for (int j = 0; j < FOLD; ++j) {
            before[j] = a.before[row];
            after[j] = a.after[row];
        }
        const auto block = [&](index begins, index rows, index cols, index to) ONEPASS_FLAT {
            block_moments(Block<S, W>{a.x + start + begins, a.dy ? a.dy + start + begins : nullptr,
                                      weight + begins * a.weight_col, rows, cols, FOLD, FOLD * a.weight_col, a.weight_col,
                                      a.skipna, before, after, sums[0] + to, sums[1] + to, sums[2] + to, sums[3] + to,
                                      sums[4] + to, sums[5] + to});
        };
        block(0, full, from, 0);
        block(at, 1, rest, from);
        const Moments m = merge_parts(sums[0], sums[1], sums[2], sums[3], from + rest, double(after[0]));
        a.count[row] = m.count;
        a.pivot[row] = m.mean;
        a.low[row] = m.low;
        a.m2[row] = m.m2;
        if (!a.dy) continue;
        double sum = 0.0, product = 0.0;
        for (index j = 0; j < from + rest; ++j) {
            sum += sums[4][j];
            product += sums[5][j] + sums[4][j] * ((sums[1][j] - m.mean) * double(after[0]) + (sums[2][j] - m.low));
        }
        a.sum[row] = sum;
        a.product[row] = product;
    }
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
