// Where to put what is read beside the results, element by element: where it lies in their cache lines as they do, no read
// of it touches two.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plan/scratch.hpp"

namespace onepass {

constexpr std::uintptr_t PAGE = 4096;   // bytes

// For n elements, a place that many quarters of a page behind `y`: a load that lies just before a pending store within its
// page waits for it.
template <class T>
class Beside {
  public:
    Beside(const void* y, std::ptrdiff_t n) : y_(reinterpret_cast<std::uintptr_t>(y)), n_(static_cast<std::size_t>(n)) {}

    // Of scratch memory for one place, from `start` on.
    std::size_t bytes() const { return (n_ * sizeof(T) / Scratch::LINE + 1) * Scratch::LINE + PAGE; }
    T* place(char* start, std::uintptr_t quarters) const {
        const std::uintptr_t wanted = y_ + quarters * PAGE / 4;
        return reinterpret_cast<T*>(start +
                                    (wanted - reinterpret_cast<std::uintptr_t>(start)) % PAGE / sizeof(T) * sizeof(T));
    }
    bool fits(const void* p) const { return (reinterpret_cast<std::uintptr_t>(p) - y_) % Scratch::LINE == 0; }

  private:
    std::uintptr_t y_;
    std::size_t n_;
};

// The same, cut off a block. (Of rows that are pages apart, too: they fill one set of the first-level cache, and what is
// read and written beside them must lie in another.)
template <class T>
T* cut_apart(Cutter& cutter, const void* y, std::ptrdiff_t n, std::uintptr_t quarters) {
    const Beside<T> beside(y, n);
    char* start = cutter.cut<char>(static_cast<std::ptrdiff_t>(beside.bytes()));
    return start ? beside.place(start, quarters) : nullptr;
}

// And for results of another type: elements lie on cache lines where the results' do, so that one cut into lines fits both,
// `eighth` eighths of a page behind them.
template <class T, class S>
T* cut_beside(Cutter& cutter, const S* y, std::ptrdiff_t n, std::uintptr_t eighth) {
    constexpr auto LINE = std::uintptr_t(Scratch::LINE), HELD = LINE / sizeof(T);
    T* array = cutter.cut<T>(n + std::ptrdiff_t((PAGE + LINE) / sizeof(T)));
    if (!array) return nullptr;
    const auto to = reinterpret_cast<std::uintptr_t>(y);
    const auto off = to / LINE * LINE + eighth * PAGE / 8 - reinterpret_cast<std::uintptr_t>(array);
    return array + off % PAGE / sizeof(T) + to % LINE / sizeof(S) % HELD;
}

}   // namespace onepass
