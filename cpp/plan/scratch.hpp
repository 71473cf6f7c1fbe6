// Scratch memory for one call: one block, cut up by a bump pointer, which the thread keeps for its next call.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "plan/kept.hpp"
#include "plan/view.hpp"

namespace onepass {

class Scratch {
  public:
    static constexpr std::size_t LINE = 64;        // bytes: pieces start on cache lines, so that threads share none
    static constexpr std::size_t KEPT = 8 << 20;   // bytes that a thread may keep between calls

    explicit Scratch(std::size_t bytes) : block_(std::move(kept())) {
        if (block_.bytes >= bytes) return;
        block_.base.reset();
        block_.bytes = bytes;
        block_.base.reset(static_cast<char*>(take_memory(bytes)));
        if (!block_.base) throw std::bad_alloc();
    }
    ~Scratch() {
        if (block_.bytes <= KEPT) kept() = std::move(block_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    char* data() const { return block_.base.get(); }

  private:
    struct Give {
        void operator()(char* p) const { give_memory(p); }
    };
    struct Block {
        std::unique_ptr<char, Give> base;
        std::size_t bytes = 0;
        Block() = default;
        Block(Block&& other) noexcept : base(std::move(other.base)), bytes(std::exchange(other.bytes, 0)) {}
        Block& operator=(Block&& other) noexcept {
            base = std::move(other.base);
            bytes = std::exchange(other.bytes, 0);
            return *this;
        }
    };
    static Block& kept() {
        static thread_local Block block;
        return block;
    }

    Block block_;
};

// Cuts arrays off a block; with a null base it only counts what the block must hold.
class Cutter {
  public:
    explicit Cutter(char* base) : base_(base) {}
    template <class T>
    T* cut(std::ptrdiff_t n) {
        T* p = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (static_cast<std::size_t>(n) * sizeof(T) + Scratch::LINE - 1) / Scratch::LINE * Scratch::LINE;
        return p;
    }
    std::size_t used() const { return used_; }

  private:
    char* base_;
    std::size_t used_ = 0;
};

// Moments of n groups, cut off a block.
struct Moments3 {
    double *mean = nullptr, *low = nullptr, *m2 = nullptr;
    void cut(Cutter& cutter, index n) {
        mean = cutter.cut<double>(n);
        low = cutter.cut<double>(n);
        m2 = cutter.cut<double>(n);
    }
};

}   // namespace onepass
