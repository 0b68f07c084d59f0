// SPDX-License-Identifier: Apache-2.0
// Convolution of images with 3x3 kernels on a CPU: 36 multiplications where the definition has 144, and its gradients likewise.
//
// Source: Lavin & Gray 2015, arXiv 1509.09308: F(4x4, 3x3), section 4; equation 13 for a tile, algorithm 1. An output tile of 4x4 pixels needs 6x6
// of the input: y = A' [(G g G') * (B' d B)] A. The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity in place of 0, +-1, +-2: the largest
// error is a quarter of theirs.
//
// Channels lie side by side in a vector everywhere, whatever the layout of the images, which are transposed when they are read and written. A
// block of tiles goes through all steps while it is in the cache; only images are read from and written to memory. Every sum runs over the input
// channels (of weights' gradients: over the tiles) in their order, so nothing depends on the number of threads.

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace {

using Vec = at::vec::Vectorized<float>;

constexpr int64_t V = Vec::size();
constexpr int64_t kPoints = 36;
constexpr int64_t kGroup = 2 * V;     // output channels that are computed together
constexpr int64_t kSegment = 16;      // tiles of a row that are transformed together
constexpr int kRows = V == 16 ? 14 : 6;  // rows of a product that are kept in registers, two vectors wide
constexpr int64_t kOwnFloats = 1 << 17, kSharedFloats = 1 << 21;  // of a block of transformed tiles: for one thread, for all together
constexpr int64_t kKernelsFloats = 1 << 20;                       // transformed kernels up to here are kept for all blocks
constexpr float kA = 0.70710678118654752f, kB = 1.41421356237309505f;  // the points; kA^2 = 1/2, kB^2 = 2

inline Vec fma(Vec a, float b, Vec c) { return at::vec::fmadd(a, Vec(b), c); }
inline Vec times(Vec a, float b) { return a * Vec(b); }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The four maps along one axis. in and out are vectors `step` apart.
struct ToInput {  // B', 6 -> 6
  static constexpr int from = 6, to = 6;
  static void map(const Vec* d, Vec* o) {
    o[0] = fma(d[2], -2.5f, d[0] + d[4]);
    const Vec e1 = fma(d[2], -2.0f, d[4]), f1 = fma(d[1], -kB, times(d[3], kA));
    o[1] = e1 + f1;
    o[2] = e1 - f1;
    const Vec e2 = fma(d[2], -0.5f, d[4]), f2 = fma(d[1], -kA, times(d[3], kB));
    o[3] = e2 + f2;
    o[4] = e2 - f2;
    o[5] = fma(d[3], -2.5f, d[1] + d[5]);
  }
};

struct FromProduct {  // A', 6 -> 4
  static constexpr int from = 6, to = 4;
  static void map(const Vec* m, Vec* o) {
    const Vec s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    o[0] = m[0] + (s1 + s2);
    o[1] = fma(d2, kB, times(d1, kA));
    o[2] = fma(s2, 2.0f, times(s1, 0.5f));
    o[3] = fma(d2, 2.0f * kB, fma(d1, 0.5f * kA, m[5]));
  }
};

struct ToProduct {  // A, 4 -> 6
  static constexpr int from = 4, to = 6;
  static void map(const Vec* y, Vec* o) {
    o[0] = y[0];
    const Vec e1 = fma(y[2], 0.5f, y[0]), f1 = fma(y[3], 0.5f * kA, times(y[1], kA));
    o[1] = e1 + f1;
    o[2] = e1 - f1;
    const Vec e2 = fma(y[2], 2.0f, y[0]), f2 = fma(y[3], 2.0f * kB, times(y[1], kB));
    o[3] = e2 + f2;
    o[4] = e2 - f2;
    o[5] = y[3];
  }
};

struct ToKernel {  // G, 3 -> 6
  static constexpr int from = 3, to = 6;
  static void map(const Vec* g, Vec* o) {
    o[0] = g[0];
    const Vec e1 = fma(g[2], -1.0f / 3, times(g[0], -2.0f / 3)), f1 = times(g[1], -2.0f / 3 * kA);
    o[1] = e1 + f1;
    o[2] = e1 - f1;
    const Vec e2 = fma(g[2], 1.0f / 3, times(g[0], 1.0f / 6)), f2 = times(g[1], 1.0f / 6 * kB);
    o[3] = e2 + f2;
    o[4] = e2 - f2;
    o[5] = g[2];
  }
};

struct FromKernel {  // G', 6 -> 3
  static constexpr int from = 6, to = 3;
  static void map(const Vec* u, Vec* o) {
    const Vec s1 = u[1] + u[2], d1 = u[1] - u[2], s2 = u[3] + u[4], d2 = u[3] - u[4];
    o[0] = fma(s1, -2.0f / 3, fma(s2, 1.0f / 6, u[0]));
    o[1] = fma(d1, -2.0f / 3 * kA, times(d2, 1.0f / 6 * kB));
    o[2] = fma(s1, -1.0f / 3, fma(s2, 1.0f / 3, u[5]));
  }
};

// Map along both axes: reads vectors at in + row * row_step + column * V, writes them at out + (row * Map::to + column) * step (column-step apart).
template <typename Map>
inline void along_both(const float* in, int64_t row_step, int64_t column_step, float* out, int64_t out_row, int64_t out_column) {
  Vec half[Map::to][Map::from];
  for (int j = 0; j < Map::from; ++j) {
    Vec d[Map::from], o[Map::to];
    for (int i = 0; i < Map::from; ++i) d[i] = Vec::loadu(in + i * row_step + j * column_step);
    Map::map(d, o);
    for (int i = 0; i < Map::to; ++i) half[i][j] = o[i];
  }
  for (int i = 0; i < Map::to; ++i) {
    Vec o[Map::to];
    Map::map(half[i], o);
    for (int j = 0; j < Map::to; ++j) o[j].store(out + i * out_row + j * out_column);
  }
}

// rows[i][j] -> rows[j][i]: log2(V) times, row i and row i + V / 2 are interleaved.
inline void transpose(Vec* rows) {
  Vec other[V];
  Vec *from = rows, *to = other;
  for (int64_t done = 1; done < V; done *= 2, std::swap(from, to))
    for (int64_t i = 0; i < V / 2; ++i) std::tie(to[2 * i], to[2 * i + 1]) = at::vec::interleave2(from[i], from[i + V / 2]);
  if (from != rows) std::copy(from, from + V, rows);
}

// to[i * V + lane] = from[lane * stride + i]; lanes that are not there become 0.
inline void gather_lanes(const float* from, int64_t stride, int64_t lanes, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += V) {
    Vec rows[V];
    const int64_t some = std::min(V, count - i);
    for (int64_t l = 0; l < V; ++l)
      rows[l] = l >= lanes ? Vec(0.0f) : some == V ? Vec::loadu(from + l * stride + i) : Vec::loadu(from + l * stride + i, some);
    transpose(rows);
    for (int64_t j = 0; j < some; ++j) rows[j].store(to + (i + j) * V);
  }
}

