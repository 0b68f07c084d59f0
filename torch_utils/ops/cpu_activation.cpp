// SPDX-License-Identifier: Apache-2.0
// Bias, leaky ReLU, gain and clamp on a CPU, and its gradient: memory is read and written once. No sum, so nothing depends on the number of threads.
//
// A tensor is [outer, channels, inner]: planes apart, or the channels of a pixel side by side, where inner is 1. The last, short vector of a
// row goes through the same instructions as all others, so that no value depends on where it lies.

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace {

using at::vec::Vectorized;

constexpr int64_t kGrain = 1 << 15;  // values that a thread does at least

// op(offset, count) for pieces [offset, offset + count) of vectors, count at most as many as a vector has.
template <typename T, typename Op>
inline void pieces(int64_t begin, int64_t end, const Op& op) {
  constexpr int64_t V = Vectorized<T>::size();
  int64_t i = begin;
  for (; i + V <= end; i += V) op(i, V);
  if (i < end) op(i, end - i);
}

template <typename T>
struct Shape {
  T gain, slope, clamp;  // clamp is infinite for none

  Vectorized<T> value(Vectorized<T> x, Vectorized<T> bias) const {  // bias times gain
    using Vec = Vectorized<T>;
    const Vec sum = at::vec::fmadd(x, Vec(gain), bias);
    return at::vec::clamp(Vec::blendv(sum * Vec(slope), sum, sum > Vec(T(0))), Vec(-clamp), Vec(clamp));
  }

  Vectorized<T> gradient(Vectorized<T> dy, Vectorized<T> y) const {
    using Vec = Vectorized<T>;
    const Vec bent = dy * Vec::blendv(Vec(gain * slope), Vec(gain), y > Vec(T(0)));
    return Vec::blendv(bent, Vec(T(0)), y.abs() >= Vec(clamp));  // of NaN: not clamped
  }
};

template <typename T>
void activate(const at::Tensor& x, const std::optional<at::Tensor>& b, at::Tensor& y, int64_t inner, const Shape<T>& shape) {
  using Vec = Vectorized<T>;
  const T* in = x.const_data_ptr<T>();
  T* out = y.mutable_data_ptr<T>();
  const int64_t channels = b ? b->numel() : 1, row = b ? inner : x.numel();
  std::vector<T> bias(channels, T(0));
  for (int64_t c = 0; b && c < channels; ++c) bias[c] = b->const_data_ptr<T>()[c] * shape.gain;
  if (row == 1) {  // channels side by side
    at::parallel_for(0, x.numel() / channels, std::max<int64_t>(kGrain / channels, 1), [&](int64_t begin, int64_t end) {
      for (int64_t pixel = begin; pixel < end; ++pixel)
        pieces<T>(0, channels, [&](int64_t c, int64_t n) {
          const int64_t i = pixel * channels + c;
          shape.value(Vec::loadu(in + i, n), Vec::loadu(bias.data() + c, n)).store(out + i, n);
        });
    });
    return;
  }
  at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {  // plane by plane
      const int64_t plane = begin / row, stop = std::min(end, (plane + 1) * row);
      const Vec add(bias[plane % channels]);
      pieces<T>(begin, stop, [&](int64_t i, int64_t n) { shape.value(Vec::loadu(in + i, n), add).store(out + i, n); });
      begin = stop;
    }
  });
}

template <typename T>
void differentiate(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx, const Shape<T>& shape) {
  using Vec = Vectorized<T>;
  const T *slope_at = y.const_data_ptr<T>(), *in = dy.const_data_ptr<T>();
  T* out = dx.mutable_data_ptr<T>();
  at::parallel_for(0, y.numel(), kGrain, [&](int64_t begin, int64_t end) {
    pieces<T>(begin, end, [&](int64_t i, int64_t n) { shape.gradient(Vec::loadu(in + i, n), Vec::loadu(slope_at + i, n)).store(out + i, n); });
  });
}

template <typename T>
Shape<T> shape_of(double gain, double slope, double clamp) {
  return {static_cast<T>(gain), static_cast<T>(slope), static_cast<T>(clamp)};
}

}  // namespace

// See bias_act.py, which has checked the arguments: x is dense, b is of its dtype, inner is how many values of a channel lie side by side.
at::Tensor bias_act(const at::Tensor& x, const std::optional<at::Tensor>& b, int64_t inner, double gain, double slope, double clamp) {
  pybind11::gil_scoped_release others_may_run;
  at::Tensor y = at::empty_like(x);
  if (x.scalar_type() == at::kDouble)
    activate<double>(x, b, y, inner, shape_of<double>(gain, slope, clamp));
  else
    activate<float>(x, b, y, inner, shape_of<float>(gain, slope, clamp));
  return y;
}

// dy and y lie in memory alike.
at::Tensor gradient(const at::Tensor& dy, const at::Tensor& y, double gain, double slope, double clamp) {
  pybind11::gil_scoped_release others_may_run;
  at::Tensor dx = at::empty_like(y);
  if (y.scalar_type() == at::kDouble)
    differentiate<double>(dy, y, dx, shape_of<double>(gain, slope, clamp));
  else
    differentiate<float>(dy, y, dx, shape_of<float>(gain, slope, clamp));
  return dx;
}
