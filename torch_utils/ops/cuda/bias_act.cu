// SPDX-License-Identifier: Apache-2.0
// Bias, activation, gain and clamp on a GPU: memory is read and written once, 16 bytes at a time. What is computed stands in bias_act.cuh.

#include "bias_act.cuh"

namespace {

template <typename T, typename I, bool BENDS>
__global__ void __launch_bounds__(kThreads) bias_act_kernel(const BiasAct p, int packet, I items) {
  for (I i = blockIdx.x * static_cast<I>(blockDim.x) + threadIdx.x; i < items; i += static_cast<I>(gridDim.x) * blockDim.x)
    bias_act_item<T, I, BENDS>(p, packet, i);
}

template <typename T>
int launch(const BiasAct& p, cudaStream_t stream) {
  const int packet = packet_of<T>(p);
  const int64_t items = (p.n + packet - 1) / packet;
  if (p.act >= kTanh)
    bias_act_kernel<T, int64_t, true><<<blocks(items), kThreads, 0, stream>>>(p, packet, items);
  else if (p.n < (int64_t(1) << 30))  // 32-bit numbers as long as no sum of two of them is too large
    bias_act_kernel<T, int32_t, false><<<blocks(items), kThreads, 0, stream>>>(p, packet, static_cast<int32_t>(items));
  else
    bias_act_kernel<T, int64_t, false><<<blocks(items), kThreads, 0, stream>>>(p, packet, items);
  return cudaGetLastError();
}

}  // namespace

EXPORTED int stylegan_bias_act(const BiasAct* p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (p->type) {
    case 0: return launch<float>(*p, on);
    case 1: return launch<double>(*p, on);
    case 2: return launch<__half>(*p, on);
    default: return launch<__nv_bfloat16>(*p, on);
  }
}
