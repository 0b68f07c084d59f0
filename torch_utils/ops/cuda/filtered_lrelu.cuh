// SPDX-License-Identifier: Apache-2.0
// StyleGAN3's non-linearity, y = down(act(up(x + b))), a tile of a plane at a time: what lies in between stays in the memory that a block of threads
// shares. Of the up-sampled image, two bits a sample reach the GPU's memory, whether it was negative and whether it was clamped, and only if a
// gradient is wanted. A gradient is the same with the filters swapped and flipped, and slopes by those bits.
//
// Source: Karras et al. 2021, arXiv 2106.12423: section 3.2 (the order of the steps), appendix D (the two bits).
//
// Sample t of the up-sampled image reads the zero-inserted image at t - up_offset + tap, sample o of the result reads the up-sampled image at
// o * down - down_offset + tap, and both read zeros outside. No inserted zero is read or multiplied. The steps of a tile are functions of it and a
// thread; between two steps all threads wait for each other.

#pragma once
#include "common.cuh"

namespace {

// Factors and taps, alike along both axes, known to the compiler; 0: known when it runs. A filter may be separable or not.
template <int UP, int UP_TAPS, int DOWN, int DOWN_TAPS>
struct Known {
  static constexpr int up = UP, up_taps = UP_TAPS, down = DOWN, down_taps = DOWN_TAPS;
};
using Unknown = Known<0, 0, 0, 0>;

constexpr int kQuad = 4;         // samples of which the signs fill a byte, and which a thread works on together
constexpr int kLong = 4;         // rows of the result that a thread works on together
constexpr int kMostShared = 48 << 10;  // bytes that every GPU grants to a block

template <typename A>
struct alignas(16) Quad {
  A value[kQuad];
};

// Sizes of the tiles of one call; [0] is x, [1] is y.
struct Tiling {
  int out[2], middle[2], in[2];  // of one tile; middle x is a multiple of 4
  int up_taps, down_taps;        // numbers to keep
  int across, folded;            // samples of the image up-sampled along x, and of the up-sampled image filtered along x
  int64_t tiles[2];
  int64_t shared;                // numbers in shared memory
};

// How tiles of out_x by out_y are worked on.
inline Tiling tiling_of(const Filtered& p, int out_x, int out_y) {
  Tiling t{};
  t.out[0] = out_x, t.out[1] = out_y;
  for (int axis = 0; axis < 2; ++axis) {
    int length = (t.out[axis] - 1) * p.down[axis] + p.down_taps[axis];
    if (axis == 0) length = (length + 2 * kQuad - 2) / kQuad * kQuad;  // it begins and ends with whole bytes of signs
    t.middle[axis] = length;
    t.in[axis] = (length - 1 + p.up_taps[axis] - 1) / p.up[axis] + 1;
    t.tiles[axis] = (p.out[axis] + t.out[axis] - 1) / t.out[axis];
  }
  t.up_taps = p.up_taps[0] * (p.up_separable ? 1 : p.up_taps[1]);
  t.down_taps = p.down_taps[0] * (p.down_separable ? 1 : p.down_taps[1]);
  t.across = p.up_separable ? t.middle[0] * t.in[1] : 0;
  t.folded = p.down_separable ? t.out[0] * t.middle[1] : 0;
  t.shared = t.middle[0] * t.middle[1] + t.across + larger(t.in[0] * t.in[1], t.folded) + t.up_taps + t.down_taps + 3 * kQuad;
  return t;
}

// The first of these tiles that fits; shared is 0 if none does.
template <typename A>
inline Tiling best_tiling(const Filtered& p) {
  constexpr int sizes[][2] = {{32, 32}, {32, 16}, {16, 16}, {16, 8}, {8, 8}, {8, 4}};
  for (const auto& size : sizes) {
    const Tiling tiling = tiling_of(p, size[0], size[1]);
    if (tiling.shared * static_cast<int64_t>(sizeof(A)) <= kMostShared) return tiling;
  }
  return Tiling{};
}

template <typename T, typename S>
struct Tile {
  using A = typename Wide<T>::type;
  const Filtered& p;
  const Tiling& t;
  int64_t n, c, plane;
  int out0[2], middle0[2], in0[2];  // where its parts begin
  A *fu, *fd, *middle, *across, *in, *folded;  // in shared memory; `folded` lies where `in` was

  BODY int up(int axis) const { return S::up ? S::up : static_cast<int>(p.up[axis]); }
  BODY int down(int axis) const { return S::down ? S::down : static_cast<int>(p.down[axis]); }
  BODY int up_taps(int axis) const { return S::up_taps ? S::up_taps : static_cast<int>(p.up_taps[axis]); }
  BODY int down_taps(int axis) const { return S::down_taps ? S::down_taps : static_cast<int>(p.down_taps[axis]); }
  // Taps of an up-sampling that meet samples, at most.
  BODY int meetings(int axis) const { return (up_taps(axis) + up(axis) - 1) / up(axis); }
  BODY static int whole(int count) { return (count + kQuad - 1) / kQuad * kQuad; }

