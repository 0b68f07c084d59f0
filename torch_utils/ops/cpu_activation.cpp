// SPDX-License-Identifier: Apache-2.0
// Bias, leaky ReLU, gain and clamp on a CPU, and its gradient; noise too, and sums, where a layer wants them: memory is read and written once. Sums
// are of pieces that do not depend on the number of threads.
//
// A tensor is [outer, channels, inner]: planes apart, or the channels of a pixel side by side, where inner is 1. The last, short vector of a
// row goes through the same instructions as all others, so that no value depends on where it lies.

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu_activation.h"
#include "cpu_kernels.h"

namespace {

using at::vec::Vectorized;

constexpr int64_t kGrain = 1 << 15;  // values that a thread does at least
constexpr int64_t kPixels = 2048;    // of an image, that are summed together

// op(offset, count) for pieces [offset, offset + count) of vectors, count at most as many as a vector has.
template <typename T, typename Op>
inline void pieces(int64_t begin, int64_t end, const Op& op) {
  constexpr int64_t V = Vectorized<T>::size();
  int64_t i = begin;
  for (; i + V <= end; i += V) op(i, V);
  if (i < end) op(i, end - i);
}

template <typename T>
void activate(const at::Tensor& x, const Maybe& b, at::Tensor& y, int64_t inner, const Shape<T>& shape) {
  using Vec = Vectorized<T>;
  using at::vec::fmadd;
  const Vec gain(shape.gain);
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
          shape.bent(fmadd(Vec::loadu(in + i, n), gain, Vec::loadu(bias.data() + c, n))).store(out + i, n);
        });
    });
    return;
  }
  at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {  // plane by plane
      const int64_t plane = begin / row, stop = std::min(end, (plane + 1) * row);
      const Vec add(bias[plane % channels]);
      pieces<T>(begin, stop, [&](int64_t i, int64_t n) { shape.bent(fmadd(Vec::loadu(in + i, n), gain, add)).store(out + i, n); });
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

using Floats = Vectorized<float>;

float sum_of(const Floats& lanes) {
  std::array<float, Floats::size()> each;
  lanes.store(each.data());
  float sum = 0;
  for (const float one : each) sum += one;
  return sum;
}

template <typename T>
Shape<T> shape_of(double gain, double slope, double clamp) {
  return {static_cast<T>(gain), static_cast<T>(slope), static_cast<T>(clamp)};
}

}  // namespace

// See bias_act.py, which has checked the arguments: x is dense, b is of its dtype, inner is how many values of a channel lie side by side.
at::Tensor bias_act(const at::Tensor& x, const Maybe& b, int64_t inner, double gain, double slope, double clamp) {
  at::Tensor y = at::empty_like(x);
  if (x.scalar_type() == at::kDouble)
    activate<double>(x, b, y, inner, shape_of<double>(gain, slope, clamp));
  else
    activate<float>(x, b, y, inner, shape_of<float>(gain, slope, clamp));
  return y;
}

// dy and y lie in memory alike.
at::Tensor gradient(const at::Tensor& dy, const at::Tensor& y, double gain, double slope, double clamp) {
  at::Tensor dx = at::empty_like(y);
  if (y.scalar_type() == at::kDouble)
    differentiate<double>(dy, y, dx, shape_of<double>(gain, slope, clamp));
  else
    differentiate<float>(dy, y, dx, shape_of<float>(gain, slope, clamp));
  return dx;
}

// What follows is for modulated_layer.py, which has checked the arguments: float32, planes apart, x [n, C, h, w].

// x <- clamp(gain lrelu(x + noise + bias)); noise [1 or n, 1, h, w] or none, bias [C].
void finish_layer(at::Tensor x, const Maybe& noise, const at::Tensor& bias, double gain, double slope, double clamp) {
  const Shape<float> shape = shape_of<float>(gain, slope, clamp);
  const int64_t channels = x.size(1), pixels = x.size(2) * x.size(3), noise_step = noise && noise->size(0) > 1 ? pixels : 0;
  float* all = x.mutable_data_ptr<float>();
  const float *grain = noise ? noise->const_data_ptr<float>() : nullptr, *add = bias.const_data_ptr<float>();
  at::parallel_for(0, x.size(0) * channels, std::max<int64_t>(kGrain / std::max<int64_t>(pixels, 1), 1), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      float* at = all + plane * pixels;
      const float* noise_at = grain ? grain + plane / channels * noise_step : nullptr;
      const Floats one(add[plane % channels]), factor(shape.gain);
      pieces<float>(0, pixels, [&](int64_t i, int64_t n) {
        const Floats sum = noise_at ? one + Floats::loadu(noise_at + i, n) : one;
        shape.bent((Floats::loadu(at + i, n) + sum) * factor).store(at + i, n);
      });
    }
  });
}

