// Rows that no kernel can read or write as they lie, brought side by side, some at a time: no array is moved as a whole,
// and what is read next lies in a near cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "plan/copy.hpp"
#include "plan/scratch.hpp"
#include "plan/threads.hpp"
#include "plan/turn.hpp"

namespace onepass {

constexpr index PANEL = 256 << 10;   // bytes that a thread brings at a time, if there is a choice

// How far apart rows are brought, if they need not lie end to end: where a matrix is turned, many are written side by side,
// and should not lie in few sets of the first cache. An odd number of lines.
template <class S>
index apart(index cols) {
    constexpr index LINE = index(Scratch::LINE) / index(sizeof(S));
    return (ceil_div(cols, LINE) | 1) * LINE;
}
// Whether rows that may be either are brought end to end, so that they can be folded: short ones.
template <class S>
bool brought_end_to_end(index cols) {
    return cols * index(sizeof(S)) < 512;
}

// Rows that belong together, so many of them that what lies beside each other fills cache lines.
template <class S>
index lines_of(index together) {
    return ceil_div(index(Scratch::LINE) / index(sizeof(S)), together) * together;
}

// `rows` rows of `cols` elements brought side by side, `stride` elements apart. There they lie `along` elements apart, and
// the elements of each `across`.
template <class S>
void bring(const S* from, index along, index across, S* to, index stride, index rows, index cols) {
    constexpr index SIZE = index(sizeof(S));
    if (along == 1 && across != 1) return turn<true>(Matrix<const S>{from, across}, Matrix<S>{to, stride}, cols, rows);
    if (across == 1 && along == stride && cols == stride) cols *= std::exchange(rows, 1);
    for (index i = 0; i < rows; ++i, from += along, to += stride)
        copy_row<S>(reinterpret_cast<const char*>(from), across * SIZE, reinterpret_cast<char*>(to), SIZE, cols);
}

// Bytes for rows that are brought whole. (Of wide ones, for as many as memory has side by side in a few lines.)
template <class S>
index room_for(index cols) {
    constexpr index FEW = 64;   // rows
    return (FEW * cols * index(sizeof(S)) > 2 * PANEL ? 4 : 2) * PANEL;
}

// Rows of one thread.
template <class S>
class Panel {
    static constexpr index SIZE = index(sizeof(S)), LINE = index(Scratch::LINE) / SIZE;

  public:
    // Of `arrays` arrays so many rows, end to end or not, or if those are more than `bytes` hold, even parts of them: but
    // whole lines of what is turned, and `together` what belongs together.
    Panel(index cols, index rows, bool end_to_end, int arrays, index bytes, index together = 1)
        : arrays_(arrays), cols_(cols), stride_(end_to_end ? cols : apart<S>(cols)) {
        rows_ = even_part(rows, bytes / (arrays * stride_ * SIZE), lines_of<S>(together));
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
    index cols() const { return cols_; }
    index stride() const { return stride_; }
    S* row(int array, index row) const { return x_ + (array * rows_ + row) * stride_; }

    // From row `at` of the panel on.
    void fill(int array, index at, const S* from, index along, index across, index rows, index cols) const {
        bring(from, along, across, row(array, at), stride_, rows, cols);
    }
    // And back.
    void empty(int array, index at, S* to, index along, index across, index rows, index cols) const {
        if (along == 1 && across != 1)
            return turn<false>(Matrix<S>{to, across}, Matrix<S>{row(array, at), stride_}, cols, rows);
        for (index i = 0; i < rows; ++i, to += along)
            copy_row<S>(reinterpret_cast<const char*>(row(array, at + i)), SIZE, reinterpret_cast<char*>(to), across * SIZE,
                        cols);
    }

  private:
    int arrays_;
    index cols_, stride_, rows_;
    S* x_ = nullptr;
};

// Rows of an array as kernels read them: as they lie, or if their elements lie apart, in the panel of each member of a
// team.
template <class S>
class Brought {
  public:
    // The elements lie `across` apart.
    Brought(index across, const Panel<S>& panel, int members) : panel_(panel), across_(across), members_(members) {}
    void cut(Cutter& cutter) {
        if (*this) room_ = cutter.cut<char>(std::ptrdiff_t(panel_.bytes()) * members_);
    }
    explicit operator bool() const { return across_ != 1; }

    // How many at a time.
    index rows() const { return *this ? panel_.rows() : PTRDIFF_MAX; }
    index cols() const { return *this ? panel_.cols() : PTRDIFF_MAX; }
    // Rows that lie `along` elements apart; until the member's next call.
    Matrix<const S> operator()(const Team& team, const S* x, index along, index rows, index cols) const {
        if (!*this) return {x, along};
        const Panel<S> own = panel_.at(room_ + std::ptrdiff_t(panel_.bytes()) * team.id);
        own.fill(0, 0, x, along, across_, rows, cols);
        return {own.row(0, 0), own.stride()};
    }

  private:
    Panel<S> panel_;
    index across_;
    int members_;
    char* room_ = nullptr;
};

}   // namespace onepass
