// What is sent for before it is read, where it comes from memory.
//
// Rows that are read side by side: a sweep over columns reads some rows at a time, a vector of each. The processor's own
// prefetcher follows so many streams badly, and loses each of them where its page ends. So the rows of the next chunk are
// sent for while this one is read, and in the order in which they lie in memory, which memory likes best.
//
// Rows that are read several times each: memory would work the first time alone. So each time sends for its share of a
// later row, and memory works all the time; or for all of it, in different distances, where one reading is quicker than
// memory: what is sent for while all places for what is underway are taken is lost.
//
// The way from memory is straight into the first cache, if that is roomy. Else it is in two steps: early into the second
// cache, for only few lines can be underway to the first, where parameters and results need room as well; and from there
// into the first shortly before it is read.
//
// Rows of which a piece at a time is written: the processor's own prefetcher fetches what lies between the pieces. So the
// next piece is sent for while one is written, and, but where results are streamed, the place that it will be written to.
#pragma once

#include "kernels/kernels.hpp"
#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int FIRST = 3, SECOND = 2;   // the caches, as __builtin_prefetch has them
constexpr int ROOMY = 0;               // the first one if it is roomy, else the second

// What is done STRAIGHT where the first cache is roomy, and else in two STEPS, by instructions with their operands. (No
// branch that a compiler sees: it would make two loops of one, or take all addresses before the branch, into registers that
// there are not; that was slower by a third.)
#if defined(__x86_64__)
#define ONEPASS_BY_WAY(STRAIGHT, STEPS, ...)                                             \
    __asm__ volatile("cmpb $0, %0\n\tje 1f\n\t" STRAIGHT "\n\tjmp 2f\n1:\t" STEPS "\n2:" \
                     :                                                                   \
                     : "qm"(roomy_first_cache), __VA_ARGS__                              \
                     : "cc")
#endif

// The way from memory, or its first step; and the second one, where there is one.
ONEPASS_INLINE void send_first(const void* line) {
#if defined(__x86_64__)
    ONEPASS_BY_WAY("prefetcht0 %1", "prefetcht1 %1", "m"(*static_cast<const char*>(line)));
#else
    roomy_first_cache ? __builtin_prefetch(line, 0, FIRST) : __builtin_prefetch(line, 0, SECOND);
#endif
}
// The same; straight, a line that comes SENT_SOON as well, so that each is sent for twice. In two steps the line behind it
// is, if it is to be sent for AGAIN.
template <bool AGAIN>
ONEPASS_INLINE void send_twice(const void* line) {
    const char *first = static_cast<const char*>(line), *soon = first + SENT_SOON;
#if defined(__x86_64__)
    if constexpr (AGAIN)
        ONEPASS_BY_WAY("prefetcht0 %1\n\tprefetcht0 %2", "prefetcht1 %1\n\tprefetcht1 %3", "m"(*first), "m"(*soon),
                       "m"(first[PACK]));
    else
        ONEPASS_BY_WAY("prefetcht0 %1\n\tprefetcht0 %2", "prefetcht1 %1", "m"(*first), "m"(*soon));
#else
    send_first(first);
    if (roomy_first_cache) __builtin_prefetch(soon, 0, FIRST);
#endif
}
// The way from memory of a line that comes later, or else its first step, once or AGAIN for the line behind it, and the
// second one of a line that comes SOON.
template <bool AGAIN = false>
ONEPASS_INLINE void send_both(const void* later, const void* soon) {
#if defined(__x86_64__)
    const char *first = static_cast<const char*>(later), *second = static_cast<const char*>(soon);
    if constexpr (AGAIN)
        ONEPASS_BY_WAY("prefetcht0 %1", "prefetcht1 %1\n\tprefetcht1 %3\n\tprefetcht0 %2", "m"(*first), "m"(*second),
                       "m"(first[PACK]));
    else
        ONEPASS_BY_WAY("prefetcht0 %1", "prefetcht1 %1\n\tprefetcht0 %2", "m"(*first), "m"(*second));
#else
    send_first(later);
    if (!roomy_first_cache) __builtin_prefetch(soon, 0, FIRST);
#endif
}
// Four lines, one behind the other: a branch for each would take as long as the rest.
ONEPASS_INLINE void send_four(const void* first) {
#if defined(__x86_64__)
    ONEPASS_BY_WAY("prefetcht0 (%1)\n\tprefetcht0 64(%1)\n\tprefetcht0 128(%1)\n\tprefetcht0 192(%1)",
                   "prefetcht1 (%1)\n\tprefetcht1 64(%1)\n\tprefetcht1 128(%1)\n\tprefetcht1 192(%1)", "r"(first));
#else
    for (int i = 0; i < 4; ++i) send_first(static_cast<const char*>(first) + i * PACK);
#endif
}

#undef ONEPASS_BY_WAY

// STEP elements at a time, which must not be more than a row has.
template <class S, index STEP>
class Ahead {
    static constexpr index LINE = PACK / index(sizeof(S));   // elements

  public:
    ONEPASS_INLINE Ahead(const S* next, index stride, index cols) : row_(next), stride_(stride), cols_(cols) {}
    // As many lines as one step over the columns reads.
    template <int CACHE = ROOMY>
    ONEPASS_INLINE void step() {
        constexpr index AT_ONCE = CACHE == ROOMY && STEP % (4 * LINE) == 0 ? 4 : 1;
#pragma GCC unroll 8
        for (index i = 0; i < STEP; i += AT_ONCE * LINE) {
            if constexpr (CACHE != ROOMY)
                __builtin_prefetch(row_ + at_ + i, 0, CACHE);
            else
                AT_ONCE == 4 ? send_four(row_ + at_ + i) : send_first(row_ + at_ + i);
        }
        at_ += STEP;
        if (at_ < cols_) return;
        at_ = 0;
        row_ += stride_;
    }

