// SPDX-License-Identifier: Apache-2.0
// What Python hands to the kernels (torch_utils/ops/gpu_launch.py has the same fields in the same order). Eight bytes each, so that no compiler pads.
//
// Pointers are to the memory of tensors; `type` says of what: 0 float32, 1 float64, 2 float16, 3 bfloat16. Taps are float64 for float64, else
// float32. Python has checked all that is relied on here. A launch returns 0 or the error of CUDA.

#pragma once
#include <cstdint>

struct BiasAct {
  const void *x, *b, *r, *h;  // value: r, h unused. gradient: x is that of y. second: x and h are the gradient and its gradient
  void* y;
  int64_t type, n;            // elements, which lie dense and alike in x, r, h and y
  int64_t stride, channels;   // element i has channel i / stride % channels
  int64_t mode;               // 0 value, 1 gradient, 2 gradient of the gradient by x
  int64_t act;                // NVIDIA's cuda_idx
  int64_t from_y;             // r is the result y; else it is x
  double alpha, gain, clamp;  // clamp is infinite for none
};

struct Upfirdn {
  const void *x, *f;  // f [fh, fw], of a correlation
  void* y;
  int64_t type, by_pixel;          // by_pixel: y is channels last
  int64_t n, channels;
  int64_t in[2], out[2];           // sizes; all pairs are (x, y)
  int64_t x_stride[4], y_stride[4];  // of n, C, y, x
  int64_t up[2], down[2], taps[2], pad[2];
  double gain;
};

struct Filtered {
  const void *x, *b, *fu, *fd;  // taps of correlations, [t] or [h, w]
  void *y, *signs;              // signs [n, C, middle y, middle x / 4 rounded up]: 2 bits a sample, 1: negative, 2: clamped
  int64_t type, mode;           // 0: no signs, 1: write, 2: read
  int64_t n, channels;
  int64_t in[2], middle[2], out[2];
  int64_t x_stride[4], y_stride[4];
  int64_t up[2], down[2], up_offset[2], down_offset[2], up_taps[2], down_taps[2];
  int64_t up_separable, down_separable;
  double up_gain, down_gain, slope, clamp;
};

#if defined(_WIN32)
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif
