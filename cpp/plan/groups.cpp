#include "plan/groups.hpp"

#include <memory>
#include <vector>

#include "plan/group_solver.hpp"

namespace onepass {

template <class S>
Groups<S> groups_of(const View& view, const S* x, S* y) {
    Groups<S> p;
    p.x = x;
    p.y = y;
    p.x_element = view.stride[0][2];
    p.y_element = y ? view.stride[1][2] : 1;
    if (view.kind == Kind::columns) {
        p.problems = view.size[0];
        p.x_problem = view.stride[0][0];
        p.y_problem = view.stride[1][0];
        p.rows = view.size[1];
        p.groups = view.size[2];
        p.x_row = view.stride[0][1];
        p.y_row = view.stride[1][1];
        p.x_group = p.y_group = 1;
        return p;
    }
    p.rows = view.size[0];
    p.groups = view.size[1];
    p.span = view.size[2];
    p.x_row = view.stride[0][0];
    p.y_row = view.stride[1][0];
    p.x_group = view.stride[0][1];
    p.y_group = view.stride[1][1];
    p.by_rows = view.kind == Kind::rows || p.span >= LONG_SPAN;
    return p;
}

namespace {

// What is read twice is brought whole, where it stays in a near cache until then.
constexpr index WHOLE = 2 << 20;   // bytes

template <class S>
class Whole {
  public:
    explicit Whole(const Groups<S>& given)
        : given_(given),
          outer_(given.by_rows ? given.rows : given.problems),
          rows_(given.by_rows ? given.groups : given.rows),
          cols_(given.by_rows ? given.span : given.groups * given.span),
          stride_(brought_end_to_end<S>(cols_) ? cols_ : apart<S>(cols_)) {}

    bool wanted() const {
        return given_.x_element != 1 && given_.y && given_.y_element == 1 && !given_.given_mean &&
               elements() * index(sizeof(S)) <= WHOLE;
    }
    // The same problem, of what is brought to x.
    Groups<S> brought(const S* x) const {
        Groups<S> p = given_;
        p.x = x;
        p.x_element = 1;
        p.x_group = p.by_rows ? stride_ : p.span;
        p.x_row = p.by_rows ? rows_ * stride_ : stride_;
        p.x_problem = rows_ * stride_;
        return p;
    }
    index elements() const { return outer_ * rows_ * stride_; }
    // A barrier must follow.
    void bring_to(S* x, const Team& team) const {
        constexpr index HIGH = 64;
        const index tasks = ceil_div(rows_, HIGH), along = given_.by_rows ? given_.x_group : given_.x_row;
        team.each(outer_ * tasks, [&](index task) {
            const index outer = task / tasks, row = task % tasks * HIGH;
            const S* from = given_.x + outer * (given_.by_rows ? given_.x_row : given_.x_problem) + row * along;
            bring(from, along, given_.x_element, x + (outer * rows_ + row) * stride_, stride_, std::min(HIGH, rows_ - row),
                  cols_);
        });
    }

  private:
    const Groups<S>& given_;
    const index outer_, rows_, cols_, stride_;
};

}   // namespace

template <class S>
void solve(const Groups<S>& given) {
    const Whole<S> whole_x(given);
    const bool brings = whole_x.wanted();
    Groups<S> p = brings ? whole_x.brought(nullptr) : given;
    S* x = nullptr;
    const Kernels<S>& k = kernels<S>();
    const index each = p.rows * p.groups * p.span * index(sizeof(S)) * (p.y ? 2 : 1), bytes = each * p.problems;
    const int threads = threads_for(bytes, !p.given_mean && p.problems == 1);
    const bool stream = p.y && streams(given.x, p.y, bytes, threads);
    // Many problems: each thread solves whole ones. Few: all threads solve each together.
    const bool whole = p.problems >= threads;
    const int teams = whole ? threads : 1;
    std::vector<std::unique_ptr<Solver<S>>> solvers;
    for (int i = 0; i < teams; ++i) solvers.push_back(std::make_unique<Solver<S>>(p, k, stream, whole ? 1 : threads));
    Cutter counter(nullptr);
    if (brings) counter.cut<S>(whole_x.elements());
    for (auto& solver : solvers) solver->cut(counter);
    const Scratch scratch(counter.used());
    Cutter cutter(scratch.data());
    if (brings) p.x = x = cutter.cut<S>(whole_x.elements());
    for (auto& solver : solvers) solver->cut(cutter);
    run_team(threads, [&](const Team& team) {
        if (brings) {
            whole_x.bring_to(x, team);
            team.barrier();
        }
        if (whole)
            team.each(p.problems, [&](index number) { solvers[static_cast<std::size_t>(team.id)]->run(Team{}, number); });
        else
            for (index number = 0; number < p.problems; ++number) solvers[0]->run(team, number);
    });
}

#define ONEPASS_INSTANTIATE(S)                               \
    template Groups<S> groups_of(const View&, const S*, S*); \
    template void solve(const Groups<S>&);
ONEPASS_INSTANTIATE(float)
ONEPASS_INSTANTIATE(double)
ONEPASS_INSTANTIATE(Float16)
ONEPASS_INSTANTIATE(BFloat16)
#undef ONEPASS_INSTANTIATE

}   // namespace onepass
