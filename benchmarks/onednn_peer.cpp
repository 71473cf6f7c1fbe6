// oneDNN's layer and batch normalization through its C API, for peers/onednn.py.
//
// compare.py compiles this against the wheels onednn-cpu-gomp (the library) and onednn-devel-cpu-gomp (the headers) when it
// is first needed, and loads it with ctypes. A plan is a primitive with its memory bound: running one allocates nothing.
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

thread_local std::string last_error;

void check(dnnl_status_t status) {
    if (status != dnnl_success) throw std::runtime_error(dnnl_status2str(status));
}

template <class Value>
Value chosen(const std::map<std::string, Value>& from, const char* name) {
    const auto found = from.find(name);
    if (found == from.end()) throw std::runtime_error(std::string("no such name: ") + name);
    return found->second;
}

const std::map<std::string, dnnl_prop_kind_t> PROPAGATIONS = {
    {"inference", dnnl_forward_inference}, {"training", dnnl_forward_training}, {"backward", dnnl_backward}};
const std::map<std::string, dnnl_data_type_t> DTYPES = {
    {"float32", dnnl_f32}, {"float16", dnnl_f16}, {"bfloat16", dnnl_bf16}};
const std::map<std::string, int> ARGUMENTS = {
    {"x", DNNL_ARG_SRC},           {"y", DNNL_ARG_DST},        {"mean", DNNL_ARG_MEAN},
    {"var", DNNL_ARG_VARIANCE},    {"weight", DNNL_ARG_SCALE}, {"bias", DNNL_ARG_SHIFT},
    {"dx", DNNL_ARG_DIFF_SRC},     {"dy", DNNL_ARG_DIFF_DST},  {"dweight", DNNL_ARG_DIFF_SCALE},
    {"dbias", DNNL_ARG_DIFF_SHIFT}};

// Frees what it holds when it goes.
template <class Handle, dnnl_status_t (*destroy)(Handle)>
struct Owned {
    Handle handle = nullptr;
    Owned() = default;
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() {
        if (handle) destroy(handle);
    }
};

using Descriptor = Owned<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>;

struct Plan {
    Owned<dnnl_engine_t, dnnl_engine_destroy> engine;
    Owned<dnnl_stream_t, dnnl_stream_destroy> stream;
    Owned<dnnl_primitive_t, dnnl_primitive_destroy> primitive;
    std::vector<dnnl_exec_arg_t> args;
    std::string implementation;

    ~Plan() {
        for (const dnnl_exec_arg_t& arg : args) dnnl_memory_destroy(arg.memory);
    }
};

void describe(Descriptor& result, Plan& plan, bool layer, dnnl_prop_kind_t kind, const_dnnl_memory_desc_t x, float eps,
              unsigned flags, dnnl_primitive_desc_t forward) {
    const dnnl_engine_t engine = plan.engine.handle;
    if (kind != dnnl_backward)
        check(layer ? dnnl_layer_normalization_forward_primitive_desc_create(&result.handle, engine, kind, x, x, nullptr,
                                                                             eps, flags, nullptr)
                    : dnnl_batch_normalization_forward_primitive_desc_create(&result.handle, engine, kind, x, x, eps, flags,
                                                                             nullptr));
    else
        check(layer ? dnnl_layer_normalization_backward_primitive_desc_create(&result.handle, engine, kind, x, x, x,
                                                                              nullptr, eps, flags, forward, nullptr)
                    : dnnl_batch_normalization_backward_primitive_desc_create(&result.handle, engine, kind, x, x, x, eps,
                                                                              flags, forward, nullptr));
}

}   // namespace

extern "C" {

void onednn_set_threads(int threads) { omp_set_num_threads(threads); }

const char* onednn_error() { return last_error.c_str(); }

// x has `ndims` dimensions, the channels second (batch norm) or last (layer norm), and strides counted in elements; every
// array of its size is laid out as x is. `given` says whether batch norm uses the mean and variance that it is handed.
// nullptr on failure.
Plan* onednn_plan(const char* operation, const char* propagation, const char* dtype, int ndims, const dnnl_dim_t* dims,
                  const dnnl_dim_t* strides, float eps, int given, int count, const char** names, void** data) try {
    const bool layer = std::string(operation) == "layer_norm";
    const dnnl_prop_kind_t kind = chosen(PROPAGATIONS, propagation);
    const unsigned flags = dnnl_use_scale | dnnl_use_shift | (given ? dnnl_use_global_stats : 0u);
    auto plan = std::make_unique<Plan>();
    check(dnnl_engine_create(&plan->engine.handle, dnnl_cpu, 0));
    check(dnnl_stream_create(&plan->stream.handle, plan->engine.handle, dnnl_stream_default_flags));

    Owned<dnnl_memory_desc_t, dnnl_memory_desc_destroy> x;
    check(dnnl_memory_desc_create_with_strides(&x.handle, ndims, dims, chosen(DTYPES, dtype), strides));
    Descriptor forward, backward;
    const bool training = kind != dnnl_forward_inference;
    describe(forward, *plan, layer, training ? dnnl_forward_training : kind, x.handle, eps, flags, nullptr);
    if (kind == dnnl_backward) describe(backward, *plan, layer, kind, x.handle, eps, flags, forward.handle);
    const dnnl_primitive_desc_t descriptor = kind == dnnl_backward ? backward.handle : forward.handle;

    for (int i = 0; i < count; ++i) {
        const int arg = chosen(ARGUMENTS, names[i]);
        dnnl_memory_t memory = nullptr;
        const const_dnnl_memory_desc_t md = dnnl_primitive_desc_query_md(descriptor, dnnl_query_exec_arg_md, arg);
        check(dnnl_memory_create(&memory, md, plan->engine.handle, data[i]));
        plan->args.push_back({arg, memory});
    }
    const char* implementation = "";
    check(dnnl_primitive_desc_query(descriptor, dnnl_query_impl_info_str, 0, &implementation));
    plan->implementation = implementation;
    check(dnnl_primitive_create(&plan->primitive.handle, descriptor));
    return plan.release();
} catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
}

const char* onednn_implementation(const Plan* plan) { return plan->implementation.c_str(); }

int onednn_run(const Plan* plan) {
    const dnnl_status_t status = dnnl_primitive_execute(plan->primitive.handle, plan->stream.handle,
                                                        static_cast<int>(plan->args.size()), plan->args.data());
    return status == dnnl_success ? dnnl_stream_wait(plan->stream.handle) : status;
}

void onednn_free(Plan* plan) { delete plan; }
}