// From results y of a layer and their gradient dy: dv, that before the activation; sums [n, C, 3] over pixels of dv, of dv v, and of dv noise,
// where v = norm x + noise + bias; and dv summed over channels [n, 1, h, w] if `by_pixel`.
std::tuple<at::Tensor, at::Tensor, Maybe> layer_gradient(const at::Tensor& dy, const at::Tensor& y, const Maybe& noise,
                                                                             double gain, double slope, double clamp, bool by_pixel) {
  const Shape<float> shape = shape_of<float>(gain, slope, clamp);
  const int64_t n = y.size(0), channels = y.size(1), pixels = y.size(2) * y.size(3), noise_step = noise && noise->size(0) > 1 ? pixels : 0;
  const int64_t chunks = (pixels + kPixels - 1) / kPixels;
  at::Tensor dv = at::empty_like(y), sums = at::empty({n, chunks, channels, 3}, y.options());
  Maybe summed;
  if (by_pixel) summed = at::zeros({n, 1, y.size(2), y.size(3)}, y.options());
  const float *from = dy.const_data_ptr<float>(), *results = y.const_data_ptr<float>(), *grain = noise ? noise->const_data_ptr<float>() : nullptr;
  float *to = dv.mutable_data_ptr<float>(), *totals = sums.mutable_data_ptr<float>(), *across = summed ? summed->mutable_data_ptr<float>() : nullptr;
  const Floats back_up(static_cast<float>(1 / gain)), back_down(static_cast<float>(1 / (gain * slope))), zero(0.0f);
  at::parallel_for(0, n * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / chunks, first = task % chunks * kPixels, last = std::min(first + kPixels, pixels);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t plane = (image * channels + c) * pixels;
        Floats plain(zero), by_value(zero), by_noise(zero);
        pieces<float>(first, last, [&](int64_t i, int64_t count) {
          const Floats result = Floats::loadu(results + plane + i, count), d = shape.gradient(Floats::loadu(from + plane + i, count), result);
          d.store(to + plane + i, count);
          plain = plain + d;
          by_value = at::vec::fmadd(d, result * Floats::blendv(back_down, back_up, result > zero), by_value);
          if (grain) by_noise = at::vec::fmadd(d, Floats::loadu(grain + image * noise_step + i, count), by_noise);
          if (across) {
            float* sum = across + image * pixels + i;
            (Floats::loadu(sum, count) + d).store(sum, count);
          }
        });
        float* total = totals + (task * channels + c) * 3;
        total[0] = sum_of(plain);
        total[1] = sum_of(by_value);
        total[2] = sum_of(by_noise);
      }
    }
  });
  return {dv, sums.sum(1), summed};
}

// Returns [n, C], the sums over pixels of g x, and makes g <- g scale [n, C].
at::Tensor scale_and_dot(at::Tensor g, const at::Tensor& x, const at::Tensor& scale) {
  const int64_t planes = x.size(0) * x.size(1), pixels = x.size(2) * x.size(3);
  at::Tensor dots = at::empty({x.size(0), x.size(1)}, x.options());
  float *all = g.mutable_data_ptr<float>(), *to = dots.mutable_data_ptr<float>();
  const float *other = x.const_data_ptr<float>(), *factors = scale.const_data_ptr<float>();
  at::parallel_for(0, planes, std::max<int64_t>(kGrain / std::max<int64_t>(pixels, 1), 1), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const Floats factor(factors[plane]);
      float total = 0;
      for (int64_t first = 0; first < pixels; first += kPixels) {  // sums of sums, which round less
        Floats dot(0.0f);
        pieces<float>(plane * pixels + first, plane * pixels + std::min(first + kPixels, pixels), [&](int64_t i, int64_t n) {
          const Floats one = Floats::loadu(all + i, n);
          dot = at::vec::fmadd(one, Floats::loadu(other + i, n), dot);
          (one * factor).store(all + i, n);
        });
        total += sum_of(dot);
      }
      to[plane] = total;
    }
  });
  return dots;
}

// dw <- dw + w factors; dw and w [O, C, 3, 3], factors [O, C].
void add_scaled(at::Tensor dw, const at::Tensor& w, const at::Tensor& factors) {
  float* to = dw.mutable_data_ptr<float>();
  const float *from = w.const_data_ptr<float>(), *factor = factors.const_data_ptr<float>();
  at::parallel_for(0, factors.numel(), kGrain / 9, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t k = 9 * i; k < 9 * i + 9; ++k) to[k] += from[k] * factor[i];
  });
}
