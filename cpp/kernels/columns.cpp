// Columns: the moments of each column of a block of rows in one read.
//
// Eight rows of one vector of columns are held in registers: their sum and that of their squares, about a pivot near the
// mean (sums.hpp has the formula). Or one row after the other is added to sums that stand in arrays. Blocks are merged
// elsewhere (groups.cpp).
// Lanes never meet, and additions are in the order of the rows: those of a chunk, the chunks of COLUMN_BLOCK rows, these of
// a block; whatever the vector's width, and whichever of the two ways is taken.
//
// Invariant: the cut into blocks and chunks depends on the shape alone.
#include "kernels/row_by_row.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

template <class T, bool RANGED>
struct ColumnShift {
    Vec<T> pivot, before, after;
    ONEPASS_INLINE Vec<T> operator()(Vec<T> x, Vec<T> one) const {
        if constexpr (RANGED) return (x * before - pivot) * after;
        return minus(x, pivot, one);
    }
};
template <bool RANGED, bool CENTERED, class S, class Lanes>
ONEPASS_INLINE ColumnShift<Arith<S>, RANGED> shift_at(const ColumnsMoments<S>& a, index j, Lanes lanes) {
    ColumnShift<Arith<S>, RANGED> shift = {};
    if constexpr (CENTERED) shift.pivot = load(a.pivot + j, lanes);
    if constexpr (RANGED) {
        shift.before = load(a.before + j, lanes);
        shift.after = load(a.after + j, lanes);
    }
    return shift;
}

// Of `rows` <= CHUNK values in each lane, row i at x + at[i]. A whole chunk stays in registers.
template <bool WHOLE, bool CENTERED, class S, class T, bool RANGED, class Lanes>
ONEPASS_INLINE Sums<Vec<T>> chunk_sums(const S* x, const index* at, index rows, const ColumnShift<T, RANGED>& shift,
                                       Vec<T> one, Lanes lanes) {
    Sums<Vec<T>> sums = {};
    if constexpr (WHOLE) {
        Vec<T> d[CHUNK];
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = shift(load(x + at[i], lanes), one);
        if constexpr (CENTERED) sums.sum = in_order(d);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; ++i) d[i] = d[i] * d[i];
        sums.squares = in_order(d);
    } else {
        for (index i = 0; i < rows; ++i) {
            const Vec<T> d = shift(load(x + at[i], lanes), one);
            if constexpr (CENTERED) sums.sum = sums.sum + d;
            sums.squares = sums.squares + d * d;
        }
    }
    return sums;
}

// Where the rows of a chunk begin.
struct Offsets {
    index at[CHUNK];
    ONEPASS_INLINE Offsets(index row, index rows, index stride) {
        for (index i = 0; i < CHUNK; ++i) at[i] = (i < rows ? row + i : 0) * stride;
    }
};

// One chunk of all columns. The first sets the pivots, every further one is added to the sums, which stand where mean and
// M2 will. What is sent for goes into CACHE: where that is the second one, each row sends for itself as well, shortly
// before it is read, and from afar each line is sent for twice: where all places for what is underway are taken, sending is
// in vain. (AVX2 and the baseline do that only where nothing is left in a cache: each line is several vectors there.)
template <bool WHOLE, bool OPENS, bool RANGED, bool CENTERED, int CACHE = SECOND, class S>
ONEPASS_INLINE void chunk_of_columns(ColumnsMoments<S> a, index row, index rows) {
    using T = Arith<S>;
    constexpr bool PLACED = CENTERED && !OPENS;   // pivots are
    const Offsets offsets(row, rows, a.stride);
    const index* at = offsets.at;
    const Vec<T> one = hidden_one<T>();
    const bool far = NATIVE == 64 ? a.mostly : a.far;
    Ahead<S, CHUNK * WIDTH<T>> ahead(a.x + (row + CHUNK) * a.stride, a.stride, a.cols);
    Ahead<S, CHUNK * WIDTH<T>> farther(a.x + (row + 2 * CHUNK) * a.stride, a.stride, a.cols);
    each_vector<T>(to_line(a.x), a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const S* x = a.x + j;
        if (WHOLE && a.beyond) ahead.template step<CACHE>();
        if (WHOLE && CACHE == SECOND && far) {
            farther.template step<SECOND>();
#pragma GCC unroll 8
            for (int i = 0; i < CHUNK; ++i) send_soon(x + at[i]);
        }
        auto shift = shift_at<RANGED, PLACED>(a, j, lanes);
        if constexpr (OPENS && CENTERED) {
            shift.pivot = first_pivot<T>(rows, [&](index i) ONEPASS_FLAT {
                const Vec<T> v = load(x + at[i], lanes);
                if constexpr (RANGED) return v * shift.before;
                return v;
            });
        }
        Sums<Vec<T>> sums = chunk_sums<WHOLE, CENTERED>(x, at, rows, shift, one, lanes);
        if constexpr (OPENS)
            store(a.pivot + j, shift.pivot, lanes);
        else
            sums = sums_of(a).at(j, lanes) + sums;
        sums_of(a).put(j, sums, lanes);
    });
}

// The sums of some columns become their moments.
template <class S, class T, class Lanes>
ONEPASS_INLINE Vec<T> finish_sums(const ColumnsMoments<S>& a, index j, const Sums<Vec<T>>& sums, Lanes lanes) {
    const Vec<T> mean = sums.sum * (T(1) / T(a.rows)), m2 = sums.squares - sums.sum * mean;
    store(a.low + j, mean, lanes);
    store(a.m2 + j, m2, lanes);
    return how_astray(mean, m2, T(a.rows));
}

