// SPDX-License-Identifier: Apache-2.0
// filtered_lrelu on a GPU: a block of threads for every tile. What is computed stands in filtered_lrelu.cuh.

#include "filtered_lrelu.cuh"

namespace {

template <typename T, typename S>
__global__ void __launch_bounds__(kThreads) filtered_lrelu_kernel(const Filtered p, const Tiling t, int64_t tiles) {
  extern __shared__ __align__(16) unsigned char shared[];
  for (int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
    const Tile<T, S> tile(p, t, reinterpret_cast<typename Wide<T>::type*>(shared), i);
    const int thread = threadIdx.x, threads = blockDim.x;
    __syncthreads();  // the tile before is done
    tile.load(thread, threads);
    __syncthreads();
    tile.widen_rows(thread, threads);
    __syncthreads();
    tile.bend(thread, threads);
    __syncthreads();
    tile.fold(thread, threads);
    __syncthreads();
    tile.store(thread, threads);
  }
}

template <typename T, typename S>
int sized(const Filtered& p, const Tiling& t, cudaStream_t stream) {
  using A = typename Wide<T>::type;
  const int64_t tiles = t.tiles[0] * t.tiles[1] * p.n * p.channels;
  const unsigned grid = static_cast<unsigned>(tiles < (1 << 20) ? tiles : (1 << 20));
  filtered_lrelu_kernel<T, S><<<grid, kThreads, t.shared * sizeof(A), stream>>>(p, t, tiles);
  return cudaGetLastError();
}

template <typename T>
int launch(const Filtered& p, cudaStream_t stream) {
  const Tiling t = best_tiling<typename Wide<T>::type>(p);
  if (t.shared == 0) return cudaErrorInvalidValue;
  // StyleGAN3's layers, and their gradients
  if (knows<Known<2, 12, 2, 12>>(p)) return sized<T, Known<2, 12, 2, 12>>(p, t, stream);
  if (knows<Known<4, 24, 2, 12>>(p)) return sized<T, Known<4, 24, 2, 12>>(p, t, stream);
  if (knows<Known<2, 12, 4, 24>>(p)) return sized<T, Known<2, 12, 4, 24>>(p, t, stream);
  return sized<T, Unknown>(p, t, stream);
}

// float64 is for tests
template <>
int launch<double>(const Filtered& p, cudaStream_t stream) {
  const Tiling t = best_tiling<double>(p);
  return t.shared == 0 ? static_cast<int>(cudaErrorInvalidValue) : sized<double, Unknown>(p, t, stream);
}

}  // namespace

EXPORTED int stylegan_filtered_lrelu(const Filtered* p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (p->type) {
    case 0: return launch<float>(*p, on);
    case 1: return launch<double>(*p, on);
    case 2: return launch<__half>(*p, on);
    default: return launch<__nv_bfloat16>(*p, on);
  }
}

// Whether a tile fits into what threads share.
EXPORTED int stylegan_filtered_lrelu_fits(const Filtered* p) {
  return (p->type == 1 ? best_tiling<double>(*p) : best_tiling<float>(*p)).shared != 0;
}

EXPORTED const char* stylegan_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

EXPORTED int64_t stylegan_size_of(int64_t which) { return which == 0 ? sizeof(BiasAct) : which == 1 ? sizeof(Upfirdn) : sizeof(Filtered); }
