// Rows: the moments of each contiguous row in one read, and the row normalized.
//
//   y = (x - mean) * rstd * weight + bias,   rstd = 1 / sqrt(M2 / (n - ddof) + eps)
//
// (Ba, Kiros & Hinton 2016; without the mean, M2 the sum of squares about 0, it is Zhang & Sennrich's RMS norm, 2019.)
//
// Statistics from row_moments.hpp, then a second read of the row from the cache.
#include "kernels/ahead.hpp"
#include "kernels/narrow_rows.hpp"
#include "kernels/row_norm.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// The next row's moments are taken while a row is written: arithmetic for the units that would only wait for stores. It
// takes 32 registers, rows of one block each, and two rows of x, one of y, weight and bias that the first-level cache
// holds; twice that where x comes from afar, for wider ones would be read twice from there. (And so, but in 32 bits,
// from the third cache; in 16 bits half as much again from a near one: as it was quicker.) A roomy one keeps wider rows
// from one reading to the next, which is quicker yet, but for what is converted for either.
template <bool FAR, class S>
ONEPASS_INLINE bool interleaved(const RowsNorm<S>& a) {
    const bool twice = FAR || (a.beyond && sizeof(S) != 4);
    const index kib = roomy_first_cache ? (sizeof(S) > 2 ? 44 : 55) : twice ? 64 : sizeof(S) > 2 ? 32 : 48;
    return NATIVE == 64 && a.cols <= BLOCK_SIZE<Arith<S>> && row_bytes(a, 3) <= kib << 10 && a.rows > 1;
}

// Rows that are wide, in bands. Streamed, by short turns, and only where that is quicker: not where the first cache is
// roomy, and rows must end with their lines, for a line that two stretches share is not streamed.
template <bool FAR>
constexpr index BAND = FAR ? 4 : 32;   // rows
template <bool FAR>
constexpr index STRETCH = FAR ? 128 : 1024;   // columns

template <bool FAR, class S>
constexpr bool MAY_BAND = !FAR || (NATIVE == 64 && sizeof(S) > 2);
template <bool FAR, class S>
ONEPASS_INLINE bool bands(const RowsNorm<S>& a) {
    return MAY_BAND<FAR, S> && wide(a) && (!FAR || (a.far && !roomy_first_cache && a.y_stride % Edge<S>::LINE == 0));
}

// Whether moments send for what they read, by themselves: from memory; else where the widest vectors send for each line but
// once, or what they send for goes into the second cache.
template <bool FAR, class S>
ONEPASS_INLINE bool sends(const RowsNorm<S>& a) {
    if (!FAR) return NATIVE == 64 && a.beyond;
    return NATIVE == 64 || !roomy_first_cache || a.far;
}

// Whether what the second reading sends for is sent for AGAIN (ahead.hpp): with both parameters it computes too long.
template <class Affine>
constexpr bool SENT_AGAIN = !Affine::HAS_BIAS;

// Where rows come from, to be read twice each: from a cache; or, where results are streamed, from FAR away. Both readings
// send for all of a later row there, the second one twice as far: what is sent for while all places for what is underway
// are taken is lost, and moments are taken quicker than memory is. From a cache that is shared the first sends for all of
// it, a shorter way ahead.
template <class S, bool FAR>
struct Reader {
    const RowsNorm<S>& a;
    index ahead = a.x_stride * (bands<FAR>(a) && a.ahead < BAND<FAR> ? BAND<FAR> : a.ahead);
    ONEPASS_INLINE Line<Arith<S>> line(index row) const {
        if constexpr (!FAR)
            if (sends<FAR>(a)) return row_line(a, sending<true>(source(row, 0, 0), whole(row)), row);
        if constexpr (NATIVE == 16)   // whose second reading sends for each line several times
            return row_line(a, Plain<S>{a.x + row * a.x_stride}, row);
        else
            return row_line(a, source(row, 0, ahead), row);
    }
    template <class Affine>
    ONEPASS_INLINE auto second(index row, const Affine&, index from = 0) const {
        return source<SENT_AGAIN<Affine>>(row, from, 2 * ahead);
    }

    // (What lies between rows that lie apart is not sent for.)
    ONEPASS_INLINE auto whole(index row) const {
        return all_of(later(row), a.x + row * a.x_stride + soon<S, WIDE_ROW>(a.cols, a.x_stride));
    }
    ONEPASS_INLINE const S* later(index row) const {
        const index away = FAR ? BEHIND<S> : roomy_first_cache ? CLOSE_BEHIND<S> : SOON<S>;
        return a.x + row * a.x_stride + (a.x_stride == a.cols ? away : a.ahead * a.x_stride);
    }
    // What is sent for while all of a row is read.
    ONEPASS_INLINE static auto all_of(const S* later, const S* soon) {
        return Shares<S, 1, 1, FAR ? Way::both : Way::straight>{{later}, 0, {soon}};
    }