// The other way round.
inline void scatter_lanes(const float* from, int64_t count, float* to, int64_t stride, int64_t lanes) {
  for (int64_t i = 0; i < count; i += V) {
    Vec rows[V];
    const int64_t some = std::min(V, count - i);
    for (int64_t j = 0; j < V; ++j) rows[j] = j < some ? Vec::loadu(from + (i + j) * V) : Vec(0.0f);
    transpose(rows);
    for (int64_t l = 0; l < std::min(lanes, V); ++l) some == V ? rows[l].store(to + l * stride + i) : rows[l].store(to + l * stride + i, some);
  }
}

// Dense images: planes apart, or the channels of a pixel side by side.
template <typename T>
struct Images {
  T* data;
  int64_t n, channels, height, width;
  bool pixels;

  T* at(int64_t image, int64_t channel, int64_t y, int64_t x) const {
    return pixels ? data + ((image * height + y) * width + x) * channels + channel : data + ((image * channels + channel) * height + y) * width + x;
  }
};

// Channels [channel, channel + V) of a window, as [rows][columns][V]; zeros where there is no image.
inline void read_window(const Images<const float>& x, int64_t image, int64_t channel, int64_t top, int64_t left, int64_t rows, int64_t columns,
                        float* to) {
  const int64_t lanes = std::min(V, x.channels - channel), begin = std::max<int64_t>(left, 0), end = std::min(left + columns, x.width);
  for (int64_t r = 0; r < rows; ++r, to += columns * V) {
    const int64_t y = top + r;
    if (y < 0 || y >= x.height || begin >= end) {
      std::memset(to, 0, columns * V * sizeof(float));
      continue;
    }
    if (begin > left) std::memset(to, 0, (begin - left) * V * sizeof(float));
    if (end < left + columns) std::memset(to + (end - left) * V, 0, (left + columns - end) * V * sizeof(float));
    const float* from = x.at(image, channel, y, begin);
    float* place = to + (begin - left) * V;
    if (!x.pixels)
      gather_lanes(from, x.height * x.width, lanes, end - begin, place);
    else if (lanes == V)
      for (int64_t i = begin; i < end; ++i, from += x.channels, place += V) Vec::loadu(from).store(place);
    else
      for (int64_t i = begin; i < end; ++i, from += x.channels, place += V) Vec::loadu(from, lanes).store(place);
  }
}

