// A row normalized: its line from its moments, then a second read of the row from the cache, written with the line.
//
// What every file of rows shares; each of them says where its rows come from and what follows the standardized value.
#pragma once

#include "kernels/row_line.hpp"
#include "kernels/write.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// What comes behind the standardized value: weight and bias of an element. (One parameter alone, or one of 32 bits beside a
// row of 16, is as well read across lines as x and y would be.)
template <class T, bool WEIGHT, bool BIAS>
struct ByElement {
    static constexpr bool HAS_WEIGHT = WEIGHT, HAS_BIAS = BIAS;
    const T *weight, *bias;
    bool across;
    template <class S>
    ONEPASS_INLINE index lead(const S* y, bool streamed) const {
        if (across && !streamed) return 0;
        return BIAS && sizeof(S) == sizeof(T) ? lead_of(y, weight, streamed) : to_line(y);
    }
    template <class Lanes>
    ONEPASS_INLINE Vec<T> operator()(Vec<T> v, index i, Lanes lanes) const {
        if constexpr (WEIGHT) v = v * load(weight + i, lanes);
        if constexpr (BIAS) v = v + load(bias + i, lanes);
        return v;
    }
};

// f(affine_at), where affine_at(i) is what comes behind the standardized value of a row whose weight and bias begin at i.
template <class S, class F>
ONEPASS_INLINE void with_affine(const RowsNorm<S>& a, const F& f) {
    using T = Arith<S>;
    const T *w = a.affine.weight, *b = a.affine.bias;
    const bool across = a.across;
    if (b) return f([=](index at) ONEPASS_FLAT { return ByElement<T, true, true>{w + at, b + at, across}; });
    if (w) return f([=](index at) ONEPASS_FLAT { return ByElement<T, true, false>{w + at, nullptr, across}; });
    f([=](index) ONEPASS_FLAT { return ByElement<T, false, false>{nullptr, nullptr, across}; });
}

// f(whether rows are centered, as a constant's type). RMS norm, which is not, has no bias.
template <bool VALUE>
struct Constant {
    static constexpr bool value = VALUE;
};
template <class Affine, class S, class F>
ONEPASS_INLINE auto with_centered(const RowsNorm<S>& a, const F& f) {
    if constexpr (!Affine::HAS_BIAS)
        if (!a.centered) return f(Constant<false>());
    return f(Constant<true>());
}

template <bool LOW, bool RANGED, class S, class Source, class Affine, class Meanwhile = Nothing>
ONEPASS_INLINE void apply_row(const Source& x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine,
                              bool streamed, bool joined, Edge<S>& edge, Meanwhile&& meanwhile = {}) {
    using T = Arith<S>;
    const Deviation<T, LOW, RANGED> deviation(line);
    const Vec<T> scale = splat(line.scale);
    const auto source = [&](index i, auto lanes) ONEPASS_FLAT { return x.at(i, lanes); };
    const auto value = [&](Vec<T> v, index i, auto lanes) ONEPASS_FLAT { return affine(deviation(v) * scale, i, lanes); };
    write_row<T>(y, affine.lead(y, streamed), n, source, value, streamed, joined, edge, meanwhile);
}

template <class S, class Source, class Affine>
__attribute__((noinline)) void apply_ranged_row(Source x, S* y, index n, Line<Arith<S>> line, Affine affine, bool streamed,
                                                bool joined, Edge<S>& edge) {
    apply_row<true, true>(x, y, n, line, affine, streamed, joined, edge);
}

template <class S, class Source, class Affine, class Meanwhile = Nothing>
ONEPASS_INLINE void apply_row(const Source& x, S* y, index n, const Line<Arith<S>>& line, const Affine& affine,
                              bool streamed, bool joined, Edge<S>& edge, Meanwhile&& meanwhile = {}) {
    if (__builtin_expect(line.ranged, 0))   // seldom enough to have nothing done meanwhile
        apply_ranged_row(itself(x), y, n, line, affine, streamed, joined, edge);
    else if (line.low != 0)
        apply_row<true, false>(x, y, n, line, affine, streamed, joined, edge, meanwhile);
    else
        apply_row<false, false>(x, y, n, line, affine, streamed, joined, edge, meanwhile);
}

// Bytes that a row takes of a cache: x or y so many `times`, weight and bias.
template <class S>
ONEPASS_INLINE index row_bytes(const RowsNorm<S>& a, index times) {
    const index weights = index(a.affine.weight != nullptr) + index(a.affine.bias != nullptr);
    return a.cols * (times * index(sizeof(S)) + weights * index(sizeof(Arith<S>)));
}

// Where x, y, weight and bias of one row fill the first-level cache, every row would fetch weight and bias again. So a few
// rows are applied together, a stretch of columns at a time: but for those that a roomy cache keeps, with weight and bias,
// while y passes through. (Not pack by pack, with weight and bias in registers: wherever rows are whole pages long that was
// a third slower, however loads and stores were ordered.)
template <class S>
ONEPASS_INLINE bool wide(const RowsNorm<S>& a) {
    constexpr index FILLS = 8 << 10, KEPT = 32 << 10;   // bytes: of a row of weights, and of all that is kept
    return a.affine.weight && a.affine.period == 1 && a.cols * index(sizeof(Arith<S>)) >= FILLS &&
           !(NATIVE >= 32 && roomy_first_cache && row_bytes(a, 1) <= KEPT);
}

// f(from, to) for stretches of `cols` columns, which end where the lines of the first row's y do.
template <index STRETCH, class S, class F>
ONEPASS_INLINE void each_stretch(const S* y, index cols, const F& f) {
    for (index from = 0; from < cols;) {
        const index past = index(reinterpret_cast<std::uintptr_t>(y + from + STRETCH) % PACK) / index(sizeof(S));
        const index to = from + STRETCH - past < cols ? from + STRETCH - past : cols;
        f(from, to);
        from = to;
    }
}

template <class S>
ONEPASS_INLINE void keep_statistics(const RowsNorm<S>& a, index row, const Finished& f) {
    using T = Arith<S>;
    if (a.mean) a.mean[row] = T(f.true_mean);
    if (a.rstd) a.rstd[row] = T(f.rstd);
}

template <bool CENTERED, class S, class Source>
__attribute__((noinline)) Line<Arith<S>> row_line(const RowsNorm<S>& a, const Source& x, index row) {
    Finished f;
    const Line<Arith<S>> line = line_of<CENTERED, Arith<S>>(x, a.cols, a.finish, f);
    keep_statistics(a, row, f);
    return line;
}
template <class S, class Source>
ONEPASS_INLINE Line<Arith<S>> row_line(const RowsNorm<S>& a, const Source& x, index row) {
    return a.centered ? row_line<true>(a, x, row) : row_line<false>(a, x, row);
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