  private:
    template <bool AGAIN = false>
    ONEPASS_INLINE auto source(index row, index from, index later) const {
        const S* x = a.x + row * a.x_stride;
        return sending<FAR>(Plain<S>{x + from}, Shares<S, 1, 1, Way::twice, AGAIN>{{x + later}, from});
    }
};

// Two rows at once: weight and bias are read for both.
template <bool FAR, class S>
ONEPASS_INLINE bool in_pairs(const RowsNorm<S>& a) {
    return a.affine.period == 1 && pair<S>(FAR, a.y_stride);
}
template <bool LOW, class S, class Affine>
ONEPASS_INLINE void apply_two(const RowsNorm<S>& a, index row, index from, index to, const Line<Arith<S>>* line,
                              const Affine& affine) {
    using T = Arith<S>;
    const S* x[] = {a.x + row * a.x_stride + from, a.x + (row + 1) * a.x_stride + from};
    const Deviation<T, LOW, false> deviation[] = {Deviation<T, LOW, false>(line[0]), Deviation<T, LOW, false>(line[1])};
    const Vec<T> scale[] = {splat(line[0].scale), splat(line[1].scale)};
    S* y = a.y + row * a.y_stride + from;
    write_two<T>(y, a.y_stride, affine.lead(y, false), to - from, [&](int k, index i, auto lanes) ONEPASS_FLAT {
        return affine(deviation[k](load(x[k] + i, lanes)) * scale[k], i, lanes);
    });
}
// False where a row has to be brought into range, and so is applied by itself.
template <class S, class Affine>
ONEPASS_INLINE bool try_two(const RowsNorm<S>& a, index row, index from, index to, const Line<Arith<S>>* line,
                            const Affine& affine) {
    if (__builtin_expect(line[0].ranged || line[1].ranged, 0)) return false;
    if (line[0].low != 0 || line[1].low != 0)
        apply_two<true>(a, row, from, to, line, affine);
    else
        apply_two<false>(a, row, from, to, line, affine);
    return true;
}

// SENT: the place of the next piece in y is sent for.
template <bool FAR, bool SENT, class S, class AffineAt>
__attribute__((noinline)) void norm_band(const RowsNorm<S>& a, index row, index rows, AffineAt affine_at) {
    const Reader<S, FAR> x = {a};
    Line<Arith<S>> line[BAND<FAR>];
    for (index i = 0; i < rows; ++i) line[i] = x.line(row + i);
    Edge<S> edge;
    each_stretch<STRETCH<FAR>>(a.y + row * a.y_stride, a.cols, [&](index from, index to) ONEPASS_FLAT {
        index i = 0;
        if (!SENT && in_pairs<FAR>(a))
            while (i + 2 <= rows && try_two(a, row + i, from, to, line + i, affine_at(from))) i += 2;
        for (; i < rows; ++i) {
            S* y = a.y + (row + i) * a.y_stride;
            const Shares<S, 1, 1, Way::straight> next = {
                {i + 1 < rows ? y + a.y_stride + from : a.y + row * a.y_stride + to}};
            apply_row(sending<SENT>(x.second(row + i, affine_at(from), from), next), y + from, to - from, line[i],
                      affine_at(from), FAR, false, edge);
        }
    });
}

// Rows of 16 bits, where arithmetic takes longer than memory: to convert a row once and keep what it became is quicker than
// to convert it twice, as long as that fits, too. (Not for RMS norm, which computes less.)
constexpr index KEPT = 2048;   // elements

