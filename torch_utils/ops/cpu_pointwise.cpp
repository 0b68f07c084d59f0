// SPDX-License-Identifier: Apache-2.0
// Convolution of images with 1x1 kernels on a CPU, and its gradient by the kernels: products of matrices. Every sum runs over its channels, or
// pixels, in their order, so nothing depends on the number of threads.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "cpu_kernels.h"
#include "cpu_product.h"

namespace {

constexpr int64_t kPanel = 2 * V;          // columns that are multiplied together
constexpr int64_t kTogether = 4 * kPanel;  // columns that lie in the cache together
constexpr int64_t kSome = 4 * kRows;       // rows that meet them, one panel after the other
constexpr int64_t kDepth = 256;            // pixels of a sum over pixels that are taken at a time

int64_t filled_panels(int64_t columns) { return ceil_div(columns, kPanel) * kPanel; }

// Columns [0, count) of some rows of a product, of one panel; what a panel has beyond them is dropped.
void panel(int64_t rows, int64_t depth, const float* a, int64_t a_step, const float* b, float* c, int64_t c_step, int64_t count) {
  if (count == kPanel) {
    multiply<false>(rows, 2, depth, a, a_step, b, kPanel, c, c_step, false);
    return;
  }
  alignas(64) float own[kSome * kPanel];
  multiply<false>(rows, 2, depth, a, a_step, b, kPanel, own, kPanel, false);
  for (int64_t r = 0; r < rows; ++r) std::memcpy(c + r * c_step, own + r * kPanel, count * sizeof(float));
}

}  // namespace

// See cpu_pointwise.py, which has checked the arguments: x [n, C, h, w] and w [O, C], both without gaps; [n, O, h, w].
at::Tensor pointwise(const at::Tensor& x, const at::Tensor& w) {
  const int64_t from = x.size(1), to = w.size(0), pixels = x.size(2) * x.size(3), blocks = ceil_div(pixels, kTogether);
  at::Tensor y = at::empty({x.size(0), to, x.size(2), x.size(3)}, x.options());
  const float *images = x.const_data_ptr<float>(), *kernels = w.const_data_ptr<float>();
  float* results = y.mutable_data_ptr<float>();
  at::parallel_for(0, x.size(0) * blocks, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor space = floats(kTogether * from);
    float* packed = space.mutable_data_ptr<float>();  // [panel][channel][kPanel]
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / blocks, first = task % blocks * kTogether, count = std::min(kTogether, pixels - first);
      for (int64_t p = 0; p < count; p += kPanel) {
        const int64_t some = std::min(kPanel, count - p);
        float* at = packed + p * from;
        const float* pixel = images + image * from * pixels + first + p;
        for (int64_t c = 0; c < from; ++c, pixel += pixels, at += kPanel) {
          std::memcpy(at, pixel, some * sizeof(float));
          if (some < kPanel) std::memset(at + some, 0, (kPanel - some) * sizeof(float));
        }
      }
      for (int64_t o = 0; o < to; o += kSome)
        for (int64_t p = 0; p < count; p += kPanel)
          panel(std::min(kSome, to - o), from, kernels + o * from, from, packed + p * from, results + (image * to + o) * pixels + first + p, pixels,
                std::min(kPanel, count - p));
    }
  });
  return y;
}

// The gradient [O, C] by w, from that by the results, dy [n, O, h, w].
at::Tensor pointwise_kernels(const at::Tensor& x, const at::Tensor& dy) {
  const int64_t from = x.size(1), to = dy.size(1), pixels = x.size(2) * x.size(3);
  at::Tensor dw = at::zeros({to, from}, x.options());
  const float *images = x.const_data_ptr<float>(), *gradients = dy.const_data_ptr<float>();
  float* result = dw.mutable_data_ptr<float>();
  at::parallel_for(0, ceil_div(from, kTogether), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor space = floats(kTogether * (kDepth + to));
    float *packed = space.mutable_data_ptr<float>(), *sums = packed + kTogether * kDepth;  // [panel][pixel][kPanel], [panel][o][kPanel]
    for (int64_t group = begin; group < end; ++group) {
      const int64_t channel = group * kTogether, count = std::min(kTogether, from - channel);
      std::memset(sums, 0, kTogether * to * sizeof(float));
      for (int64_t image = 0; image < x.size(0); ++image)
        for (int64_t first = 0; first < pixels; first += kDepth) {
          const int64_t depth = std::min(kDepth, pixels - first);
          for (int64_t c = 0; c < filled_panels(count); c += V)  // lanes that are not there become 0
            gather_lanes(images + (image * from + channel + std::min(c, count)) * pixels + first, pixels, std::clamp<int64_t>(count - c, 0, V), depth,
                         packed + c / kPanel * kPanel * kDepth + c % kPanel, kPanel);
          for (int64_t o = 0; o < to; o += kSome)
            for (int64_t c = 0; c < count; c += kPanel)
              multiply<false>(std::min(kSome, to - o), 2, depth, gradients + (image * to + o) * pixels + first, pixels, packed + c * kDepth, kPanel,
                              sums + c * to + o * kPanel, kPanel, true);
        }
      for (int64_t c = 0; c < count; c += kPanel)
        for (int64_t o = 0; o < to; ++o)
          std::memcpy(result + o * from + channel + c, sums + c * to + o * kPanel, std::min(kPanel, count - c) * sizeof(float));
    }
  });
  return dw;
}
