// Rows that no kernel can read or write as they lie, brought side by side, some at a time: no array is moved as a whole,
// and what is read next lies in a near cache.
#pragma once

#include <algorithm>
#include <utility>

#include "plan/copy.hpp"
#include "plan/scratch.hpp"
#include "plan/turn.hpp"

namespace onepass {

// Those of one thread. (Where a matrix is turned, many are written side by side, and should not lie in few sets of the
// first cache: an odd number of lines apart.)
template <class S>
class Panel {
    static constexpr index SIZE = index(sizeof(S)), LINE = index(Scratch::LINE) / SIZE;

  public:
    // Of `arrays` arrays so many rows, end to end or not, or if those are more than `bytes` hold, even parts of them: but
    // whole lines of what is turned.
    Panel(index cols, index rows, bool end_to_end, int arrays, index bytes)
        : arrays_(arrays), stride_(end_to_end ? cols : (ceil_div(cols, LINE) | 1) * LINE) {
        const index held = std::max(bytes / (arrays * stride_ * SIZE) / LINE * LINE, LINE);
        rows_ = std::min(rows, ceil_div(ceil_div(rows, ceil_div(rows, held)), LINE) * LINE);
    }
    std::size_t bytes() const {
        return std::size_t(ceil_div(arrays_ * rows_ * stride_ * SIZE, index(Scratch::LINE))) * Scratch::LINE;
    }
    // The same with memory of its own.
    Panel at(char* scratch) const {
        Panel panel = *this;
        panel.x_ = reinterpret_cast<S*>(scratch);
        return panel;
    }

    index rows() const { return rows_; }
    index stride() const { return stride_; }
    S* row(int array, index row) const { return x_ + (array * rows_ + row) * stride_; }

    // `rows` rows of `cols` elements, from row `at` of the panel on. In the other array rows lie `along` elements apart,
    // and the elements of each `across`.
    void fill(int array, index at, const S* from, index along, index across, index rows, index cols) const {
        S* to = row(array, at);
        if (along == 1 && across != 1)
            return turn_squares<true>(Matrix<const S>{from, across}, Matrix<S>{to, stride_}, cols, rows);
        if (across == 1 && along == stride_ && cols == stride_) cols *= std::exchange(rows, 1);
        for (index i = 0; i < rows; ++i, from += along, to += stride_)
            copy_row<S>(reinterpret_cast<const char*>(from), across * SIZE, reinterpret_cast<char*>(to), SIZE, cols);
    }
    // And back, into rows of which each element lies beside the next row's.
    void empty(int array, S* to, index across, index rows, index cols) const {
        turn_squares<false>(Matrix<S>{to, across}, Matrix<S>{row(array, 0), stride_}, cols, rows);
    }

  private:
    int arrays_;
    index stride_, rows_;
    S* x_ = nullptr;
};

}   // namespace onepass