// All rows but the last, whose line is returned. (A function of its own: all registers are its loop's.)
template <bool FAR, bool CENTERED, bool KEEPS, class S, class AffineOfRow>
__attribute__((noinline)) Line<Arith<S>> norm_interleaved(const RowsNorm<S>& a, bool joined, Edge<S>& edge,
                                                          AffineOfRow affine_of) {
    using T = Arith<S>;
    // Variables of their own: for all that the compiler knows, a store to y changes what `a` refers to.
    const index cols = a.cols, x_stride = a.x_stride, y_stride = a.y_stride, rows = a.rows;
    const Finish how = a.finish;
    const double inverse = inverse_freedom(double(cols), how), of_count = 1.0 / double(cols);
    const index come_soon = soon<S, WIDE_ROW>(cols, x_stride);
    const S *from = a.x, *later = Reader<S, FAR>{a}.later(1);
    S* y = a.y;
    // Half a page apart: a load waits for a pending store in its place within a page.
    alignas(PACK) T kept[2][KEEPS ? KEPT + 2048 / sizeof(T) : 1];
    const auto keeping = [&](const auto& source, index row) ONEPASS_FLAT {
        if constexpr (KEEPS)
            return Keeping<Plain<S>, T>{source, kept[row % 2]};
        else
            return source;
    };
    const auto once_more = [&](const S* x, const S* later, index row) ONEPASS_FLAT {
        if constexpr (KEEPS)
            return Plain<T>{kept[row % 2]};
        else
            return sending<FAR>(Plain<S>{x}, Shares<S, 1, 1, Way::twice, SENT_AGAIN<decltype(affine_of(row))>>{{later}});
    };
    Line<T> line = row_line<CENTERED>(a, Plain<S>{a.x}, 0);
    if constexpr (KEEPS)
        each_vector<T>(cols, [&](index i, auto lanes) ONEPASS_FLAT { store(kept[0] + i, load(a.x + i, lanes), lanes); });
    for (index row = 0; row + 1 < rows; ++row, from += x_stride, later += x_stride, y += y_stride) {
        const Plain<S> next = {from + x_stride};
        const T pivot = CENTERED ? choose_pivot(next, cols, T(1)) : T(0);
        auto reading = sending<true>(keeping(next, row + 1), Reader<S, FAR>::all_of(later, next.x + come_soon));
        LaneMoments<CENTERED, decltype(reading), T, false> lanes(reading, 0, cols, {pivot, 1, 1});
        apply_row(once_more(from, later + (later - next.x), row), y, cols, line, affine_of(row), FAR, joined, edge, lanes);
        lanes.rest();
        const Moments m = moments_of(lanes.all, cols, of_count);
        Finished f;
        line = line_of<CENTERED, T>({m.count, double(pivot), m.mean, m.m2}, next, cols, how, inverse, f);
        keep_statistics(a, row + 1, f);
    }
    return {line.mean, line.low, line.scale, line.before, line.after, line.ranged};   // (`line` itself would be in memory)
}

template <bool FAR, class S, class AffineOfRow>
ONEPASS_INLINE Line<Arith<S>> interleave(const RowsNorm<S>& a, bool joined, Edge<S>& edge, const AffineOfRow& affine_of) {
    if constexpr (sizeof(S) == 2)
        if (a.centered && a.cols <= KEPT) return norm_interleaved<FAR, true, true>(a, joined, edge, affine_of);
    return with_centered<decltype(affine_of(0))>(a, [&](auto centered) ONEPASS_FLAT {
        return norm_interleaved<FAR, decltype(centered)::value, false>(a, joined, edge, affine_of);
    });
}

// Narrow rows are joined side by side. Where rows can be interleaved, wider ones are quicker so, and the sooner the farther
// away x is and the less a row computes (in 32 bits without a mean; or on a Zen 5, whose first cache is roomy): as many
// rows as are joined take room in the caches twice, for x and for y; and so are those of float16, whose conversions are
// spared, on a Zen 4, where these take two turns each. Where they cannot, and y is streamed, a row's stores drain while the
// next one is read; those of many rows at once would be waited for. (From a cache the next row is read too soon for that,
// where rows are short.)
template <class S>
constexpr bool CONVERTED_LONG = false;
template <>
constexpr bool CONVERTED_LONG<Float16> = true;
template <bool FAR, class S>
ONEPASS_INLINE index narrow_row(const RowsNorm<S>& a) {   // bytes
    constexpr bool HALF = sizeof(S) == 2;
    if (NATIVE < 64) {
        if (FAR && !HALF && (NATIVE == 32 || (!a.centered && a.far))) return a.far ? (1 << 10) - 1 : 2 << 10;
        if (NATIVE == 32 && !HALF && !roomy_first_cache) return 2 << 10;
        return (NATIVE == 32 && !HALF ? 6 << 10 : 8 << 10) - 1;
    }
    if (FAR && !roomy_first_cache) return HALF ? 640 : a.centered ? 416 : 256;
    if (FAR) return HALF && a.centered ? 512 : 256;
    if (CONVERTED_LONG<S> && a.centered && !roomy_first_cache) return 512;
    return HALF ? 2048 : !a.centered ? 512 : a.beyond ? 1024 : 1536;
}
template <bool FAR, class S>
ONEPASS_INLINE bool narrow(const RowsNorm<S>& a) {
    return a.rows >= SIDE && (!FAR || fill_lines<S>(a.cols)) && a.cols * index(sizeof(S)) <= narrow_row<FAR>(a);
}

