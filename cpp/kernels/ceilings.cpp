// The ceilings: a copy and a read of the same bytes, which no norm can beat; benchmarks measure them beside us.
#include "kernels/kernels.hpp"
#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int UNROLL = 8;   // packs

void copy(const float* x, float* y, index n, bool streamed) {
    using S = float;
    constexpr index W = WIDTH<S>, STEP = UNROLL * W;
    const index to_line = index((0 - reinterpret_cast<std::uintptr_t>(y)) % PACK) / index(sizeof(S));
    const index head = to_line < n ? to_line : n;
    each_vector<S>(head, [&](index i, auto lanes) ONEPASS_FLAT { store(y + i, load(x + i, lanes), lanes); });
    index i = head;
    for (; i + STEP <= n; i += STEP) {
        Vec<S> v[UNROLL];
#pragma GCC unroll 8
        for (int k = 0; k < UNROLL; ++k) v[k] = load(x + i + k * W);
#pragma GCC unroll 8
        for (int k = 0; k < UNROLL; ++k) streamed ? stream(y + i + k * W, v[k]) : store(y + i + k * W, v[k]);
    }
    each_vector<S>(n - i, [&](index k, auto lanes) ONEPASS_FLAT { store(y + i + k, load(x + i + k, lanes), lanes); });
    if (streamed) stream_fence();
}

double read(const float* x, index n) {
    using S = float;
    constexpr index W = WIDTH<S>, STEP = UNROLL * W;
    Vec<S> sum[UNROLL] = {};
    index i = 0;
    for (; i + STEP <= n; i += STEP)
#pragma GCC unroll 8
        for (int k = 0; k < UNROLL; ++k) sum[k] = sum[k] + load(x + i + k * W);
    each_vector<S>(n - i, [&](index k, auto lanes) ONEPASS_FLAT { sum[0] = sum[0] + load(x + i + k, lanes); });
    for (int k = 1; k < UNROLL; ++k) sum[0] = sum[0] + sum[k];
    double total = 0;
    for (int k = 0; k < W; ++k) total += double(sum[0].v[k]);
    return total;
}

}   // namespace

void add_ceilings(Table& table) {
    table.copy = copy;
    table.read = read;
}

}   // namespace onepass::ONEPASS_ISA
