// All of an array whose elements lie apart, brought side by side.
#pragma once

#include <algorithm>

#include "plan/groups.hpp"
#include "plan/panel.hpp"
#include "plan/threads.hpp"

namespace onepass {

template <class S>
class Whole {
    // What is read twice, in one problem, is brought all at once (and short pieces of rows, which are columns, whatever
    // for). But rows that lie beside each other are quicker turned twice, some at a time, than all of them, unless these
    // stay in a near cache.
    static constexpr index MOST = 6 << 20;   // bytes

  public:
    explicit Whole(const Groups<S>& given)
        : given_(given),
          short_(!given.by_rows && given.span > 1 && given.x_group != given.span * given.x_element),
          nested_(given.by_rows || short_),
          outer_(nested_ ? given.rows : given.problems),
          rows_(nested_ ? given.groups : given.rows),
          cols_(nested_ ? given.span : given.groups * given.span),
          along_(nested_ ? given.x_group : given.x_row),
          stride_(short_ || brought_end_to_end<S>(cols_) ? cols_ : apart<S>(cols_)),
          wanted_(given.x_element != 1 && (!given.by_rows || given.problems == 1) &&
                  (short_ || (given.y && given.y_element == 1 && !given.given_mean &&
                              (along_ != 1 || outer_ * rows_ * stride_ * index(sizeof(S)) <= MOST)))) {}

    // The same problem, of what is brought where it is to be: x is known once there is memory.
    Groups<S> brought() const {
        Groups<S> p = given_;
        if (!wanted_) return p;
        p.x_element = 1;
        p.x_group = p.by_rows ? stride_ : p.span;
        p.x_row = nested_ ? rows_ * stride_ : stride_;
        p.x_problem = rows_ * stride_;
        return p;
    }
    // Where x is.
    const S* cut(Cutter& cutter) {
        if (!wanted_) return given_.x;
        return x_ = cutter.cut<S>(outer_ * rows_ * stride_);
    }
    // By all members, before any reads it.
    void bring(const Team& team) const {
        if (!wanted_) return;
        constexpr index HIGH = 64;
        const index tasks = ceil_div(rows_, HIGH);
        team.each(outer_ * tasks, [&](index task) {
            const index outer = task / tasks, row = task % tasks * HIGH;
            const S* from = given_.x + outer * (nested_ ? given_.x_row : given_.x_problem) + row * along_;
            onepass::bring(from, along_, given_.x_element, x_ + (outer * rows_ + row) * stride_, stride_,
                           std::min(HIGH, rows_ - row), cols_);
        });
        team.barrier();
    }

  private:
    const Groups<S>& given_;
    const bool short_, nested_;   // short rows of one, which must lie end to end; rows within rows
    const index outer_, rows_, cols_, along_, stride_;
    const bool wanted_;
    S* x_ = nullptr;
};

}   // namespace onepass