// The other way round; what lies outside of the images is dropped.
inline void write_window(const float* from, int64_t columns, const Images<float>& y, int64_t image, int64_t channel, int64_t top, int64_t left,
                         int64_t rows) {
  const int64_t lanes = std::min(V, y.channels - channel), count = std::min(columns, y.width - left);
  for (int64_t r = 0; r < std::min(rows, y.height - top); ++r) {
    const float* line = from + r * columns * V;
    float* to = y.at(image, channel, top + r, left);
    if (!y.pixels)
      scatter_lanes(line, count, to, y.height * y.width, lanes);
    else
      for (int64_t i = 0; i < count; ++i, to += y.channels, line += V)
        lanes == V ? Vec::loadu(line).store(to) : Vec::loadu(line).store(to, lanes);
  }
}

// c[r][.] (+)= sum over k of a(r, k) * b[k][.], NV vectors wide; a(r, k) is a[r * step + k], or a[k * step + r] if kAcross.
template <int R, int NV, bool kAcross>
void product(int64_t depth, const float* a, int64_t a_step, const float* b, int64_t b_step, float* c, int64_t c_step, bool add) {
  Vec sum[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[r][v] = add ? Vec::loadu(c + r * c_step + v * V) : Vec(0.0f);
  for (int64_t k = 0; k < depth; ++k, b += b_step) {
    Vec row[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) row[v] = Vec::loadu(b + v * V);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec one(kAcross ? a[k * a_step + r] : a[r * a_step + k]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sum[r][v] = at::vec::fmadd(one, row[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[r][v].store(c + r * c_step + v * V);
}

using Product = void (*)(int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t, bool);

template <int NV, bool kAcross, size_t... R>
constexpr std::array<Product, kRows> products_of(std::index_sequence<R...>) {
  return {&product<R + 1, NV, kAcross>...};
}

// [rows][vectors] of c; as few and as equal pieces of rows as possible.
template <bool kAcross>
void multiply(int64_t rows, int64_t vectors, int64_t depth, const float* a, int64_t a_step, const float* b, int64_t b_step, float* c, int64_t c_step,
              bool add) {
  static constexpr auto two = products_of<2, kAcross>(std::make_index_sequence<kRows>());
  static constexpr auto one = products_of<1, kAcross>(std::make_index_sequence<kRows>());
  const int64_t pieces = ceil_div(rows, kRows);
  for (int64_t v = 0; v < vectors; v += 2) {
    const auto& kernels = v + 1 < vectors ? two : one;
    for (int64_t piece = 0, r = 0; piece < pieces; ++piece) {
      const int64_t some = (rows - r) / (pieces - piece);
      kernels[some - 1](depth, kAcross ? a + r : a + r * a_step, a_step, b + v * V, b_step, c + r * c_step + v * V, c_step, add);
      r += some;
    }
  }
}

// How a batch of results is cut into tiles of 4x4 pixels, counted through.
struct Tiles {
  int64_t down, across, count, pad_y, pad_x;

  Tiles(const Images<float>& y, int64_t pad_y, int64_t pad_x)
      : down(ceil_div(y.height, 4)), across(ceil_div(y.width, 4)), count(y.n * down * across), pad_y(pad_y), pad_x(pad_x) {}

  // op(first tile counted from `begin`, number, image, row, column of tiles) for pieces of rows of tiles.
  template <typename Op>
  void segments(int64_t begin, int64_t end, const Op& op) const {
    for (int64_t t = begin; t < end;) {
      const int64_t column = t % across, row = t / across % down, image = t / across / down;
      const int64_t some = std::min({kSegment, across - column, end - t});
      op(t - begin, some, image, row, column);
      t += some;
    }
  }
};

// A block of transformed tiles: [point][tile][channel], channels filled up to whole vectors.
struct Block {
  float* data;
  int64_t tiles, step;  // step: floats from a tile to the next
  int64_t point() const { return tiles * step; }
};

int64_t filled(int64_t channels) { return ceil_div(channels, V) * V; }
int64_t step_of(int64_t channels) { return filled(channels) + (filled(channels) % 256 == 0 ? V : 0); }  // no power of two: it would thrash the cache

// Transforms V channels of tiles [begin, end): windows of 6x6 of x by B', or of 4x4 of a gradient by A.
template <typename Map>
void transform(const Images<const float>& x, const Tiles& tiles, int64_t begin, int64_t end, int64_t channel, const Block& block) {
  alignas(64) float window[Map::from * (4 * kSegment + 2) * V];
  const bool input = Map::from == 6;
  tiles.segments(begin, end, [&](int64_t first, int64_t some, int64_t image, int64_t row, int64_t column) {
    const int64_t columns = 4 * some + (input ? 2 : 0);
    read_window(x, image, channel, 4 * row - (input ? tiles.pad_y : 0), 4 * column - (input ? tiles.pad_x : 0), Map::from, columns, window);
    for (int64_t t = 0; t < some; ++t)
      along_both<Map>(window + 4 * t * V, columns * V, V, block.data + (first + t) * block.step + channel, Map::to * block.point(), block.point());
  });
}

// The kernels: w[o][c][3][3] forward; of the adjoint w[c][o][3][3], turned by half.
struct Kernels {
  const float* data;
  int64_t from, to;  // channels
  bool adjoint;
};

// Transformed kernels of V output channels: to[point][c][.], `step` floats from a c to the next.
void transform_kernels(const Kernels& w, int64_t o, float* to, int64_t step) {
  alignas(64) float taps[9 * V * V], turned[9 * V];
  const int64_t lanes = std::min(V, w.to - o);
  for (int64_t c = 0; c < w.from; c += V) {
    const int64_t some = std::min(V, w.from - c);
    if (w.adjoint)
      for (int64_t i = 0; i < some; ++i) {
        gather_lanes(w.data + ((c + i) * w.to + o) * 9, 9, lanes, 9, turned);
        for (int64_t k = 0; k < 9; ++k) Vec::loadu(turned + (8 - k) * V).store(taps + (i * 9 + k) * V);
      }
    else
      gather_lanes(w.data + (o * w.from + c) * 9, w.from * 9, lanes, some * 9, taps);
    for (int64_t i = 0; i < some; ++i)
      along_both<ToKernel>(taps + i * 9 * V, 3 * V, V, to + (c + i) * step, 6 * w.from * step, w.from * step);
  }
}

// One convolution. The results of kGroup channels are computed at a time: filters, 36 products, back.
struct Convolution {
  Images<const float> x;
  Images<float> y;
  Kernels w;
  Tiles tiles;

  int64_t groups() const { return ceil_div(y.channels, kGroup); }
  int64_t width(int64_t group) const { return std::min(kGroup, filled(y.channels) - group * kGroup); }
  int64_t kernels_floats() const { return kPoints * w.from * kGroup; }  // of one group

  void kernels(int64_t group, float* to) const {
    for (int64_t v = 0; v < width(group); v += V) transform_kernels(w, group * kGroup + v, to + v, width(group));
  }

  // Tiles [begin, end) of a group of channels.
  void results(const Block& block, int64_t begin, int64_t end, int64_t group, const float* kernels, float* products) const {
    const int64_t some = end - begin, wide = width(group);
    for (int64_t p = 0; p < kPoints; ++p)
      multiply<false>(some, wide / V, w.from, block.data + p * block.point(), block.step, kernels + p * w.from * wide, wide,
                      products + p * some * wide, wide, false);
    alignas(64) float window[4 * 4 * kSegment * V];
    for (int64_t v = 0; v < wide; v += V)
      tiles.segments(begin, end, [&](int64_t first, int64_t number, int64_t image, int64_t row, int64_t column) {
        for (int64_t t = 0; t < number; ++t)
          along_both<FromProduct>(products + (first + t) * wide + v, 6 * some * wide, some * wide, window + 4 * t * V, 4 * number * V, V);
        write_window(window, 4 * number, y, image, group * kGroup + v, 4 * row, 4 * column, 4);
      });
  }
};

at::Tensor floats(int64_t count) { return at::empty({count}, at::kFloat); }

// Few channels: all kernels are transformed once, and each thread takes blocks of tiles through all steps.
void by_tiles(const Convolution& job) {
  const int64_t step = step_of(job.w.from), size = std::clamp<int64_t>(kOwnFloats / (kPoints * step) / kRows, 2, 16) * kRows;
  const at::Tensor kernels = floats(job.groups() * job.kernels_floats());
  float* u = kernels.mutable_data_ptr<float>();
  at::parallel_for(0, job.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) job.kernels(g, u + g * job.kernels_floats());
  });
  const int64_t blocks = ceil_div(job.tiles.count, size);
  at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
    const at::Tensor space = floats(kPoints * size * (step + kGroup));
    for (int64_t b = from; b < to; ++b) {
      const int64_t begin = job.tiles.count * b / blocks, end = job.tiles.count * (b + 1) / blocks;
      const Block block{space.mutable_data_ptr<float>(), end - begin, step};
      for (int64_t c = 0; c < job.w.from; c += V) transform<ToInput>(job.x, job.tiles, begin, end, c, block);
      for (int64_t g = 0; g < job.groups(); ++g)
        job.results(block, begin, end, g, u + g * job.kernels_floats(), block.data + kPoints * size * step);
    }
  });
}

// Many channels: a block of tiles is transformed by all threads, and then each takes groups of channels. Kernels are transformed again for each block.
void by_channels(const Convolution& job) {
  const int64_t step = step_of(job.w.from), size = std::max<int64_t>(kSharedFloats / (kPoints * step) / kRows, 4) * kRows;
  const int64_t blocks = ceil_div(job.tiles.count, size), most = ceil_div(job.tiles.count, blocks);
  const at::Tensor space = floats(kPoints * most * step);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = job.tiles.count * b / blocks, end = job.tiles.count * (b + 1) / blocks;
    const Block block{space.mutable_data_ptr<float>(), end - begin, step};
    at::parallel_for(0, ceil_div(job.w.from, V), 1, [&](int64_t from, int64_t to) {
      for (int64_t v = from; v < to; ++v) transform<ToInput>(job.x, job.tiles, begin, end, v * V, block);
    });
    at::parallel_for(0, job.groups(), 1, [&](int64_t from, int64_t to) {
      const at::Tensor own = floats(job.kernels_floats() + kPoints * most * kGroup);
      float* u = own.mutable_data_ptr<float>();
      for (int64_t g = from; g < to; ++g) {
        job.kernels(g, u);
        job.results(block, begin, end, g, u, u + job.kernels_floats());
      }
    });
  }
}

