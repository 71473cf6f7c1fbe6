#include "bindings/results.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include <pybind11/gil_safe_call_once.h>

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

// What NumPy takes for it, and how: its table of functions has no names.
struct Means {
    PyObject* (*set)(PyObject*);   // gives the one before
    PyObject* ours;
};
const Means& means() {
    constexpr int SET_HANDLER = 304;
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Means> storage;
    return storage
        .call_once_and_store_result([] {
            const py::object api = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
            void** table = static_cast<void**>(PyCapsule_GetPointer(api.ptr(), nullptr));
            PyObject* ours = table ? PyCapsule_New(&handler, CAPSULE, nullptr) : nullptr;
            if (!ours) throw py::error_already_set();
            return Means{reinterpret_cast<PyObject* (*)(PyObject*)>(table[SET_HANDLER]), ours};
        })
        .get_stored();
}

bool is_numpys(PyObject* capsule) {
    const auto* found = static_cast<const Handler*>(PyCapsule_GetPointer(capsule, CAPSULE));
    if (!found) PyErr_Clear();
    return found && std::string_view(found->name) == "default_allocator";
}

}   // namespace

KeptResults::KeptResults(std::size_t bytes) {
    if (bytes < LEAST_KEPT || !keeps_memory()) return;
    before_ = means().set(means().ours);
    if (!before_) throw py::error_already_set();
    if (is_numpys(before_)) return;
    Py_XDECREF(means().set(before_));
    Py_CLEAR(before_);
}

KeptResults::~KeptResults() {
    if (!before_) return;
    Py_XDECREF(means().set(before_));
    Py_DECREF(before_);
}

}   // namespace onepass
