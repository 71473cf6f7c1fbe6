// x and dy of cells, where kernels cannot read them as they lie, brought side by side.
#pragma once

#include <algorithm>

#include "plan/cells.hpp"
#include "plan/cut.hpp"
#include "plan/panel.hpp"
#include "plan/scratch.hpp"
#include "plan/threads.hpp"

namespace onepass {

template <class S>
class BroughtCells {
  public:
    explicit BroughtCells(const Cells<S>& given)
        : given_(given),
          rows_(given.channels_last ? given.span : given.channels),
          cols_(given.channels_last ? given.channels : given.span),
          folded_(given.channels_last && folds_for(rows_, cols_) > 1),
          stride_(given.weighing || folded_ || brought_end_to_end<S>(cols_) ? cols_ : apart<S>(cols_)) {}

    // How many of the two are brought.
    int arrays() const { return int(brings(given_.x, given_.x_lies)) + int(brings(given_.dy, given_.dy_lies)); }

    // How both lie then; where, is known when there is memory.
    void cut(Cutter& cutter, Cells<S>& p) const {
        const auto one = [&](const S*& array, Lie& lies, const S* given, const Lie& given_lies) {
            if (!brings(given, given_lies)) return;
            lies = {rows_ * stride_, stride_, 1};
            if (const S* room = cutter.cut<S>(given_.samples * lies.sample)) array = room;
        };
        one(p.x, p.x_lies, given_.x, given_.x_lies);
        one(p.dy, p.dy_lies, given_.dy, given_.dy_lies);
    }

    // By all members, before any reads it.
    void bring(const Team& team, const Cells<S>& p) const {
        if (arrays() == 0) return;
        constexpr index HIGH = 64, WIDE = 1024;
        const index tiles = ceil_div(cols_, WIDE), of_sample = ceil_div(rows_, HIGH) * tiles;
        const auto one = [&](const S* given, const Lie& from, const S* array, const Lie& to) {
            if (!brings(given, from)) return;
            team.each(given_.samples * of_sample, [&](index task) {
                const index sample = task / of_sample, row = task % of_sample / tiles * HIGH, col = task % tiles * WIDE;
                onepass::bring(given + sample * from.sample + row * from.row + col * from.element, from.row, from.element,
                               const_cast<S*>(array) + sample * to.sample + row * to.row + col, to.row,
                               std::min(HIGH, rows_ - row), std::min(WIDE, cols_ - col));
            });
        };
        one(given_.x, given_.x_lies, p.x, p.x_lies);
        one(given_.dy, given_.dy_lies, p.dy, p.dy_lies);
        team.barrier();
    }

  private:
    // Kernels want elements side by side; and what is weighed or has folds, dense.
    bool brings(const S* array, const Lie& lies) const {
        const bool dense = lies.row == cols_ && lies.sample == rows_ * cols_;
        return array && (lies.element != 1 || ((given_.weighing || folded_) && !dense));
    }

    const Cells<S>& given_;
    const index rows_, cols_;
    const bool folded_;
    const index stride_;
};

}   // namespace onepass