  BODY Tile(const Filtered& p, const Tiling& t, A* shared, int64_t number) : p(p), t(t) {
    const int64_t tile_x = number % t.tiles[0], rest = number / t.tiles[0], tile_y = rest % t.tiles[1];
    plane = rest / t.tiles[1];
    n = plane / p.channels, c = plane % p.channels;
    out0[0] = static_cast<int>(tile_x) * t.out[0], out0[1] = static_cast<int>(tile_y) * t.out[1];
    for (int axis = 0; axis < 2; ++axis) {
      middle0[axis] = out0[axis] * down(axis) - static_cast<int>(p.down_offset[axis]);
      if (axis == 0) middle0[axis] = floor_div(middle0[axis], kQuad) * kQuad;
      in0[axis] = ceil_div(middle0[axis] - static_cast<int>(p.up_offset[axis]), up(axis));
    }
    middle = shared;  // its rows begin at multiples of four numbers
    across = middle + t.middle[0] * t.middle[1];
    in = folded = across + t.across;
    fu = in + whole(larger(t.in[0] * t.in[1], t.folded));
    fd = fu + whole(t.up_taps);
  }

  // Step 1: the image with its bias, zeros outside of it, and the taps.
  BODY void load(int thread, int threads) const {
    for (int i = thread; i < t.up_taps; i += threads) fu[i] = static_cast<const A*>(p.fu)[i];
    for (int i = thread; i < t.down_taps; i += threads) fd[i] = static_cast<const A*>(p.fd)[i];
    const T* image = static_cast<const T*>(p.x) + n * p.x_stride[0] + c * p.x_stride[1];
    const A bias = p.b != nullptr ? widen(static_cast<const T*>(p.b)[c]) : A(0);
    for (int i = thread; i < t.in[0] * t.in[1]; i += threads) {
      const int row = i / t.in[0], y = in0[1] + row, x = in0[0] + i - row * t.in[0];
      const bool inside = y >= 0 && y < p.in[1] && x >= 0 && x < p.in[0];
      in[i] = inside ? widen(image[y * p.x_stride[2] + x * p.x_stride[3]]) + bias : A(0);
    }
  }

  // Step 2: up-sampled along x, if the filter is separable.
  BODY void widen_rows(int thread, int threads) const {
    const A gain = static_cast<A>(p.up_gain);
    for (int i = thread; i < t.across; i += threads) {
      const int row = i / t.middle[0], place = middle0[0] + i - row * t.middle[0] - static_cast<int>(p.up_offset[0]);
      const int first = modulo(-place, up(0));
      const A* from = in + row * t.in[0] + (place + first) / up(0) - in0[0];
      A sum = 0;
      UNROLL
      for (int k = 0; k < meetings(0); ++k)
        if (first + k * up(0) < up_taps(0)) sum += fu[first + k * up(0)] * from[k];
      across[i] = sum * gain;
    }
  }

  // Four samples of the up-sampled image, by either kind of filter.
  BODY Quad<A> up_sampled(int row, int column) const {
    Quad<A> sum{};
    const int place = middle0[1] + row - static_cast<int>(p.up_offset[1]), first = modulo(-place, up(1)), top = (place + first) / up(1) - in0[1];
    if (p.up_separable) {
      UNROLL
      for (int j = 0; j < meetings(1); ++j)
        if (first + j * up(1) < up_taps(1)) {
          const A tap = fu[first + j * up(1)];
          const Quad<A> four = *reinterpret_cast<const Quad<A>*>(across + (top + j) * t.middle[0] + column);
          UNROLL
          for (int i = 0; i < kQuad; ++i) sum.value[i] += tap * four.value[i];
        }
      return sum;
    }
    const A gain = static_cast<A>(p.up_gain);
    UNROLL
    for (int i = 0; i < kQuad; ++i) {
      const int across0 = middle0[0] + column + i - static_cast<int>(p.up_offset[0]), first_x = modulo(-across0, up(0));
      const A* from = in + top * t.in[0] + (across0 + first_x) / up(0) - in0[0];
      for (int j = 0; j < meetings(1); ++j) {
        if (first + j * up(1) >= up_taps(1)) break;
        UNROLL
        for (int k = 0; k < meetings(0); ++k)
          if (first_x + k * up(0) < up_taps(0)) sum.value[i] += fu[(first + j * up(1)) * up_taps(0) + first_x + k * up(0)] * from[j * t.in[0] + k];
      }
      sum.value[i] *= gain;
    }
    return sum;
  }

