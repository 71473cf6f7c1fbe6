// Memory for results, kept when it is given back, for those that come next.
//
// A fresh page costs more than what is written to it: the system clears it, and the processor stops for it. What is large
// is kept for as long as the system has no other use for it (MADV_FREE), which costs next to nothing where pages are huge.
#pragma once

#include <cstddef>

namespace onepass {

// From so many bytes on; of fewer, the allocator keeps enough itself.
constexpr std::size_t LEAST_KEPT = 64 << 10;

// Whether anything is: not where ONEPASS_KEEP is 0.
bool keeps_memory();

// So many bytes, on a cache line; null where there are none.
void* take_memory(std::size_t bytes) noexcept;
void give_memory(void* memory) noexcept;
// Bytes that have room there.
std::size_t room_of(void* memory) noexcept;

}   // namespace onepass