template <typename T>
Images<T> images(T* data, const at::Tensor& x) {
  return {data, x.size(0), x.size(1), x.size(2), x.size(3), !x.is_contiguous()};
}

}  // namespace

// See cpu_winograd.py, which has checked the arguments: x [n, C, h, w] dense, w [O, C, 3, 3] without gaps (of the adjoint [C, O, 3, 3]).
at::Tensor winograd(const at::Tensor& x, const at::Tensor& w, int64_t pad_y, int64_t pad_x, bool adjoint) {
  pybind11::gil_scoped_release others_may_run;
  const int64_t to = w.size(adjoint ? 1 : 0);
  at::Tensor y = at::empty({x.size(0), to, x.size(2) + 2 * pad_y - 2, x.size(3) + 2 * pad_x - 2}, x.options(),
                           x.is_contiguous() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast);
  const auto out = images(y.mutable_data_ptr<float>(), y);
  Images<float> results = out;
  results.pixels = !x.is_contiguous();
  const Convolution job{images(x.const_data_ptr<float>(), x), results, {w.const_data_ptr<float>(), x.size(1), to, adjoint}, Tiles(out, pad_y, pad_x)};
  if (job.tiles.count == 0) return y;
  job.groups() * job.kernels_floats() <= kKernelsFloats ? by_tiles(job) : by_channels(job);
  return y;
}

