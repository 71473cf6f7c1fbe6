// Sums of columns that are taken row by row, as the rows lie in memory.
//
//   chunk = x[0] + x[1] + ... + x[CHUNK - 1],  all = all + chunk,   an element a column
//
// Rows that are read side by side (ahead.hpp) are streams that end with each page; one row behind the other is a single
// one, and memory likes that best. But what registers hold there stands in arrays here, and for each vector that is read
// two are stored: memory leaves time for that, a cache does not.
//
// Invariant: the order of additions is that of chunks in registers (in_order, sums.hpp).
#pragma once

#include "kernels/ahead.hpp"
#include "kernels/sums.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

// Sums in arrays.
template <class T>
struct SumsAt {
    T *sum, *squares;
    template <class Lanes>
    ONEPASS_INLINE Sums<Vec<T>> at(index j, Lanes lanes) const {
        return {load(sum + j, lanes), load(squares + j, lanes)};
    }
    template <class Lanes>
    ONEPASS_INLINE void put(index j, const Sums<Vec<T>>& sums, Lanes lanes) const {
        store(sum + j, sums.sum, lanes);
        store(squares + j, sums.squares, lanes);
    }
};

// Those of all rows stand where mean and M2 will.
template <class S>
ONEPASS_INLINE SumsAt<Arith<S>> sums_of(const ColumnsMoments<S>& a) {
    return {a.low, a.m2};
}

// Room for the sums of a tile, which lie in a page where x does: no load of x is shortly behind a store to them.
template <class T>
class Room {
  public:
    ONEPASS_INLINE SumsAt<T> abreast(const void* x) { return {abreast(x, arrays_[0]), abreast(x, arrays_[1])}; }

  private:
    static constexpr index PAGE = 4096;   // bytes
    ONEPASS_INLINE static T* abreast(const void* x, T* array) {
        const auto from = reinterpret_cast<std::uintptr_t>(array), to = reinterpret_cast<std::uintptr_t>(x);
        return array + (to - from) % PAGE / sizeof(T);
    }
    alignas(PACK) T arrays_[2][(COLUMN_TILE + PAGE) / index(sizeof(T))];
};

// Whether rows are read like this: where they come from memory, on a roomy machine; if vectors are wide enough and nothing
// is converted, or computing takes longer; and if rows lie end to end, in the same place within cache lines.
template <class S>
ONEPASS_INLINE bool reads_by_rows(const ColumnsMoments<S>& a) {
    return NATIVE > 16 && sizeof(S) == sizeof(Arith<S>) && roomy_first_cache && a.beyond && a.stride == a.cols &&
           a.stride * index(sizeof(S)) % PACK == 0;
}

// What is sent for while a row is read. (No multiple of a page away: rows of pages, and the sums, lie in few sets of the
// first cache. Hidden: a compiler would address the row by it, less a constant, and its loads were slower by a twentieth.)
template <class S>
ONEPASS_INLINE const S* sent_by_rows(const S* row) {
    constexpr index LATER = 10240;   // bytes
    const S* later = row + LATER / index(sizeof(S));
    __asm__("" : "+r"(later));
    return later;
}

enum class Place { first, inside, last };   // of a row in its chunk

template <Place PLACE, bool CENTERED, class S, class T>
ONEPASS_INLINE void add_row(const ColumnsMoments<S>& a, index row, SumsAt<T> chunk) {
    const S *x = a.x + row * a.stride, *later = sent_by_rows(x);
    const T* pivot = a.pivot;
    const SumsAt<T> all = sums_of(a);
    const Vec<T> one = hidden_one<T>();
    each_vector<T>(to_line(x), a.cols, [&](index j, auto lanes) ONEPASS_FLAT {
        __builtin_prefetch(later + j, 0, FIRST);
        Vec<T> d = load(x + j, lanes);
        if constexpr (CENTERED) d = minus(d, load(pivot + j, lanes), one);
        Sums<Vec<T>> sums = {d, d * d};
        if constexpr (PLACE != Place::first) sums = chunk.at(j, lanes) + sums;
        if constexpr (PLACE == Place::last)
            all.put(j, all.at(j, lanes) + sums, lanes);
        else
            chunk.put(j, sums, lanes);
    });
}

// Adds the whole chunks from `row` on.
template <bool CENTERED, class S>
__attribute__((noinline)) void add_rows(const ColumnsMoments<S>& a, index row) {
    Room<Arith<S>> room;
    const SumsAt<Arith<S>> chunk = room.abreast(a.x);
    for (; row + CHUNK <= a.rows; row += CHUNK) {
        add_row<Place::first, CENTERED>(a, row, chunk);
        for (int i = 1; i + 1 < CHUNK; ++i) add_row<Place::inside, CENTERED>(a, row + i, chunk);
        add_row<Place::last, CENTERED>(a, row + CHUNK - 1, chunk);
    }
}

// Pivots are means of a block's first rows, which have to be read side by side: first of all as they lie.
template <class S>
__attribute__((noinline)) void touch_chunk(const S* x, index cols) {
    const S* later = sent_by_rows(x);
    for (index i = 0; i < CHUNK * cols; i += PACK / index(sizeof(S))) {
        __builtin_prefetch(later + i, 0, FIRST);
        static_cast<void>(*reinterpret_cast<const volatile char*>(x + i));
    }
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