  // Step 3: the up-sampled image, activated; what the signs remember, or what they say.
  BODY void bend(int thread, int threads) const {
    const A slope = static_cast<A>(p.slope), clamp = static_cast<A>(p.clamp);
    const int quads = t.middle[0] / kQuad;
    const int64_t width = (p.middle[0] + kQuad - 1) / kQuad;
    for (int q = thread; q < quads * t.middle[1]; q += threads) {
      const int row = q / quads, column = (q - row * quads) * kQuad, y = middle0[1] + row, x = middle0[0] + column;
      Quad<A> four{};
      if (y >= 0 && y < p.middle[1] && x >= 0 && x < p.middle[0]) {
        four = up_sampled(row, column);
        uint8_t* codes = p.mode != 0 ? static_cast<uint8_t*>(p.signs) + (plane * p.middle[1] + y) * width + x / kQuad : nullptr;
        int code = p.mode == 2 ? *codes : 0;
        UNROLL
        for (int i = 0; i < kQuad; ++i) {
          A& value = four.value[i];
          if (p.mode == 2) {
            const int sign = code >> 2 * i & 3;
            value = sign == 0 ? value : sign == 1 ? value * slope : A(0);
          } else {
            const A bent = value > A(0) ? value : value * slope;
            code |= (bent > clamp || bent < -clamp ? 2 : value > A(0) ? 0 : 1) << 2 * i;
            value = limited(bent, clamp);
          }
          if (x + i >= p.middle[0]) value = A(0);
        }
        if (p.mode == 1) *codes = static_cast<uint8_t>(code);
      }
      *reinterpret_cast<Quad<A>*>(middle + row * t.middle[0] + column) = four;
    }
  }

  // Where the filter of column x of the result begins in a row of the up-sampled image.
  BODY int begin(int x) const { return (out0[0] + x) * down(0) - static_cast<int>(p.down_offset[0]) - middle0[0]; }

  // Step 4: filtered along x, if the filter is separable.
  BODY void fold(int thread, int threads) const {
    for (int i = thread; i < t.folded; i += threads) {
      const int row = i / t.out[0];
      const A* from = middle + row * t.middle[0] + begin(i - row * t.out[0]);
      A sum = 0;
      UNROLL
      for (int k = 0; k < down_taps(0); ++k) sum += fd[k] * from[k];
      folded[i] = sum;
    }
  }

  // kLong samples of the result below each other, from a column (or several, side by side) of what step 3 or 4 has left.
  BODY void sums(A* sum, const A* from, int row_length, const A* taps, int columns) const {
    constexpr int longest = S::down ? (kLong - 1) * S::down + S::down_taps : 1;
    for (int k = 0; k < columns; ++k) {
      if (S::down) {  // every number is loaded once
        A column[longest];
        UNROLL
        for (int j = 0; j < longest; ++j) column[j] = from[j * row_length + k];
        UNROLL
        for (int j = 0; j < S::down_taps; ++j) {
          const A tap = taps[j * columns + k];
          UNROLL
          for (int r = 0; r < kLong; ++r) sum[r] += tap * column[r * S::down + j];
        }
      } else {
        for (int j = 0; j < down_taps(1); ++j) {
          UNROLL
          for (int r = 0; r < kLong; ++r) sum[r] += taps[j * columns + k] * from[(r * down(1) + j) * row_length + k];
        }
      }
    }
  }

  // Step 5: the result.
  BODY void store(int thread, int threads) const {
    const A gain = static_cast<A>(p.down_gain);
    T* image = static_cast<T*>(p.y) + n * p.y_stride[0] + c * p.y_stride[1];
    for (int i = thread; i < t.out[0] * (t.out[1] / kLong); i += threads) {
      const int row = i / t.out[0] * kLong, column = i % t.out[0], x = out0[0] + column;
      A sum[kLong] = {};
      if (p.down_separable)
        sums(sum, folded + row * down(1) * t.out[0] + column, t.out[0], fd, 1);
      else
        sums(sum, middle + row * down(1) * t.middle[0] + begin(column), t.middle[0], fd, down_taps(0));
      UNROLL
      for (int r = 0; r < kLong; ++r) {
        const int y = out0[1] + row + r;
        if (y < p.out[1] && x < p.out[0]) image[y * p.y_stride[2] + x * p.y_stride[3]] = narrow<T>(sum[r] * gain);
      }
    }
  }
};

// Whether the compiler was told these factors and taps.
template <typename S>
BODY bool knows(const Filtered& p) {
  bool all = true;
  for (int axis = 0; axis < 2; ++axis)
    all = all && p.up[axis] == S::up && p.down[axis] == S::down && p.up_taps[axis] == S::up_taps && p.down_taps[axis] == S::down_taps;
  return all;
}

}  // namespace
