// Large results in memory that is kept for the next ones when their owners let go of them.
#pragma once

#include "bindings/array.hpp"

namespace onepass {

// While it lives, arrays that NumPy makes in this thread have their data there, and own it: NumPy's own means of it
// (NEP 49). Not where somebody else has set an allocator.
class KeptResults {
  public:
    explicit KeptResults(std::size_t bytes);
    ~KeptResults();
    KeptResults(const KeptResults&) = delete;
    KeptResults& operator=(const KeptResults&) = delete;

  private:
    PyObject* before_ = nullptr;
};

}   // namespace onepass
