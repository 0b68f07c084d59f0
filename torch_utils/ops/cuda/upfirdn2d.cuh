// SPDX-License-Identifier: Apache-2.0
// Insert zeros, pad or crop, filter, keep every n-th sample: one sample of the result. No inserted zero is read or multiplied.

#pragma once
#include "common.cuh"

namespace {

// Factors and numbers of taps, the same along both axes and known to the compiler, which unrolls the sums; 0: known when it runs.
template <int UP, int DOWN, int TAPS>
struct Fixed {
  static constexpr int up = UP, down = DOWN, taps = TAPS;
};
using Free = Fixed<0, 0, 0>;

// Along one axis: the first tap that meets a sample of the image, that sample, and the number of taps that are left.
template <typename I>
struct Meeting {
  I tap, sample;

  BODY Meeting(I out, I up, I down, I pad) {
    const I begin = out * down - pad;  // of the filter, on the zero-inserted image
    tap = modulo<I>(-begin, up);
    sample = (begin + tap) / up;
  }
};

// Item `item` of n * channels * out y * out x, counted as y lies in memory.
template <typename T, typename I, typename S>
BODY void upfirdn2d_item(const Upfirdn& p, I item) {
  using A = typename Wide<T>::type;
  const I up_x = S::up ? S::up : p.up[0], up_y = S::up ? S::up : p.up[1];
  const I down_x = S::down ? S::down : p.down[0], down_y = S::down ? S::down : p.down[1];
  const I taps_x = S::taps ? S::taps : p.taps[0], taps_y = S::taps ? S::taps : p.taps[1];
  const I channels = p.channels, out_x = p.out[0], out_y = p.out[1], in_x = p.in[0], in_y = p.in[1];
  I c, rest = item;
  if (p.by_pixel) c = rest % channels, rest /= channels;
  const I x = rest % out_x;
  rest /= out_x;
  const I y = rest % out_y;
  rest /= out_y;
  if (!p.by_pixel) c = rest % channels, rest /= channels;
  const I n = rest;

  const Meeting<I> across(x, up_x, down_x, p.pad[0]), along(y, up_y, down_y, p.pad[1]);
  const T* image = static_cast<const T*>(p.x) + n * p.x_stride[0] + c * p.x_stride[1];
  const A* f = static_cast<const A*>(p.f);
  constexpr int most = S::taps ? (S::taps + (S::up ? S::up : 1) - 1) / (S::up ? S::up : 1) : 1;
  const I steps_x = S::taps ? most : ceil_div<I>(taps_x, up_x), steps_y = S::taps ? most : ceil_div<I>(taps_y, up_y);
  A sum = 0;
  UNROLL_TO(most)
  for (I j = 0; j < steps_y; ++j) {
    const I tap_y = along.tap + j * up_y, row = along.sample + j;
    if (tap_y >= taps_y || row < 0 || row >= in_y) continue;
    UNROLL_TO(most)
    for (I i = 0; i < steps_x; ++i) {
      const I tap_x = across.tap + i * up_x, column = across.sample + i;
      if (tap_x >= taps_x || column < 0 || column >= in_x) continue;
      sum += f[tap_y * taps_x + tap_x] * widen(image[row * p.x_stride[2] + column * p.x_stride[3]]);
    }
  }
  T* result = static_cast<T*>(p.y) + n * p.y_stride[0] + c * p.y_stride[1] + y * p.y_stride[2] + x * p.y_stride[3];
  *result = narrow<T>(sum * static_cast<A>(p.gain));
}

BODY int64_t items_of(const Upfirdn& p) { return p.n * p.channels * p.out[0] * p.out[1]; }

// The largest number that any index becomes.
BODY int64_t reach_of(const Upfirdn& p) {
  const int64_t sizes[4] = {p.n, p.channels, p.in[1], p.in[0]};
  int64_t place = 0;
  for (int axis = 0; axis < 4; ++axis) place += (sizes[axis] - 1) * p.x_stride[axis];
  for (int axis = 0; axis < 2; ++axis) place = larger<int64_t>(place, (p.in[axis] + p.taps[axis]) * p.up[axis] + p.out[axis] * p.down[axis]);
  return larger(place, items_of(p));
}

// Whether the compiler was told these factors and taps.
template <typename S>
BODY bool fits(const Upfirdn& p) {
  return p.up[0] == S::up && p.up[1] == S::up && p.down[0] == S::down && p.down[1] == S::down && p.taps[0] == S::taps && p.taps[1] == S::taps;
}

}  // namespace
