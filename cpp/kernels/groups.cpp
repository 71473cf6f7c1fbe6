// Groups: the moments of their parts merged, and finished into the line that is applied.
//
//   mean = sum(n_b mean_b) / n,   M2 = sum(M2_b) + sum(n_b (mean_b - mean)^2)
//
// which is Chan's formula for many parts at once (Chan, Golub & LeVeque 1979), in double; moments.hpp has the rest.
// Gradients add product = sum(product_b + sum_b (mean_b - mean)).
// Invariant: parts are added in the order in which they lie, group by group, so no tile or thread shows in the bits.
#include "kernels/moments.hpp"
#include "simd/doubles.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// An element of each of some groups, as doubles: these lie side by side,
template <class Lanes>
struct Beside {
    Lanes lanes;
    template <class T>
    ONEPASS_INLINE Vec<double> operator()(const T* p) const {
        return load_doubles(p, lanes);
    }
    ONEPASS_INLINE void put(double* p, Vec<double> a) const { store(p, a, lanes); }
};
// or `step` elements apart. (Where there are only n groups, the last one is several lanes.)
template <int BYTES>
struct Apart {
    static constexpr int LANES = BYTES / int(sizeof(double));
    index at[LANES], n;
    ONEPASS_INLINE Apart(index step, index left) : n(left < LANES ? left : LANES) {
        for (index i = 0; i < LANES; ++i) at[i] = (i < n ? i : n - 1) * step;
    }
    template <class T>
    ONEPASS_INLINE Vector<double, BYTES> operator()(const T* p) const {
        double lanes[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; ++i) lanes[i] = double(p[at[i]]);
        Vector<double, BYTES> a;
        __builtin_memcpy(&a, lanes, sizeof a);
        return a;
    }
    ONEPASS_INLINE void put(double* p, Vector<double, BYTES> a) const {
        for (index i = 0; i < n; ++i) p[i] = a.v[i];
    }
};

// All blocks at once about their common mean: the sum of the means first, then the squares of what each differs by. The
// sums of doubles are compensated; beside what floats can tell a double has digits enough.
// `of` reads what is `a.step` apart, from group j on, and `beside` what is not.
template <bool RANGED, class T, class A, class Of, class Side>
ONEPASS_INLINE void merge_some(const Blocks<T, A>& a, index j, const Of& of, const Side& beside) {
    const T *mean = a.mean + j * a.step, *low = a.low + j * a.step, *m2 = a.m2 + j * a.step;
    const index first_of_lasts = a.blocks - a.lasts;
    const double total = a.count * double(first_of_lasts) + a.last * double(a.lasts);
    const auto first = of(mean);
    auto after = first;
    if constexpr (RANGED) after = beside(a.after + j);
    // The sum over all blocks of value(where one's are, its mean counted from the first one's, its count).
    const auto sum_of = [&](const auto& value) ONEPASS_FLAT {
        auto sum = first - first, rest = sum;
        for (index b = 0; b < a.blocks; ++b) {
            const index at = b * a.stride;
            auto apart = of(mean + at) - first;
            if constexpr (RANGED) apart = apart * after;
            const auto term = value(at, apart + of(low + at), b < first_of_lasts ? a.count : a.last);
            const auto next = sum + term;
            if constexpr (sizeof(T) == sizeof(double)) {
                const auto t = next - sum;
                rest = rest + ((sum - (next - t)) + (term - t));
            }
            sum = next;
        }
        return sum + rest;
    };
    auto centre = sum_of([](index, auto apart, double count) ONEPASS_FLAT { return apart * count; });
    centre.v /= total;
    beside.put(a.mean_out + j, first);
    beside.put(a.low_out + j, centre);
    beside.put(a.m2_out + j, sum_of([&](index at, auto apart, double count) ONEPASS_FLAT {
                   const auto d = apart - centre;
                   return of(m2 + at) + d * d * count;
               }));
}

// (Few groups apart are taken by two: to gather more takes longer.)
template <bool RANGED, class T, class A>
ONEPASS_INLINE void merge_all(const Blocks<T, A>& a) {
    if (a.step == 1)
        return each_vector<double>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
            const Beside<decltype(lanes)> beside = {lanes};
            merge_some<RANGED>(a, j, beside, beside);
        });
    const auto some = [&](index j, auto apart, auto beside) ONEPASS_FLAT {
        merge_some<RANGED>(a, j, apart, beside);
        return j + beside.n;
    };
    for (index j = 0; j < a.cols;) {
        const index left = a.cols - j;
        j = left > WIDTH<double> / 2 ? some(j, Apart<NATIVE>(a.step, left), Apart<NATIVE>(1, left))
                                     : some(j, Apart<16>(a.step, left), Apart<16>(1, left));
    }
}

template <class T, class A>
void merge_blocks(const Blocks<T, A>& a) {
    if (a.blocks == 1) {
        for (index j = 0; j < a.cols; ++j) a.mean_out[j] = double(a.mean[j * a.step]);
        for (index j = 0; j < a.cols; ++j) a.low_out[j] = double(a.low[j * a.step]);
        for (index j = 0; j < a.cols; ++j) a.m2_out[j] = double(a.m2[j * a.step]);
        return;
    }
    a.after ? merge_all<true>(a) : merge_all<false>(a);
}