template <bool SENT, bool CENTERED, bool FAR, class S>
ONEPASS_INLINE void lines_of_narrow(const Reader<S, FAR>& of, index row, Line<Arith<S>> (&lines)[SIDE]) {
    const RowsNorm<S>& a = of.a;
    const auto source_of = [&](index i) ONEPASS_FLAT { return sending<SENT>(Plain<S>{a.x + i * a.x_stride}, of.whole(i)); };
    narrow_lines<CENTERED>(a, row, source_of, lines);
}

// All but the last rows, fewer than SIDE; the result is the first of them.
template <bool FAR, bool CENTERED, class S, class AffineOfRow>
__attribute__((noinline)) index norm_narrow(const RowsNorm<S>& given, bool joined, Edge<S>& edge, AffineOfRow affine_of) {
    const RowsNorm<S> a = given;   // which no store to y changes
    const Reader<S, FAR> reader = {a};
    const auto source_of = [&](index i) ONEPASS_FLAT { return Plain<S>{a.x + i * a.x_stride}; };
    Gathered<FAR, S> gathered(a.y, a.across);
    index row = 0;
    for (; row + SIDE <= a.rows; row += SIDE) {
        Line<Arith<S>> lines[SIDE];
        sends<FAR>(a) ? lines_of_narrow<true, CENTERED>(reader, row, lines)
                      : lines_of_narrow<false, CENTERED>(reader, row, lines);
        index done = 0;
        if (in_pairs<FAR>(a))   // (which streamed rows are not)
            while (done < SIDE && try_two(a, row + done, 0, a.cols, lines + done, affine_of(row + done))) done += 2;
        write_narrow<FAR>(a, row, lines, source_of, affine_of, gathered, joined, edge, done);
    }
    gathered.finish(edge, joined && row < a.rows);
    return row;
}

template <bool FAR, class S, class AffineAt>
ONEPASS_INLINE void norm(const RowsNorm<S>& a, const AffineAt& affine_at) {
    const auto affine_of = [affine_at, of = a.affine, cols = a.cols](index row) ONEPASS_FLAT {
        return affine_at((of.period == 1 ? 0 : (of.first + row) % of.period) * cols);
    };
    const Reader<S, FAR> x = {a};
    const bool joined = rows_join<S>(FAR, a.cols, a.y_stride);
    Edge<S> edge;
    index row = 0, known = -1;   // the row whose line is known
    Line<Arith<S>> line = {};
    if (sizeof(Arith<S>) == 4 && narrow<FAR>(a)) {
        if constexpr (sizeof(Arith<S>) == 4)
            with_centered<decltype(affine_of(0))>(a, [&](auto centered) ONEPASS_FLAT {
                row = norm_narrow<FAR, decltype(centered)::value>(a, joined, edge, affine_of);
            });
    } else if (interleaved<FAR>(a)) {
        if constexpr (NATIVE == 64) {
            line = interleave<FAR>(a, joined, edge, affine_of);
            row = known = a.rows - 1;
        }
    } else if (bands<FAR>(a)) {
        if constexpr (MAY_BAND<FAR, S> && decltype(affine_at(0))::HAS_WEIGHT)
            for (; row < a.rows; row += BAND<FAR>) {
                const index rows = a.rows - row < BAND<FAR> ? a.rows - row : BAND<FAR>;
                a.beyond && !roomy_first_cache ? norm_band<FAR, !FAR>(a, row, rows, affine_at)
                                               : norm_band<FAR, false>(a, row, rows, affine_at);
            }
    }
    for (; row < a.rows; ++row) {
        if (row != known) line = x.line(row);
        apply_row(x.second(row, affine_of(row)), a.y + row * a.y_stride, a.cols, line, affine_of(row), FAR,
                  joined && row + 1 < a.rows, edge);
    }
    if (FAR) stream_fence();
}

template <class S>
void rows_norm(const RowsNorm<S>& a) {
    with_affine(
        a, [&](const auto& affine_at) ONEPASS_FLAT { a.stream ? norm<true>(a, affine_at) : norm<false>(a, affine_at); });
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.rows_norm = rows_norm<S>;
}

}   // namespace

void add_rows(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
