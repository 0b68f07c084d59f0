// SPDX-License-Identifier: Apache-2.0
// What a layer does last: gain, leaky ReLU, clamp, and their gradient, for a vector of values.
#pragma once

#include <ATen/cpu/vec/vec.h>

template <typename T>
struct Shape {
  using Vec = at::vec::Vectorized<T>;
  T gain = 1, slope = 1, clamp = 0;  // clamp is infinite for none

  Vec bent(Vec x) const {  // x times gain
    return at::vec::clamp(Vec::blendv(x * Vec(slope), x, x > Vec(T(0))), Vec(-clamp), Vec(clamp));
  }

  Vec gradient(Vec dy, Vec y) const {
    const Vec dx = dy * Vec::blendv(Vec(gain * slope), Vec(gain), y > Vec(T(0)));
    return Vec::blendv(dx, Vec(T(0)), y.abs() >= Vec(clamp));  // of NaN: not clamped
  }
};
