// Sums of columns that are taken row by row, as the rows lie in memory.
//
//   chunk = x[0] + x[1] + ... + x[CHUNK - 1],  all = all + chunk,   an element a column
//
// Rows that are read side by side (ahead.hpp) are streams that end with each page; one row behind the other is a single
// one, and memory likes that best. But what registers hold there stands in arrays here, and for each vector that is read
// some are stored: memory leaves time for that, a cache does not.
//
// Invariant: the order of additions is that of chunks in registers (in_order, sums.hpp).
#pragma once

#include "kernels/ahead.hpp"
#include "kernels/sums.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

enum class Place { first, inside, last };   // of a row in its chunk

// Whether rows that come from memory are read like this: on a roomy machine; if vectors are wide enough and nothing is
// converted, or computing takes longer; and if rows lie end to end, in the same place within cache lines.
template <class S>
ONEPASS_INLINE bool reads_by_rows(index cols, index stride) {
    return NATIVE > 16 && sizeof(S) == sizeof(Arith<S>) && roomy_first_cache && stride == cols &&
           stride * index(sizeof(S)) % PACK == 0;
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

// Room for N arrays of a tile's sums, which lie in a page where x does: no load of x is shortly behind a store to them.
template <class T, int N>
class Room {
  public:
    ONEPASS_INLINE T* abreast(const void* x, int number) {
        const auto from = reinterpret_cast<std::uintptr_t>(arrays_[number]), to = reinterpret_cast<std::uintptr_t>(x);
        return arrays_[number] + (to - from) % PAGE / sizeof(T);
    }

  private:
    static constexpr index PAGE = 4096;   // bytes
    alignas(PACK) T arrays_[N][(COLUMN_TILE + PAGE) / index(sizeof(T))];
};

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