// The gradient by the kernels [O, C, 3, 3] from that by the results, dy [n, O, h + 2 pad_y - 2, ...].
at::Tensor winograd_kernels(const at::Tensor& x, const at::Tensor& dy, int64_t pad_y, int64_t pad_x) {
  pybind11::gil_scoped_release others_may_run;
  const int64_t from = x.size(1), to = dy.size(1), step = step_of(from), wide = step_of(to);
  at::Tensor dw = at::zeros({to, from, 3, 3}, x.options());
  const auto in = images(x.const_data_ptr<float>(), x), gradient = images(dy.const_data_ptr<float>(), dy);
  const Tiles tiles({nullptr, dy.size(0), to, dy.size(2), dy.size(3), false}, pad_y, pad_x);
  if (tiles.count == 0) return dw;
  const int64_t blocks = ceil_div(tiles.count * kPoints * (step + wide), 2 * kSharedFloats), most = ceil_div(tiles.count, blocks);
  const at::Tensor space = floats(kPoints * most * (step + wide)), sums = floats(kPoints * from * filled(to));
  float* du = sums.mutable_data_ptr<float>();
  const int64_t out = filled(to), vectors = filled(from) / V, all = vectors + out / V;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = tiles.count * b / blocks, end = tiles.count * (b + 1) / blocks;
    const Block left{space.mutable_data_ptr<float>(), end - begin, step}, right{left.data + kPoints * most * step, end - begin, wide};
    at::parallel_for(0, all, 1, [&](int64_t i, int64_t stop) {
      for (; i < stop; ++i)
        i < vectors ? transform<ToInput>(in, tiles, begin, end, i * V, left) : transform<ToProduct>(gradient, tiles, begin, end, (i - vectors) * V, right);
    });
    at::parallel_for(0, kPoints, 1, [&](int64_t p, int64_t stop) {
      for (; p < stop; ++p)
        multiply<true>(from, out / V, end - begin, left.data + p * left.point(), step, right.data + p * right.point(), wide, du + p * from * out, out,
                       b > 0);
    });
  }
  float* result = dw.mutable_data_ptr<float>();
  at::parallel_for(0, out / V, 1, [&](int64_t v, int64_t stop) {
    alignas(64) float taps[9 * V * V];
    for (; v < stop; ++v)
      for (int64_t c = 0; c < from; c += V) {
        const int64_t some = std::min(V, from - c);
        for (int64_t i = 0; i < some; ++i)
          along_both<FromKernel>(du + (c + i) * out + v * V, 6 * from * out, from * out, taps + i * 9 * V, 3 * V, V);
        scatter_lanes(taps, some * 9, result + (v * V * from + c) * 9, from * 9, to - v * V);
      }
  });
  return dw;
}
