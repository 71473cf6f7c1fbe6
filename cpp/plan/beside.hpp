// Where to put what is read beside the results, element by element: where it lies in their cache lines as they do, no read
// of it touches two.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plan/scratch.hpp"

namespace onepass {

constexpr std::uintptr_t PAGE = 4096;   // bytes

// Where the line begins that y lies on.
template <class S>
const S* line_of(const S* y) {
    return y - reinterpret_cast<std::uintptr_t>(y) % Scratch::LINE / sizeof(S);
}

// For n elements, a place that many eighths of a page behind the lines of `y`: a load that lies just before a pending store
// within its page waits for it. Elements lie on lines of their own where those of y do, be y of another type.
template <class T>
class Beside {
  public:
    template <class S>
    Beside(const S* y, std::ptrdiff_t n) : n_(static_cast<std::size_t>(n)) {
        const auto at = reinterpret_cast<std::uintptr_t>(y), past = at % Scratch::LINE;
        y_ = at - past + past / sizeof(S) * sizeof(T) % Scratch::LINE;
    }

    // Of scratch memory for one place, from `start` on.
    std::size_t bytes() const { return (n_ * sizeof(T) / Scratch::LINE + 1) * Scratch::LINE + PAGE; }
    T* place(char* start, std::uintptr_t eighths) const {
        const std::uintptr_t wanted = y_ + eighths * PAGE / 8;
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
template <class T, class S>
T* cut_beside(Cutter& cutter, const S* y, std::ptrdiff_t n, std::uintptr_t eighths) {
    const Beside<T> beside(y, n);
    char* start = cutter.cut<char>(static_cast<std::ptrdiff_t>(beside.bytes()));
    return start ? beside.place(start, eighths) : nullptr;
}

}   // namespace onepass
