// SPDX-License-Identifier: Apache-2.0
// What all kernels need. A kernel's body is a plain function of its parameters and an index: a C++ compiler compiles it for a processor too, where the
// tests run it (tests/torch_utils/ops/emulation.cpp).

#pragma once
#include <cstdint>

#include "kernels.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define BODY __host__ __device__ __forceinline__
#define TEXT_OF(x) #x
#define UNROLL _Pragma("unroll")
#define UNROLL_TO(count) _Pragma(TEXT_OF(unroll (count)))
#else
#define BODY inline
#define UNROLL
#define UNROLL_TO(count)
#endif

namespace {

// The type to compute in.
template <typename T>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};

BODY float widen(float value) { return value; }
BODY double widen(double value) { return value; }
template <typename T>
BODY T narrow(typename Wide<T>::type value) {
  return value;
}

#if defined(__CUDACC__)
BODY float widen(__half value) { return __half2float(value); }
BODY float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
template <>
BODY __half narrow<__half>(float value) {
  return __float2half(value);
}
template <>
BODY __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16(value);
}
#endif

// Elements that are loaded and stored as one.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T value[N];
};

template <typename I>
BODY I floor_div(I a, I b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
template <typename I>
BODY I ceil_div(I a, I b) {
  return floor_div<I>(a + b - 1, b);
}
template <typename I>
BODY I modulo(I a, I b) {
  const I rest = a % b;
  return rest < 0 ? rest + b : rest;
}
template <typename I>
BODY I larger(I a, I b) {
  return a > b ? a : b;
}

// What is not a number stays so.
template <typename A>
BODY A limited(A value, A clamp) {
  return value > clamp ? clamp : value < -clamp ? -clamp : value;
}

#if defined(__CUDACC__)
constexpr int kThreads = 256;

// Blocks for n threads, not more than a GPU has use for: every kernel goes on with what is left.
inline unsigned blocks(int64_t n) {
  const int64_t wanted = (n + kThreads - 1) / kThreads;
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted > (1 << 20) ? (1 << 20) : wanted);
}
#endif

}  // namespace