// Of pieces whose means differ from their cell's.
template <bool RANGED, class T, class A>
ONEPASS_INLINE void merge_product_tiles(const Products<T, A>& a) {
    constexpr index TILE = 64;
    for (index start = 0; start < a.cols; start += TILE) {
        const index n = a.cols - start < TILE ? a.cols - start : TILE;
        const double *mean = a.mean + start, *mean_low = a.mean_low + start;
        const A* after = RANGED ? a.after + start : nullptr;
        double sum[TILE] = {}, product[TILE] = {};
        for (index piece = 0; piece < a.pieces; ++piece) {
            const index at = piece * a.stride + start;
            const T *pivot = a.pivot + at, *low = a.low + at, *sum_of = a.sum + at, *product_of = a.product + at;
            for (index j = 0; j < n; ++j) {
                double apart = double(pivot[j]) - mean[j];
                if constexpr (RANGED) apart *= double(after[j]);
                apart += double(low[j]) - mean_low[j];
                sum[j] += double(sum_of[j]);
                product[j] += double(product_of[j]) + double(sum_of[j]) * apart;
            }
        }
        for (index j = 0; j < n; ++j) {
            a.sum_out[start + j] = sum[j];
            a.product_out[start + j] = product[j];
        }
    }
}

template <class T, class A>
void merge_products(const Products<T, A>& a) {
    a.after ? merge_product_tiles<true>(a) : merge_product_tiles<false>(a);
}

// Tile by tile through arrays of its own, so that the loops become vector code.
template <bool RANGED, class T>
ONEPASS_INLINE bool finish_tiles(const Finishing<T>& a) {
    constexpr index TILE = 64;
    const Finish how = a.how;
    const double inverse = inverse_freedom(a.count, how);
    long all = 1;
    for (index start = 0; start < a.cols; start += TILE) {
        const index n = a.cols - start < TILE ? a.cols - start : TILE;
        const double* __restrict mean = a.mean + start;
        const double* __restrict low = a.low + start;
        const double* __restrict m2 = a.m2 + start;
        T out[3][TILE], statistics[2][TILE];
        double before[TILE], after[TILE], scale[TILE];
        long in_range[TILE];
        for (index j = 0; RANGED && j < n; ++j) {
            before[j] = double(a.line.before[start + j]);
            after[j] = double(a.line.after[start + j]);
        }
        for (index j = 0; j < n; ++j) {
            const Finished f =
                finish<T>(inverse, mean[j], low[j], m2[j], how, RANGED ? before[j] : 1.0, RANGED ? after[j] : 1.0);
            out[0][j] = T(f.mean);
            out[1][j] = T(f.low);
            out[2][j] = T(f.scale);
            scale[j] = f.scale;
            statistics[0][j] = T(f.true_mean);
            statistics[1][j] = T(f.rstd);
            in_range[j] = f.in_range ? 1 : 0;
        }
        for (index j = 0; j < n; ++j) a.line.mean[start + j] = out[0][j];
        for (index j = 0; j < n; ++j) a.line.low[start + j] = out[1][j];
        for (index j = 0; j < n; ++j) a.line.scale[start + j] = out[2][j];
        for (index j = 0; j < n; ++j) all &= in_range[j];
        for (index j = 0; a.true_mean && j < n; ++j) a.true_mean[start + j] = statistics[0][j];
        for (index j = 0; a.rstd && j < n; ++j) a.rstd[start + j] = statistics[1][j];
        for (index j = 0; a.scale && j < n; ++j) a.scale[start + j] = scale[j];
    }
    return all != 0;
}

template <class T>
bool finish_groups(const Finishing<T>& a) {
    return a.line.before ? finish_tiles<true>(a) : finish_tiles<false>(a);
}

// (Loops that become vector code.)
template <class T>
void take_given(const Given<T>& a) {
    const T* __restrict mean = a.mean;
    const T* __restrict var = a.var;
    T* __restrict to = a.line.mean;
    T* __restrict low = a.line.low;
    T* __restrict scale = a.line.scale;
    const double eps = a.eps;
    for (index j = 0; j < a.cols; ++j) scale[j] = T(1.0 / __builtin_sqrt(double(var[j]) + eps));
    for (index j = 0; j < a.cols; ++j) {
        to[j] = mean[j];
        low[j] = 0;
    }
    for (index j = 0; a.true_mean && j < a.cols; ++j) a.true_mean[j] = mean[j];
    for (index j = 0; a.rstd && j < a.cols; ++j) a.rstd[j] = scale[j];
}

// Decided column by column, so that no column has a say in another's bits.
template <class T>
bool join_weights(const Joining<T>& a) {
    constexpr T LEAST = Limits<T>::least_normal, MOST = Limits<T>::most;
    long apart = 0;
    for (index j = 0; j < a.cols; ++j) {
        const T scale = a.scale[j], weight = a.weight[j], product = scale * weight;
        const T size = product < 0 ? -product : product;
        const bool joins = ((size >= LEAST) & (size <= MOST)) | (weight == 0) | (scale == 0);
        a.product[j] = joins ? product : scale;
        a.weight[j] = joins ? T(1) : weight;
        apart |= joins ? 0 : 1;
    }
    return apart != 0;
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.take_given = take_given<Arith<S>>;
    kernels.join_weights = join_weights<Arith<S>>;
    kernels.merge_blocks = merge_blocks<Arith<S>, Arith<S>>;
    kernels.merge_moments = merge_blocks<double, Arith<S>>;
    kernels.merge_products = merge_products<Arith<S>, Arith<S>>;
    kernels.merge_double_products = merge_products<double, Arith<S>>;
    kernels.finish_groups = finish_groups<Arith<S>>;
}

}   // namespace

void add_groups(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
