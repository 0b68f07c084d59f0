// SPDX-License-Identifier: Apache-2.0
// Resampling on a GPU: a thread for every sample of the result, neighbours in memory by neighbouring threads. What is computed stands in upfirdn2d.cuh.

#include "upfirdn2d.cuh"

namespace {

template <typename T, typename I, typename S>
__global__ void __launch_bounds__(kThreads) upfirdn2d_kernel(const Upfirdn p, I items) {
  for (I i = blockIdx.x * static_cast<I>(blockDim.x) + threadIdx.x; i < items; i += static_cast<I>(gridDim.x) * blockDim.x)
    upfirdn2d_item<T, I, S>(p, i);
}

template <typename T, typename I, typename S>
int sized(const Upfirdn& p, cudaStream_t stream) {
  const int64_t items = items_of(p);
  upfirdn2d_kernel<T, I, S><<<blocks(items), kThreads, 0, stream>>>(p, static_cast<I>(items));
  return cudaGetLastError();
}

template <typename T>
int launch(const Upfirdn& p, cudaStream_t stream) {
  if (reach_of(p) >= (int64_t(1) << 30)) return sized<T, int64_t, Free>(p, stream);
  // StyleGAN's filter [1, 3, 3, 1] as its layers and their gradients use it
  if (fits<Fixed<1, 1, 4>>(p)) return sized<T, int32_t, Fixed<1, 1, 4>>(p, stream);
  if (fits<Fixed<2, 1, 4>>(p)) return sized<T, int32_t, Fixed<2, 1, 4>>(p, stream);
  if (fits<Fixed<1, 2, 4>>(p)) return sized<T, int32_t, Fixed<1, 2, 4>>(p, stream);
  return sized<T, int32_t, Free>(p, stream);
}

// float64 is for tests
template <>
int launch<double>(const Upfirdn& p, cudaStream_t stream) {
  return sized<double, int64_t, Free>(p, stream);
}

}  // namespace

EXPORTED int stylegan_upfirdn2d(const Upfirdn* p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (p->type) {
    case 0: return launch<float>(*p, on);
    case 1: return launch<double>(*p, on);
    case 2: return launch<__half>(*p, on);
    default: return launch<__nv_bfloat16>(*p, on);
  }
}
