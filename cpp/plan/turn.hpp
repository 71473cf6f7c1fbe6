// A matrix turned:
//
//   to[j][i] = from[i][j]
//
// square by square of 16-byte vectors, whose rows are interleaved, each with the one half a square further on, as often as
// it takes for each element to be where it belongs (Eklundh 1972). Bits are moved, whatever they mean.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "plan/view.hpp"

namespace onepass {

// Of elements of so many bytes.
template <int SIZE>
struct Square {
    static constexpr index SIDE = 16 / SIZE;
    using Bits = std::conditional_t<SIZE == 2, std::uint16_t, std::conditional_t<SIZE == 4, std::uint32_t, std::uint64_t>>;
    typedef Bits Row __attribute__((vector_size(16)));
    typedef Bits Loose __attribute__((vector_size(16), aligned(1), may_alias));

    static Row lower(Row a, Row b) {
        if constexpr (SIDE == 8) return Row{a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
        if constexpr (SIDE == 4) return Row{a[0], b[0], a[1], b[1]};
        if constexpr (SIDE == 2) return Row{a[0], b[0]};
    }
    static Row upper(Row a, Row b) {
        if constexpr (SIDE == 8) return Row{a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
        if constexpr (SIDE == 4) return Row{a[2], b[2], a[3], b[3]};
        if constexpr (SIDE == 2) return Row{a[1], b[1]};
    }

    // Strides in bytes.
    static void turn(const void* from, index from_stride, void* to, index to_stride) {
        const char* source = static_cast<const char*>(from);
        char* result = static_cast<char*>(to);
        Row rows[SIDE], next[SIDE];
        for (index i = 0; i < SIDE; ++i) rows[i] = *reinterpret_cast<const Loose*>(source + i * from_stride);
        for (index step = 1; step < SIDE; step *= 2) {
            for (index i = 0; i < SIDE / 2; ++i) {
                next[2 * i] = lower(rows[i], rows[i + SIDE / 2]);
                next[2 * i + 1] = upper(rows[i], rows[i + SIDE / 2]);
            }
            for (index i = 0; i < SIDE; ++i) rows[i] = next[i];
        }
        for (index i = 0; i < SIDE; ++i) *reinterpret_cast<Loose*>(result + i * to_stride) = rows[i];
    }
};

// A matrix in memory, a row of it `stride` elements behind the other.
template <class E>
struct Matrix {
    E* at;
    index stride;
};

// far is rows x cols, and near its columns x rows. What is near lies in a cache, so the way goes along the rows of far: no
// stream that a processor's own prefetcher follows. So they are sent for, early into the second cache; behind the last of
// them come the next columns of the first, unless it GOES_ON with more rows. And so are the lines of near, which are soon
// read or written by pieces.
template <bool IN, bool GOES_ON = false, class Far, class Near>
void turn_squares(Matrix<Far> far, Matrix<Near> near, index rows, index cols) {
    using Squares = Square<sizeof(Near)>;
    constexpr index SIDE = Squares::SIDE, LINE = 64 / index(sizeof(Near)), SQUARES = LINE / SIDE, EARLY = 8 * SIDE;
    constexpr int TO_READ = 0, TO_WRITE = 1, SECOND = 2, FIRST = 3;   // as __builtin_prefetch has them
    const auto one = [=](index i, index j) {
        Far* there = far.at + i * far.stride + j;
        Near* here = near.at + j * near.stride + i;
        if constexpr (IN)
            std::memcpy(here, there, sizeof(Near));
        else
            std::memcpy(there, here, sizeof(Near));
    };
    index i = 0;
    for (; i + SIDE <= rows; i += SIDE) {
        Far* there = far.at + i * far.stride;
        Near* here = near.at + i;
        const bool more = GOES_ON || i + EARLY < rows;
        const Far* early = there + (more ? EARLY * far.stride : (EARLY - rows) * far.stride + cols);
        const Near* beside = near.at + i / SIDE % SQUARES * SIDE * near.stride + (i / LINE + 1) * LINE;
        const auto square = [=](index j) {
            constexpr index SIZE = index(sizeof(Near));
            if constexpr (IN)
                Squares::turn(there + j, far.stride * SIZE, here + j * near.stride, near.stride * SIZE);
            else
                Squares::turn(here + j * near.stride, near.stride * SIZE, there + j, far.stride * SIZE);
        };
        index j = 0;
        for (; j + LINE <= cols; j += LINE) {
            for (index k = 0; k < SIDE; ++k) {
                const index last = k * far.stride + j + LINE - 1;   // its line holds the others, or has been sent for
                __builtin_prefetch(early + last, IN ? TO_READ : TO_WRITE, SECOND);
                __builtin_prefetch(beside + (j + k) * near.stride, IN ? TO_WRITE : TO_READ, FIRST);
            }
            for (index k = 0; k < SQUARES; ++k) square(j + k * SIDE);
        }
        for (; j + SIDE <= cols; j += SIDE) square(j);
        for (; j < cols; ++j)
            for (index k = i; k < i + SIDE; ++k) one(k, j);
    }
    for (; i < rows; ++i)
        for (index j = 0; j < cols; ++j) one(i, j);
}

// The same, whose near rows may lie so far apart that the first cache has no places for a line of each: they go by way of a
// tile, and whole lines from there, or to there.
template <bool IN, class Far, class Near>
void turn(Matrix<Far> far, Matrix<Near> near, index rows, index cols) {
    using E = std::remove_const_t<Near>;
    constexpr index SIZE = index(sizeof(E)), LINE = 64 / SIZE, WAYS = 8, WAY = 4 << 10;   // bytes of a way
    constexpr index HIGH = 128, TILE = 32, WIDE = 8 * LINE;   // rows of near, and how much of each
    const index apart = near.stride * SIZE, places = WAYS * WAY / (apart & -apart);
    const auto part = [&](index row, index col) { return Matrix<Far>{far.at + row * far.stride + col, far.stride}; };
    if (std::min(cols, HIGH) <= places) {
        for (index col = 0; col < cols; col += HIGH)
            turn_squares<IN>(part(0, col), Matrix<Near>{near.at + col * near.stride, near.stride}, rows,
                             std::min(HIGH, cols - col));
        return;
    }
    alignas(64) E memory[TILE * (WIDE + LINE)];
    const Matrix<E> tile = {memory, WIDE + LINE};
    for (index col = 0; col < cols; col += TILE)
        for (index row = 0; row < rows; row += WIDE) {
            const index high = std::min(TILE, cols - col), wide = std::min(WIDE, rows - row);
            const auto each = [&](const auto& move) {
                for (index i = 0; i < high; ++i) move(near.at + (col + i) * near.stride + row, tile.at + i * tile.stride);
            };
            const auto size = std::size_t(wide) * sizeof(E);
            if constexpr (IN) {
                turn_squares<IN, true>(part(row, col), tile, wide, high);
                each([=](E* there, const E* here) { std::memcpy(there, here, size); });
            } else {
                each([=](const E* there, E* here) { std::memcpy(here, there, size); });
                turn_squares<IN, true>(part(row, col), tile, wide, high);
            }
        }
}

}   // namespace onepass