// Once more, and from better pivots, the columns whose pivots were astray. (Others beside them keep theirs and so their
// bits, whatever the vector's width.)
template <bool RANGED, class S>
__attribute__((noinline)) void settle(const ColumnsMoments<S>& a) {
    using T = Arith<S>;
    const Vec<T> one = hidden_one<T>();
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        const index n = a.cols - j < WIDTH<T> ? a.cols - j : WIDTH<T>;
        const T* after = RANGED ? a.after + j : nullptr;
        if (!better_pivots(a.pivot + j, a.low + j, a.m2 + j, after, n, T(a.rows))) return;
        const auto shift = shift_at<RANGED, true>(a, j, lanes);
        Sums<Vec<T>> sums = {}, part = {};   // of all, and of COLUMN_BLOCK rows
        for (index row = 0; row < a.rows; row += CHUNK) {
            const index rows = a.rows - row < CHUNK ? a.rows - row : CHUNK;
            const Offsets offsets(row, rows, a.stride);
            const auto next = rows == CHUNK ? chunk_sums<true, true>(a.x + j, offsets.at, rows, shift, one, lanes)
                                            : chunk_sums<false, true>(a.x + j, offsets.at, rows, shift, one, lanes);
            part = row % COLUMN_BLOCK ? part + next : next;
            const index end = row + CHUNK;
            if (end % COLUMN_BLOCK == 0 || end >= a.rows) sums = row < COLUMN_BLOCK ? part : sums + part;
        }
        finish_sums(a, j, sums, lanes);
    });
}

// Adds all rows from `row` on to the sums, which stand where mean and M2 will.
template <bool RANGED, bool CENTERED, class S>
ONEPASS_INLINE void add_chunks(const ColumnsMoments<S>& a, index row) {
    if constexpr (!RANGED) {
        if (reads_by_rows(a)) {
            add_rows<CENTERED>(a, row);
            row += (a.rows - row) / CHUNK * CHUNK;
        }
        // (A loop of its own: that is quicker than to ask for each line.)
        for (; roomy_first_cache && row + CHUNK <= a.rows; row += CHUNK)
            chunk_of_columns<true, false, false, CENTERED, FIRST>(a, row, CHUNK);
    }
    for (; row + CHUNK <= a.rows; row += CHUNK) chunk_of_columns<true, false, RANGED, CENTERED>(a, row, CHUNK);
    if (row < a.rows) chunk_of_columns<false, false, RANGED, CENTERED>(a, row, a.rows - row);
}

// Adds a long block's rows behind the first COLUMN_BLOCK: the sums of as many at a time.
template <bool RANGED, bool CENTERED, class S>
__attribute__((noinline)) void add_parts(const ColumnsMoments<S>& a) {
    Room<Arith<S>> room;
    const SumsAt<Arith<S>> sums = room.abreast(a.x);
    ColumnsMoments<S> part = a;
    part.low = sums.sum;
    part.m2 = sums.squares;
    for (index from = COLUMN_BLOCK; from < a.rows; from += COLUMN_BLOCK) {
        part.x = a.x + from * a.stride;
        part.rows = a.rows - from < COLUMN_BLOCK ? a.rows - from : COLUMN_BLOCK;
        for (index j = 0; j < a.cols; ++j) part.low[j] = part.m2[j] = 0;
        add_chunks<RANGED, CENTERED>(part, 0);
        for (index j = 0; j < a.cols; ++j) {
            a.low[j] += part.low[j];
            a.m2[j] += part.m2[j];
        }
    }
}

template <bool RANGED, bool CENTERED, class S>
void moments_of_block(ColumnsMoments<S> a) {
    using T = Arith<S>;
    const index rows = a.rows;
    a.rows = rows < COLUMN_BLOCK ? rows : COLUMN_BLOCK;
    if (a.rows < CHUNK) {
        chunk_of_columns<false, true, RANGED, CENTERED>(a, 0, a.rows);
    } else {
        if (!RANGED && reads_by_rows(a)) touch_chunk(a.x, a.cols);
        chunk_of_columns<true, true, RANGED, CENTERED>(a, 0, CHUNK);
    }
    add_chunks<RANGED, CENTERED>(a, CHUNK);
    a.rows = rows;
    if (rows > COLUMN_BLOCK) add_parts<RANGED, CENTERED>(a);
    if (!CENTERED) return;
    Vec<T> astray = {};
    each_vector<T>(a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        astray = greater(finish_sums(a, j, sums_of(a).at(j, lanes), lanes), astray);
    });
    if (any_positive(astray)) settle<RANGED>(a);
}

template <class S>
void columns_moments(const ColumnsMoments<S>& a) {
    if (a.before)
        a.centered ? moments_of_block<true, true>(a) : moments_of_block<true, false>(a);
    else
        a.centered ? moments_of_block<false, true>(a) : moments_of_block<false, false>(a);
}

template <class S>
void add(Kernels<S>& kernels) {
    kernels.columns_moments = columns_moments<S>;
}

}   // namespace

void add_columns(Table& table) {
    add(table.f32);
    add(table.f64);
    add(table.f16);
    add(table.bf16);
}

}   // namespace onepass::ONEPASS_ISA
