#include "plan/kept.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>

#include <pthread.h>
#include <unistd.h>

// What is large is mapped, and not the allocator's; but that is what AddressSanitizer watches.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define ONEPASS_MAPS 1
#include <sys/mman.h>
#else
#define ONEPASS_MAPS 0
#endif

namespace onepass {
namespace {

constexpr std::size_t LINE = 64, HUGE_PAGE = 2 << 20;   // bytes
constexpr std::size_t SMALL_KEPT = 16 << 20;            // bytes of what is smaller than a huge page, at most
constexpr std::size_t NOT_OFFERED = 64 << 20;           // and of what is not
constexpr int BLOCKS = 64;                              // kept at most

std::size_t page() {
    static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

// Bytes that are kept at most, of what is large.
std::size_t large_kept() {
    static const std::size_t bytes = [] {
        if (const char* given = std::getenv("ONEPASS_KEEP")) return std::size_t(std::strtoull(given, nullptr, 10)) << 20;
        const long pages = sysconf(_SC_PHYS_PAGES);
        return std::min(std::size_t(1) << 30, std::size_t(std::max(pages, 0L)) * page() / 16);
    }();
    return bytes;
}

// It stands on the line before the memory, but while that is kept: what the system has taken back is zero.
struct Block {
    char *start = nullptr, *memory = nullptr;
    std::size_t bytes = 0;   // from the start on
    bool offered = false;    // to the system

    std::size_t room() const { return bytes - std::size_t(memory - start); }
    bool large() const { return ONEPASS_MAPS && bytes >= HUGE_PAGE; }
};
static_assert(sizeof(Block) <= LINE);
Block& block_of(void* memory) { return *reinterpret_cast<Block*>(static_cast<char*>(memory) - LINE); }

// Huge pages as far as they go; the rest are small, so that no more is taken than is written.
char* map_large([[maybe_unused]] std::size_t bytes) {
#if ONEPASS_MAPS
    void* found = mmap(nullptr, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    char* start = static_cast<char*>(found);
    const std::size_t before = (0 - reinterpret_cast<std::uintptr_t>(start)) % HUGE_PAGE;
    if (before != 0) munmap(start, before);
    munmap(start + before + bytes, HUGE_PAGE - before);
    madvise(start + before, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return start + before;
#else
    return nullptr;
#endif
}

void release(const Block& block) {
#if ONEPASS_MAPS
    if (block.large()) {
        munmap(block.start, block.bytes);
        return;
    }
#endif
    std::free(block.start);
}

// The system may take it back from now on. (Where it does not know how, it is kept all the same.)
void offer(Block& block) {
    block.offered = true;
#if ONEPASS_MAPS && defined(MADV_FREE)
    madvise(block.start, block.bytes / HUGE_PAGE * HUGE_PAGE, MADV_FREE);
#endif
}

class Kept {
  public:
    // The last one given back that fits: it is the likeliest to be in a cache still.
    bool take(std::size_t bytes, Block& block) {
        for (int i = count_ - 1; i >= 0; --i)
            if (kept_[i].room() >= bytes && kept_[i].room() <= bytes + bytes / 8) {
                block = remove(i);
                return true;
            }
        return false;
    }
    void give(const Block& block) {
        if (count_ == BLOCKS) release(remove(0));
        kept_[count_++] = block;
        const bool large = block.large();
        bytes_[large] += block.bytes;
        const std::size_t most = large ? large_kept() : std::min(SMALL_KEPT, large_kept());
        while (bytes_[large] > most) release(remove(oldest([=](const Block& b) { return b.large() == large; })));
        // (Not at once: the other processors that run this process have to be told.)
        while (bytes_[true] - offered_ > NOT_OFFERED) {
            Block& next = kept_[oldest([](const Block& b) { return b.large() && !b.offered; })];
            offer(next);
            offered_ += next.bytes;
        }
    }
    // Where in its 4 KiB the next one begins: a load that lies just before a pending store there waits for it, so not near
    // the beginning, where other allocators' large arrays lie, nor near any KiB, where rows of theirs do, nor near the one
    // before.
    std::size_t begin() { return 512 + (1 + begun_++ % 3) * 1024; }

    std::mutex mutex;

  private:
    template <class Is>
    int oldest(const Is& is) const {
        return int(std::find_if(kept_, kept_ + count_, is) - kept_);
    }
    Block remove(int i) {
        const Block block = kept_[i];
        std::copy(kept_ + i + 1, kept_ + count_--, kept_ + i);
        bytes_[block.large()] -= block.bytes;
        if (block.offered) offered_ -= block.bytes;
        return block;
    }

    Block kept_[BLOCKS];   // the oldest first
    int count_ = 0;
    std::size_t bytes_[2] = {}, offered_ = 0, begun_ = 0;   // of small blocks and large ones, and of those offered
};

// For as long as the process: arrays may outlive everything else. (A child of a fork finds it unlocked, whoever held it.)
Kept& kept() {
    static Kept& kept = []() -> Kept& {
        static Kept& made = *new Kept;
        pthread_atfork([] { made.mutex.lock(); }, [] { made.mutex.unlock(); }, [] { made.mutex.unlock(); });
        return made;
    }();
    return kept;
}

}   // namespace

bool keeps_memory() { return large_kept() > 0; }

void* take_memory(std::size_t bytes) noexcept {
    if (bytes > SIZE_MAX / 2) return nullptr;
    Block block;
    std::size_t begin = 0;
    {
        const std::lock_guard<std::mutex> guard(kept().mutex);
        if (!kept().take(bytes, block)) begin = kept().begin();
    }
    if (begin != 0) {
        const std::size_t unit = begin + bytes < HUGE_PAGE ? LINE : page();
        block.bytes = (begin + bytes + unit - 1) / unit * unit;
        block.start = block.large() ? map_large(block.bytes) : static_cast<char*>(std::aligned_alloc(LINE, block.bytes));
        if (!block.start) return nullptr;
        block.memory = block.start + begin;
    }
    block.offered = false;
    block_of(block.memory) = block;
    return block.memory;
}

void give_memory(void* memory) noexcept {
    if (!memory) return;
    const Block block = block_of(memory);
    if (block.bytes > large_kept()) return release(block);
    const std::lock_guard<std::mutex> guard(kept().mutex);
    kept().give(block);
}

std::size_t room_of(void* memory) noexcept { return block_of(memory).room(); }

}   // namespace onepass
