// The ceilings: a copy and a read of the same bytes, which no norm can beat; benchmarks measure them beside us.
#include "kernels/kernels.hpp"
#include "simd/pack.hpp"

namespace onepass::ONEPASS_ISA {
namespace {

constexpr int UNROLL = 8;   // packs

template <class S>
void copy(const S* x, S* y, index n, bool streamed) {
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

template <class S>
double read(const S* x, index n) {
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

template <class S>
void add(Kernels<S>& kernels) {
    kernels.copy = copy<S>;
    kernels.read = read<S>;
}

}   // namespace

void add_ceilings(Table& table) {
    add(table.f32);
    add(table.f64);
}

}   // namespace onepass::ONEPASS_ISA