  private:
    const S* row_;
    index stride_, cols_, at_ = 0;
};

// The second half of the way of rows that are read side by side: each sends for itself, four lines ahead. (Not narrow
// vectors nor 16 bits, which have several vectors to a line: it takes longer than it spares.)
template <class S>
ONEPASS_INLINE void send_soon(const S* row) {
    if constexpr (NATIVE > 16 && sizeof(S) == sizeof(Arith<S>)) __builtin_prefetch(row + 4 * LANES<S>, 0, FIRST);
}

// What lies that far behind is sent for, in whatever row it may be.
template <class S>
constexpr index BEHIND = SENT_FAR / index(sizeof(S));
template <class S>
constexpr index CLOSE_BEHIND = SENT_NEAR / index(sizeof(S));
template <class S>
constexpr index SOON = SENT_SOON / index(sizeof(S));
// The same where rows may lie apart: in one of the next, unless they are WIDE, so that what lies between is not sent for.
// (Beside parameters the less. And there one more place takes the narrowest vectors as long as it spares.)
constexpr index WIDE_ROW = 8 << 10, WIDE_COLUMNS = NATIVE > 16 ? 4 << 10 : 0;   // bytes
template <class S, index WIDE>
ONEPASS_INLINE index soon(index cols, index stride) {
    if constexpr (WIDE == 0) return SOON<S>;
    if (stride == cols || cols * index(sizeof(S)) > WIDE) return SOON<S>;
    return (SOON<S> + cols - 1) / cols * stride;
}

// Whether rows are so wide that, read again and beside what is read and written with them, they fill a small first cache:
// little of it is left then for the second half of their way, so that is had for all of it, SOON.
template <class S>
ONEPASS_INLINE bool sent_soon(index cols) {
    return !roomy_first_cache && cols * index(sizeof(S)) >= 10 << 10;
}

// How far BEHIND is in rows of columns, or a little more where they may lie apart (pieces of rows do): what lies between
// them is not sent for. (Straight, no multiple of a page away: rows of pages lie in few sets of the first cache.)
template <class S>
ONEPASS_INLINE index behind(index cols, index stride) {
    const index later = index(roomy_first_cache ? 6144 : 8192) / index(sizeof(S));
    return stride == cols ? later : (later + cols - 1) / cols * stride;
}

// The lines of n elements, all of the way from memory.
template <class S>
ONEPASS_INLINE void send(const S* later, const S* soon, index n) {
#pragma GCC unroll 8
    for (index i = 0; i < n; i += PACK / index(sizeof(S))) send_both(later + i, soon + i);
}

// The way of what is sent for: straight into the first cache where it comes from a cache, or nothing else needs room there;
// else half of the way from memory, or both halves, the second of what is read soon. `twice`: half of it; where the whole
// way is straight, each line once more a little later, unless it has several vectors, which all send.
enum class Way { straight, half, twice, both };

// What one of TIMES readings of rows sends for: its share of a later row in each of ARRAYS arrays (two at most), evenly
// over the elements that it reads. (Vector by vector: all lines of a chunk or a burst together were slower.) AGAIN: in two
// steps each line twice, too; not for what takes longer to compute than to bring.
template <class S, int TIMES, int ARRAYS, Way WAY, bool AGAIN = false>
struct Shares {
    static constexpr index LINE = PACK / index(sizeof(S)) * TIMES;   // elements that are read while a line is sent for
    static constexpr bool WHOLE_LINES = WIDTH<Arith<S>> * index(sizeof(S)) == PACK;   // (others send several times)
    const S* later[2];
    index first = 0;   // of the elements of the share
    const S* soon[2] = {};

    ONEPASS_INLINE void at(index i) const {
        const index share = first + index(std::size_t(i) / TIMES);
#pragma GCC unroll 2
        for (int k = 0; k < ARRAYS; ++k) {
            if (WAY == Way::straight)
                __builtin_prefetch(later[k] + share, 0, FIRST);
            else if (WAY == Way::both)
                send_both<AGAIN && WHOLE_LINES>(later[k] + share, soon[k] + i);
            else if (WAY == Way::twice && WHOLE_LINES)
                send_twice<AGAIN>(later[k] + share);
            else
                send_first(later[k] + share);
        }
    }
};

// A source of a row's elements whose readings send for shares of what comes later.
template <class Source, class Shares>
struct Sending {
    Source source;
    Shares shares;
    template <class Lanes>
    ONEPASS_INLINE auto at(index i, Lanes lanes) const {
        shares.at(i);
        return source.at(i, lanes);
    }
    ONEPASS_INLINE auto one(index i) const { return source.one(i); }
};
// (A chunk's lines are known when it is compiled: each is sent for once.)
template <class Source, class Shares>
ONEPASS_INLINE auto of_chunk(const Sending<Source, Shares>& x, index i, index offset) {
    if (offset % Shares::LINE == 0) x.shares.at(i);
    return x.source.at(i, All{});
}

// The source that sends, or where nothing is SENT, the source itself.
template <bool SENT, class Source, class Shares>
ONEPASS_INLINE auto sending(const Source& source, const Shares& shares) {
    if constexpr (SENT)
        return Sending<Source, Shares>{source, shares};
    else
        return source;
}

// The source itself: for what happens too seldom to send, and to be compiled for each kind of source.
template <class Source>
ONEPASS_INLINE Source itself(const Source& source) {
    return source;
}
template <class Source, class Shares>
ONEPASS_INLINE Source itself(const Sending<Source, Shares>& of) {
    return of.source;
}

}   // namespace
}   // namespace onepass::ONEPASS_ISA
