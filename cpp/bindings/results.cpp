#include "bindings/results.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include "plan/kept.hpp"

namespace onepass {
namespace {

// NumPy's structure, of its version 1.
struct Handler {
    char name[127];
    std::uint8_t version;
    void* context;
    void* (*malloc)(void*, std::size_t);
    void* (*calloc)(void*, std::size_t, std::size_t);
    void* (*realloc)(void*, void*, std::size_t);
    void (*free)(void*, void*, std::size_t);
};

void* take(void*, std::size_t bytes) { return take_memory(bytes); }

void* take_zeros(void*, std::size_t n, std::size_t size) {
    if (size != 0 && n > std::numeric_limits<std::size_t>::max() / size) return nullptr;
    void* memory = take_memory(n * size);
    return memory ? std::memset(memory, 0, n * size) : nullptr;
}

void give(void*, void* memory, std::size_t) { give_memory(memory); }

void* take_other(void*, void* memory, std::size_t bytes) {
    void* other = take_memory(bytes);
    if (other && memory) std::memcpy(other, memory, std::min(bytes, room_of(memory)));
    if (other) give_memory(memory);
    return other;
}

Handler handler = {"onepass", 1, nullptr, take, take_zeros, take_other, give};
constexpr const char* CAPSULE = "mem_handler";

// NumPy's table of functions has no names.
PyObject* set_handler(PyObject* to) {
    constexpr int SET_HANDLER = 304;
    static const auto function = [] {
        const py::object api = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
        void** table = static_cast<void**>(PyCapsule_GetPointer(api.ptr(), nullptr));
        if (!table) throw py::error_already_set();
        return reinterpret_cast<PyObject* (*)(PyObject*)>(table[SET_HANDLER]);
    }();
    PyObject* before = function(to);
    if (!before) throw py::error_already_set();
    return before;
}

bool is_numpys(PyObject* capsule) {
    const auto* found = static_cast<const Handler*>(PyCapsule_GetPointer(capsule, CAPSULE));
    if (!found) PyErr_Clear();
    return found && std::string_view(found->name) == "default_allocator";
}

}   // namespace

KeptResults::KeptResults(std::size_t bytes) {
    if (bytes < LEAST_KEPT || !keeps_memory()) return;
    static PyObject* const ours = PyCapsule_New(&handler, CAPSULE, nullptr);
    if (!ours) throw py::error_already_set();
    before_ = set_handler(ours);
    if (is_numpys(before_)) return;
    Py_DECREF(set_handler(before_));
    Py_CLEAR(before_);
}

KeptResults::~KeptResults() {
    if (!before_) return;
    Py_XDECREF(set_handler(before_));
    Py_DECREF(before_);
}

}   // namespace onepass
