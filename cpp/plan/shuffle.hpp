// A schedule that nobody would choose, for tests (ONEPASS_SHUFFLE): the members of a team take each other's places, the
// tasks of a share come in any order, and everybody dawdles. Results that depend on who did what, or when, come out
// different.
#pragma once

#if defined(ONEPASS_SHUFFLE)

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <thread>

namespace onepass::shuffle {

using index = std::ptrdiff_t;

// Xorshift (Marsaglia 2003); no two threads and no two runs have the same.
inline index random(index below) {
    static thread_local std::uint64_t state =
        std::hash<std::thread::id>{}(std::this_thread::get_id()) |
        std::uint64_t(std::chrono::steady_clock::now().time_since_epoch().count()) << 20 | 1;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return index(state % std::uint64_t(below));
}

inline void dawdle() {
    if (random(4) == 0) std::this_thread::sleep_for(std::chrono::microseconds(random(50)));
}

// A permutation of 0 .. n-1.
class Order {
  public:
    explicit Order(index n) : n_(n), start_(n > 0 ? random(n) : 0) {
        do step_ = n > 1 ? 1 + random(n - 1) : 1;
        while (std::gcd(step_, n) > 1);
    }
    index operator()(index i) const { return (start_ + i * step_) % n_; }

  private:
    index n_, start_, step_ = 1;
};

template <class F>
void each(index from, index to, const F& f) {
    const Order order(to - from);
    for (index i = 0; i < to - from; ++i) {
        dawdle();
        f(from + order(i));
    }
}

}   // namespace onepass::shuffle

#endif
