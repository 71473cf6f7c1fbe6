// Rows that are read side by side, sent for one behind the other.
//
// A sweep over columns reads some rows at a time, a vector of each. The processor's own prefetcher follows so many streams
// badly, and loses each of them where its page ends. So the rows of the next chunk are sent for while this one is read, and
// in the order in which they lie in memory, which memory likes best.
#pragma once

#include "simd/half.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

template <class S, int ROWS>
class Ahead {
    static constexpr index LINE = PACK / index(sizeof(S)), STEP = ROWS * WIDTH<Arith<S>>;   // elements

  public:
    ONEPASS_INLINE Ahead(const S* next, index stride, index cols) : row_(next), stride_(stride), cols_(cols) {}
    // As many lines as one step over the columns reads.
    ONEPASS_INLINE void step() {
#pragma GCC unroll 8
        for (index i = 0; i < STEP; i += LINE) __builtin_prefetch(row_ + at_ + i, 0, 2);
        at_ += STEP;
        if (at_ < cols_) return;
        at_ = 0;
        row_ += stride_;
    }

  private:
    const S* row_;
    index stride_, cols_, at_ = 0;
};

}   // namespace
}   // namespace onepass::ONEPASS_ISA
