// Where to put what is read beside the results, element by element: where it lies in their cache lines as they do, no read
// of it touches two.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plan/scratch.hpp"

namespace onepass {

// For n elements, a place that many quarters of a page behind `y`: a load that lies just before a pending store within its
// page waits for it.
template <class T>
class Beside {
    static constexpr std::uintptr_t PAGE = 4096;   // bytes

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

}   // namespace onepass
