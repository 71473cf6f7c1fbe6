// The floating-point environment that kernels run in: round to nearest even, subnormals kept, nothing trapped, whatever
// another library has set in this thread. It is put back as it was found, its flags too. Every function opens one, for
// NumPy adds and copies in the one that it finds, and every thread of a team.
#pragma once

#include <cfenv>
#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace onepass {

class Environment {
  public:
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

#if defined(__SSE2__)
    Environment() : found_(_mm_getcsr()) {
        if ((found_ & ~FLAGS) != DEFAULT) _mm_setcsr(DEFAULT);
    }
    ~Environment() { _mm_setcsr(found_); }

  private:
    static constexpr unsigned FLAGS = 0x3f, DEFAULT = 0x1f80;
    unsigned found_;
#elif defined(__aarch64__)
    Environment() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(control_));
        __asm__ volatile("mrs %0, fpsr" : "=r"(status_));
        if (control_ != 0) set_control(0);
    }
    ~Environment() {
        if (control_ != 0) set_control(control_);
        __asm__ volatile("msr fpsr, %0" : : "r"(status_) : "memory");
    }

  private:
    static void set_control(std::uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
    std::uint64_t control_, status_;
#else
    Environment() {}
#endif
};

// Whether a product or a difference of this thread has vanished since this was made, or lost digits because it was nearly
// 0: processors say so in a flag. True where that cannot be told.
class Underflow {
  public:
    Underflow() {
        if (told()) clear();
    }
    bool seen() const { return !told() || raised(); }

  private:
    // Emulators know how to compute, but not all of them raise flags.
    static bool told() {
        static const bool result = [] {
            clear();
            volatile float small = 0x1p-100f;
            small = small * small;
            return raised();
        }();
        return result;
    }
#if defined(__SSE2__)
    static constexpr unsigned FLAG = 0x10;
    static void clear() { _mm_setcsr(_mm_getcsr() & ~FLAG); }
    static bool raised() { return (_mm_getcsr() & FLAG) != 0; }
#elif defined(__aarch64__)
    static constexpr std::uint64_t FLAG = 0x8;
    static std::uint64_t status() {
        std::uint64_t value = 0;
        __asm__ volatile("mrs %0, fpsr" : "=r"(value) : : "memory");
        return value;
    }
    static void clear() { __asm__ volatile("msr fpsr, %0" : : "r"(status() & ~FLAG) : "memory"); }
    static bool raised() { return (status() & FLAG) != 0; }
#else
    static void clear() {}
    static bool raised() { return false; }
#endif
};

// Puts the flags back that NumPy clears, or raises, in whatever it computes or copies: those of the old unit too, which
// takes a tenth of a microsecond.
class Flags {
  public:
    Flags() { std::fegetenv(&found_); }
    ~Flags() { std::fesetenv(&found_); }
    Flags(const Flags&) = delete;
    Flags& operator=(const Flags&) = delete;

  private:
    std::fenv_t found_;
};

}   // namespace onepass
