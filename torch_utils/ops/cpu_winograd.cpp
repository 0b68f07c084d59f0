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
//
// With a stride of 2, even pixels meet the kernel's outer taps and odd ones its middle: along an axis F(4, 2) of 5 products, and 4 without any
// transformation; 81 in both, where the definition has 144. The adjoint of that is the transposed convolution, which enlarges.

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "cpu_activation.h"
#include "cpu_kernels.h"
#include "cpu_product.h"

namespace {

constexpr int64_t kGroup = 2 * V;  // output channels that are computed together
constexpr int64_t kOwnFloats = 1 << 17, kSharedFloats = 1 << 21;  // of a block of transformed tiles: for one thread, for all together
constexpr int64_t kKernelsFloats = 1 << 20;  // transformed kernels up to here are kept for all blocks
constexpr int64_t kSumsFloats = 1 << 22;     // of the gradients of transformed kernels
constexpr int64_t kAhead = 6;                // channels whose kernels are fetched before they are needed
constexpr float kA = 0.70710678118654752f, kB = 1.41421356237309505f;  // the points; kA^2 = 1/2, kB^2 = 2

inline Vec fma(Vec a, float b, Vec c) { return at::vec::fmadd(a, Vec(b), c); }
inline Vec times(Vec a, float b) { return a * Vec(b); }

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

// The same with a stride of 2: points 0, 1, -1, -1/2 and infinity for the even pixels; then the odd ones as they are.
struct EvenPoints {  // B' of F(4, 2)
  static void map(const Vec& d0, const Vec& d1, const Vec& d2, const Vec& d3, const Vec& d4, Vec* o) {
    const Vec half = times(d2 - d0, 0.5f);
    o[0] = half + (d3 - d1);
    o[1] = fma(d2, 1.5f, fma(d1, 0.5f, d3));
    o[2] = fma(d1 + d2, -0.5f, d3);
    o[3] = d3 - d1;
    o[4] = fma(d3 - d1, 0.5f, d4 - d2);
  }
  static void back(const Vec* m, Vec* o) {  // A'
    const Vec sum = m[1] + m[2], difference = m[1] - m[2];
    o[0] = m[0] + (sum + m[3]);
    o[1] = fma(m[3], -0.5f, difference);
    o[2] = fma(m[3], 0.25f, sum);
    o[3] = fma(m[3], -0.125f, difference + m[4]);
  }
};

struct StridedToInput {  // 9 pixels
  static constexpr int from = 9, to = 9;
  static void map(const Vec* d, Vec* o) {
    EvenPoints::map(d[0], d[2], d[4], d[6], d[8], o);
    for (int i = 0; i < 4; ++i) o[5 + i] = d[2 * i + 1];
  }
};

struct StridedFromProduct {
  static constexpr int from = 9, to = 4;
  static void map(const Vec* m, Vec* o) {
    EvenPoints::back(m, o);
    for (int i = 0; i < 4; ++i) o[i] = o[i] + m[5 + i];
  }
};

struct StridedToProduct {
  static constexpr int from = 4, to = 9;
  static void map(const Vec* y, Vec* o) {
    o[0] = y[0];
    const Vec even = y[0] + y[2], odd = y[1] + y[3];
    o[1] = even + odd;
    o[2] = even - odd;
    o[3] = fma(y[3], -0.125f, fma(y[2], 0.25f, fma(y[1], -0.5f, y[0])));
    o[4] = y[3];
    for (int i = 0; i < 4; ++i) o[5 + i] = y[i];
  }
};

struct StridedToKernel {
  static constexpr int from = 3, to = 6;
  static void map(const Vec* g, Vec* o) {
    o[0] = times(g[0], -2.0f);
    o[1] = times(g[0] + g[2], 1.0f / 3);
    o[2] = g[2] - g[0];
    o[3] = fma(g[2], -4.0f / 3, times(g[0], 8.0f / 3));
    o[4] = g[2];
    o[5] = g[1];
  }
};

struct StridedFromKernel {
  static constexpr int from = 6, to = 3;
  static void map(const Vec* u, Vec* o) {
    const Vec third = times(u[1], 1.0f / 3);
    o[0] = fma(u[0], -2.0f, fma(u[3], 8.0f / 3, third - u[2]));
    o[1] = u[5];
    o[2] = fma(u[3], -4.0f / 3, third + (u[2] + u[4]));
  }
};

struct TransposedToInput {  // a small image's pixels: the one before, and the 4 of the tile
  static constexpr int from = 5, to = 9;
  static void map(const Vec* d, Vec* o) {
    EvenPoints::map(d[0], d[1], d[2], d[3], d[4], o);
    for (int i = 0; i < 4; ++i) o[5 + i] = d[1 + i];
  }
};

struct TransposedFromProduct {  // 8 pixels
  static constexpr int from = 9, to = 8;
  static void map(const Vec* m, Vec* o) {
    Vec even[4];
    EvenPoints::back(m, even);
    for (int i = 0; i < 4; ++i) {
      o[2 * i] = even[i];
      o[2 * i + 1] = m[5 + i];
    }
  }
};

constexpr int64_t kUnique = 36;  // transformed taps of a kernel
constexpr std::array<int64_t, 5> kRim{6, 7, 8, 2, 5};  // taps that reach the last row, and the last column, of an enlarged image

// Ways to convolve: products along an axis, of which all from the 6th on have the kernel of the 6th; pixels from a tile to the next.
struct Plain {
  using Input = ToInput;
  using Output = FromProduct;
  using Gradient = ToProduct;
  using Kernel = ToKernel;
  using BackToKernel = FromKernel;
  static constexpr int64_t axis = 6, in = 4, out = 4, segment = 16;  // segment: tiles of a row that are transformed together
};

struct Strided {
  using Input = StridedToInput;
  using Output = StridedFromProduct;
  using Gradient = StridedToProduct;
  using Kernel = StridedToKernel;
  using BackToKernel = StridedFromKernel;
  static constexpr int64_t axis = 9, in = 8, out = 4, segment = 8;
};

struct Transposed {
  using Input = TransposedToInput;
  using Output = TransposedFromProduct;
  using Kernel = StridedToKernel;
  static constexpr int64_t axis = 9, in = 4, out = 8, segment = 8;
};

template <typename Way>
constexpr int64_t points() {
  return Way::axis * Way::axis;
}

template <typename Way>
constexpr int64_t kernel_of(int64_t point) {
  return std::min<int64_t>(point / Way::axis, 5) * 6 + std::min<int64_t>(point % Way::axis, 5);
}

// Map along both axes: reads vectors at in + row * row_step + column * V, times `scale` if kScaled, writes them at
// out + (row * Map::to + column) * step (column-step apart).
template <typename Map, bool kScaled = false>
inline void along_both(const float* in, int64_t row_step, int64_t column_step, float* out, int64_t out_row, int64_t out_column,
                       const Vec& scale = Vec(1.0f)) {
  Vec half[Map::to][Map::from];
  for (int j = 0; j < Map::from; ++j) {
    Vec d[Map::from], o[Map::to];
    for (int i = 0; i < Map::from; ++i) {
      d[i] = Vec::loadu(in + i * row_step + j * column_step);
      if (kScaled) d[i] = d[i] * scale;
    }
    Map::map(d, o);
    for (int i = 0; i < Map::to; ++i) half[i][j] = o[i];
  }
  for (int i = 0; i < Map::to; ++i) {
    Vec o[Map::to];
    Map::map(half[i], o);
    for (int j = 0; j < Map::to; ++j) o[j].store(out + i * out_row + j * out_column);
  }
}

// Dense images: planes apart, or the channels of a pixel side by side.
template <typename T>
struct Images {
  T* data;
  int64_t n, channels, height, width;
  bool pixels;
  const float* scale = nullptr;  // [n][channels], that images are to be multiplied with, or none

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

// How a batch is cut into tiles, counted through.
struct Tiles {
  int64_t down, across, count, pad_y, pad_x;

  Tiles(int64_t n, int64_t down, int64_t across, int64_t pad_y, int64_t pad_x)
      : down(down), across(across), count(n * down * across), pad_y(pad_y), pad_x(pad_x) {}

  // op(first tile counted from `begin`, number, image, row, column of tiles) for pieces of rows of tiles, at most `longest`.
  template <typename Op>
  void segments(int64_t begin, int64_t end, int64_t longest, const Op& op) const {
    for (int64_t t = begin; t < end;) {
      const int64_t column = t % across, row = t / across % down, image = t / across / down;
      const int64_t some = std::min({longest, across - column, end - t});
      op(t - begin, some, image, row, column);
      t += some;
    }
  }
};

// A block of transformed tiles: [point][tile][channel], channels filled up to whole vectors.
struct Block {
  float* data;
  int64_t tiles, step;  // step: floats from a tile to the next
  int64_t point() const { return odd(tiles * step); }
};

int64_t step_of(int64_t channels) { return filled(channels) + (filled(channels) % 256 == 0 ? V : 0); }

// Transforms V channels of tiles [begin, end); windows of x lie `in` pixels apart, the first pads before the image.
template <typename Map, int64_t in, int64_t segment>
void transform(const Images<const float>& x, const Tiles& tiles, int64_t pad_y, int64_t pad_x, int64_t begin, int64_t end, int64_t channel,
               const Block& block) {
  alignas(64) float window[Map::from * (in * (segment - 1) + Map::from) * V];
  tiles.segments(begin, end, segment, [&](int64_t first, int64_t some, int64_t image, int64_t row, int64_t column) {
    const int64_t columns = in * (some - 1) + Map::from;
    read_window(x, image, channel, in * row - pad_y, in * column - pad_x, Map::from, columns, window);
    float* to = block.data + first * block.step + channel;
    if (!x.scale) {
      for (int64_t t = 0; t < some; ++t)
        along_both<Map>(window + in * t * V, columns * V, V, to + t * block.step, Map::to * block.point(), block.point());
      return;
    }
    const Vec scale = some_of(x.scale + image * x.channels + channel, x.channels - channel);
    for (int64_t t = 0; t < some; ++t)
      along_both<Map, true>(window + in * t * V, columns * V, V, to + t * block.step, Map::to * block.point(), block.point(), scale);
  });
}

// The kernels w[o][c][3][3], whatever the order of o and c in memory; turned by half for an adjoint.
struct Kernels {
  const float* data;
  int64_t from, to, from_step, to_step;
  bool turned;
};

// What demodulates results: energies[c][o], the sums of the squares of a kernel's taps; norms[image][o] = 1 / sqrt(sum over c of styles^2 energies).
struct Demodulation {
  float *energies = nullptr, *norms = nullptr;  // o filled up to whole vectors
  const float* styles = nullptr;                // [n][c]
  int64_t n = 0, from = 0, to = 0;

  void norms_of(int64_t o) const {
    for (int64_t image = 0; image < n; ++image) {
      Vec sum(1e-8f);
      for (int64_t c = 0; c < from; ++c) {
        const float style = styles[image * from + c];
        sum = fma(Vec::loadu(energies + c * to + o), style * style, sum);
      }
      (Vec(1.0f) / sum.sqrt()).store(norms + image * to + o);
    }
  }
};

// Transformed kernels of V output channels: to[point][c][.], `step` floats from a c to the next; behind them, if `rim`, the taps of kRim as they are.
template <typename Map>
void transform_kernels(const Kernels& w, int64_t o, float* to, int64_t step, const Demodulation& demodulation, bool rim) {
  alignas(64) float taps[9 * V * V], turned[9 * V];
  const int64_t lanes = std::min(V, w.to - o), point = odd(w.from * step);
  for (int64_t c = 0; c < w.from; c += V) {
    const int64_t some = std::min(V, w.from - c);
    const float* from = w.data + o * w.to_step + c * w.from_step;
    if (w.from_step == 9) gather_lanes(from, w.to_step, lanes, some * 9, taps);
    for (int64_t i = 0; i < some; ++i, from += w.from_step) {
      float* one = taps + i * 9 * V;
      if (w.from_step != 9) {
        for (int64_t k = 0; k < lanes * 9; k += 16) __builtin_prefetch(from + kAhead * w.from_step + k);  // each c lies far from the last
        gather_lanes(from, w.to_step, lanes, 9, one);
      }
      if (demodulation.energies) {
        Vec sum(0.0f);
        for (int64_t k = 0; k < 9; ++k) sum = at::vec::fmadd(Vec::loadu(one + k * V), Vec::loadu(one + k * V), sum);
        sum.store(demodulation.energies + (c + i) * demodulation.to + o);
      }
      if (rim)
        for (size_t k = 0; k < kRim.size(); ++k) Vec::loadu(one + kRim[k] * V).store(to + (kUnique + k) * point + (c + i) * step);
      if (w.turned) {
        for (int64_t k = 0; k < 9; ++k) Vec::loadu(one + (8 - k) * V).store(turned + k * V);
        one = turned;
      }
      along_both<Map>(one, 3 * V, V, to + (c + i) * step, 6 * point, point);
    }
  }
  if (demodulation.energies) demodulation.norms_of(o);
}

// What is done with results before they are written, if anything: y = clamp(gain lrelu(norm y + noise + bias)).
struct Finish {
  const float *noise = nullptr, *bias = nullptr;
  int64_t noise_step = 0;  // floats from an image's noise to the next one's
  Shape<float> shape;
  bool activates = false;

  // Channels [channel, channel + V) of a window of results.
  void operator()(float* window, int64_t columns, const Images<float>& y, const Demodulation& by, int64_t image, int64_t channel, int64_t top,
                  int64_t left, int64_t rows) const {
    if (!by.norms && !activates) return;
    const Vec norm = by.norms ? Vec::loadu(by.norms + image * by.to + channel) : Vec(1.0f);
    const Vec add = bias ? some_of(bias + channel, y.channels - channel) : Vec(0.0f);
    const int64_t down = std::min(rows, y.height - top), across = std::min(columns, y.width - left);
    for (int64_t r = 0; r < down; ++r) {
      float* at = window + r * columns * V;
      const float* grain = noise ? noise + image * noise_step + (top + r) * y.width + left : nullptr;
      for (int64_t i = 0; i < across; ++i, at += V) {
        const Vec value = at::vec::fmadd(Vec::loadu(at), norm, grain ? add + Vec(grain[i]) : add);
        (activates ? shape.bent(times(value, shape.gain)) : value).store(at);
      }
    }
  }
};

// One convolution. The results of kGroup channels are computed at a time: kernels, products, back.
template <typename Way>
struct Convolution {
  Images<const float> x;
  Images<float> y;
  Kernels w;
  Tiles tiles;
  Demodulation demodulation;
  Finish finish;

  static constexpr int64_t all = points<Way>();
  int64_t groups() const { return ceil_div(y.channels, kGroup); }
  int64_t width(int64_t group) const { return std::min(kGroup, filled(y.channels) - group * kGroup); }
  int64_t kernels_floats() const { return (kUnique + (rim() ? kRim.size() : 0)) * odd(w.from * kGroup); }  // of one group

  // Whether tiles end one pixel short of an enlarged image, whose sides are odd: its last row and column are made without them.
  bool rim() const { return Way::out == 8 && tiles.down * Way::out < y.height; }

  void kernels(int64_t group, float* to) const {
    for (int64_t v = 0; v < width(group); v += V) transform_kernels<typename Way::Kernel>(w, group * kGroup + v, to + v, width(group), demodulation, rim());
  }

  void fill(int64_t begin, int64_t end, int64_t channel, const Block& block) const {
    transform<typename Way::Input, Way::in, Way::segment>(x, tiles, tiles.pad_y, tiles.pad_x, begin, end, channel, block);
  }

  // Tiles [begin, end) of a group of channels.
  void results(const Block& block, int64_t begin, int64_t end, int64_t group, const float* kernels, float* products) const {
    const int64_t some = end - begin, wide = width(group), point = odd(some * wide);
    for (int64_t p = 0; p < all; ++p)
      multiply<false>(some, wide / V, w.from, block.data + p * block.point(), block.step, kernels + kernel_of<Way>(p) * odd(w.from * wide), wide,
                      products + p * point, wide, false);
    alignas(64) float window[Way::out * Way::out * Way::segment * V];
    for (int64_t v = 0; v < wide; v += V)
      tiles.segments(begin, end, Way::segment, [&](int64_t first, int64_t number, int64_t image, int64_t row, int64_t column) {
        for (int64_t t = 0; t < number; ++t)
          along_both<typename Way::Output>(products + (first + t) * wide + v, Way::axis * point, point, window + Way::out * t * V,
                                           Way::out * number * V, V);
        finish(window, Way::out * number, y, demodulation, image, group * kGroup + v, Way::out * row, Way::out * column, Way::out);
        write_window(window, Way::out * number, y, image, group * kGroup + v, Way::out * row, Way::out * column, Way::out);
      });
  }

  // The pixels that rim() makes: [image][those of the last row, then of the last column][channel], multiplied with the scale.
  at::Tensor rim_pixels() const {
    const int64_t around = x.width + x.height;
    at::Tensor pixels = floats(x.n * around * x.channels);
    float* to = pixels.mutable_data_ptr<float>();
    for (int64_t image = 0; image < x.n; ++image)
      for (int64_t i = 0; i < around; ++i, to += x.channels)
        for (int64_t c = 0; c < x.channels; ++c) {
          const float pixel = i < x.width ? *x.at(image, c, x.height - 1, i) : *x.at(image, c, i - x.width, x.width - 1);
          to[c] = x.scale ? pixel * x.scale[image * x.channels + c] : pixel;
        }
    return pixels;
  }

  // The last row and column of a group of channels, of the pixels and of the kernels that transform_kernels left for them.
  void rim_results(int64_t group, const float* kernels, const float* pixels) const {
    const int64_t wide = width(group), point = odd(w.from * wide), longest = std::max(x.width, x.height);
    const at::Tensor space = floats(3 * longest * wide + (2 * longest + 1) * V);
    float *products = space.mutable_data_ptr<float>(), *line = products + 3 * longest * wide;
    for (int64_t image = 0; image < x.n; ++image)
      for (int64_t side = 0; side < 2; ++side) {  // the last row; the last column but for the corner, which the row has
        const int64_t count = side == 0 ? x.width : x.height, length = 2 * count + (side == 0);
        const float* from = pixels + (image * (x.width + x.height) + side * x.width) * x.channels;
        for (int64_t k = 0; k < 3; ++k) {
          const int64_t tap = side == 0 || k == 2 ? k : 3 + k;  // the corner's is the third of both
          multiply<false>(count, wide / V, w.from, from, x.channels, kernels + (kUnique + tap) * point, wide, products + k * count * wide, wide, false);
        }
        for (int64_t v = 0; v < wide; v += V) {
          const Vec norm = demodulation.norms ? Vec::loadu(demodulation.norms + image * demodulation.to + group * kGroup + v) : Vec(1.0f);
          for (int64_t i = 0; i < length; ++i) {
            const auto product = [&](int64_t k, int64_t at) { return at < 0 || at >= count ? Vec(0.0f) : Vec::loadu(products + (k * count + at) * wide + v); };
            const Vec value = i % 2 ? product(1, i / 2) : product(0, i / 2) + product(2, i / 2 - 1);
            (value * norm).store(line + i * V);
          }
          const int64_t channel = group * kGroup + v;
          side == 0 ? write_window(line, length, y, image, channel, y.height - 1, 0, 1) : write_window(line, 1, y, image, channel, 0, y.width - 1, length);
        }
      }
  }

  // Few channels: all kernels are transformed once, and each thread takes blocks of tiles through all steps.
  void by_tiles() const {
    const int64_t step = step_of(w.from), size = std::clamp<int64_t>(kOwnFloats / (all * step) / kRows, 2, 16) * kRows;
    const at::Tensor kept = floats(groups() * kernels_floats());
    float* u = kept.mutable_data_ptr<float>();
    const at::Tensor pixels = rim() ? rim_pixels() : at::Tensor();
    at::parallel_for(0, groups(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        kernels(g, u + g * kernels_floats());
        if (rim()) rim_results(g, u + g * kernels_floats(), pixels.const_data_ptr<float>());
      }
    });
    const int64_t blocks = ceil_div(tiles.count, size);
    at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
      const at::Tensor space = floats(all * (odd(size * step) + odd(size * kGroup)));
      for (int64_t b = from; b < to; ++b) {
        const int64_t begin = tiles.count * b / blocks, end = tiles.count * (b + 1) / blocks;
        const Block block{space.mutable_data_ptr<float>(), end - begin, step};
        for (int64_t c = 0; c < w.from; c += V) fill(begin, end, c, block);
        for (int64_t g = 0; g < groups(); ++g) results(block, begin, end, g, u + g * kernels_floats(), block.data + all * odd(size * step));
      }
    });
  }

  // Many channels: a block of tiles is transformed by all threads, then each takes groups of channels. Kernels are transformed anew for each block.
  void by_channels() const {
    const int64_t step = step_of(w.from), size = std::max<int64_t>(kSharedFloats / (all * step) / kRows, 2) * kRows;
    const int64_t blocks = ceil_div(tiles.count, size), most = ceil_div(tiles.count, blocks);
    const at::Tensor space = floats(all * odd(most * step)), pixels = rim() ? rim_pixels() : at::Tensor();
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = tiles.count * b / blocks, end = tiles.count * (b + 1) / blocks;
      const Block block{space.mutable_data_ptr<float>(), end - begin, step};
      at::parallel_for(0, ceil_div(w.from, V), 1, [&](int64_t from, int64_t to) {
        for (int64_t v = from; v < to; ++v) fill(begin, end, v * V, block);
      });
      at::parallel_for(0, groups(), 1, [&](int64_t from, int64_t to) {
        const at::Tensor own = floats(kernels_floats() + all * odd(most * kGroup));
        float* u = own.mutable_data_ptr<float>();
        for (int64_t g = from; g < to; ++g) {
          kernels(g, u);
          if (b == 0 && rim()) rim_results(g, u, pixels.const_data_ptr<float>());
          results(block, begin, end, g, u, u + kernels_floats());
        }
      });
    }
  }

  void run() const {
    if (tiles.count == 0) return;
    groups() * kernels_floats() <= kKernelsFloats ? by_tiles() : by_channels();
  }
};

// The gradient by the kernels: products of the tiles of images and of gradients, summed over the tiles.
template <typename Way>
struct KernelGradient {
  Images<const float> x, dy;
  float* dw;
  int64_t from_step, to_step;  // of dw
  Tiles tiles;

  static constexpr int64_t all = points<Way>();

  // Some vectors of output channels at a time, so that the sums do not grow beyond all bounds.
  void run() const {
    const int64_t from = x.channels, vectors = filled(dy.channels) / V;
    const int64_t together = std::clamp<int64_t>(kSumsFloats / (kUnique * from * V), 1, vectors);
    const int64_t step = step_of(from), wide = step_of(dy.channels);
    const int64_t best = kUnique * from * filled(dy.channels) > kKernelsFloats ? 2 * kSharedFloats : 4 * kOwnFloats;  // many sums: few passes over them
    const int64_t blocks = ceil_div(tiles.count, std::max<int64_t>(best / (all * (step + wide)), 32)), most = ceil_div(tiles.count, blocks);
    const at::Tensor space = floats(all * (odd(most * step) + odd(most * wide))), sums = floats(kUnique * odd(from * together * V));
    float *left = space.mutable_data_ptr<float>(), *du = sums.mutable_data_ptr<float>();
    for (int64_t v = 0; v < vectors; v += together) {
      const int64_t some = std::min(together, vectors - v), out = some * V, point = odd(from * out);
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t begin = tiles.count * b / blocks, end = tiles.count * (b + 1) / blocks;
        const Block images{left, end - begin, step}, gradients{left + all * odd(most * step), end - begin, wide};
        if (v == 0 || blocks > 1) fill(begin, end, images, gradients);
        at::parallel_for(0, kUnique, 1, [&](int64_t u, int64_t stop) {
          for (; u < stop; ++u) {
            bool first = b == 0;
            for (int64_t p = 0; p < all; ++p) {
              if (kernel_of<Way>(p) != u) continue;
              multiply<true>(from, some, end - begin, images.data + p * images.point(), step, gradients.data + p * gradients.point() + v * V, wide,
                             du + u * point, out, !first);
              first = false;
            }
          }
        });
      }
      back(v, some, du);
    }
  }

  void fill(int64_t begin, int64_t end, const Block& left, const Block& right) const {
    const int64_t vectors = filled(x.channels) / V;
    at::parallel_for(0, vectors + filled(dy.channels) / V, 1, [&](int64_t i, int64_t stop) {
      for (; i < stop; ++i)
        if (i < vectors)
          transform<typename Way::Input, Way::in, Way::segment>(x, tiles, tiles.pad_y, tiles.pad_x, begin, end, i * V, left);
        else
          transform<typename Way::Gradient, Way::out, Way::segment>(dy, tiles, 0, 0, begin, end, (i - vectors) * V, right);
    });
  }

  // Of `some` vectors of output channels from the first on: G' du G, and to dw.
  void back(int64_t first, int64_t some, const float* du) const {
    const int64_t from = x.channels, out = some * V, point = odd(from * out);
    at::parallel_for(0, some, 1, [&](int64_t v, int64_t stop) {
      alignas(64) float taps[9 * V * V];
      for (; v < stop; ++v)
        for (int64_t c = 0, o = (first + v) * V; c < from; c += V) {
          const int64_t number = std::min(V, from - c);
          float* to = dw + o * to_step + c * from_step;
          for (int64_t i = 0; i < number; ++i) {
            along_both<typename Way::BackToKernel>(du + (c + i) * out + v * V, 6 * point, point, taps + i * 9 * V, 3 * V, V);
            if (from_step != 9) scatter_lanes(taps + i * 9 * V, 9, to + i * from_step, to_step, dy.channels - o);
          }
          if (from_step == 9) scatter_lanes(taps, number * 9, to, to_step, dy.channels - o);
        }
    });
  }
};

// Of the image that x becomes: where tiles fit x, the last row and column are left out.
Tiles enlarged_tiles(const Images<const float>& x) {
  const int64_t more = x.height % Transposed::in || x.width % Transposed::in ? 1 : 0;
  return Tiles(x.n, ceil_div(2 * x.height + more, Transposed::out), ceil_div(2 * x.width + more, Transposed::out), 1, 1);
}

template <typename T>
Images<T> images(T* data, const at::Tensor& x) {
  return {data, x.size(0), x.size(1), x.size(2), x.size(3), !x.is_contiguous()};
}

}  // namespace

// See cpu_winograd.py, which has checked the arguments: x [n, C, h, w] dense; w [O, C, 3, 3], whose taps lie side by side, of an adjoint [C, O, 3, 3].
// scale [n, C], x is multiplied with it. If demodulate, results are multiplied with norms [n, O], which come back, as do energies [C, O]. If a bias
// [O] is there, results become clamp(gain lrelu(results + noise + bias)); noise is [1 or n, 1, height, width].
std::tuple<at::Tensor, Maybe, Maybe> winograd(
    const at::Tensor& x, const at::Tensor& w, int64_t pad_y, int64_t pad_x, int64_t stride, bool adjoint, const Maybe& scale,
    bool demodulate, const Maybe& noise, const Maybe& bias, double gain, double slope, double clamp) {
  TORCH_CHECK(!bias || stride == 1, "an enlarged image is finished after its filter");
  TORCH_CHECK(!demodulate || scale, "norms are of scales");
  const int from = adjoint ? 0 : 1, to = 1 - from;
  const Kernels kernels{w.const_data_ptr<float>(), w.size(from), w.size(to), w.stride(from), w.stride(to), adjoint};
  const auto side = [&](int64_t size, int64_t pad) { return stride == 1 ? size + 2 * pad - 2 : adjoint ? 2 * size + 1 : (size + 2 * pad - 1) / 2; };
  const bool pixels = !x.is_contiguous();
  at::Tensor y = at::empty({x.size(0), kernels.to, side(x.size(2), pad_y), side(x.size(3), pad_x)}, x.options(),
                           pixels ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  Images<const float> in = images(x.const_data_ptr<float>(), x);
  if (scale) in.scale = scale->const_data_ptr<float>();
  const Images<float> out{y.mutable_data_ptr<float>(), y.size(0), y.size(1), y.size(2), y.size(3), pixels};
  Maybe energies, norms;
  Demodulation demodulation;
  if (demodulate) {
    energies = at::empty({kernels.from, filled(kernels.to)}, x.options());
    norms = at::empty({x.size(0), filled(kernels.to)}, x.options());
    demodulation = {energies->mutable_data_ptr<float>(), norms->mutable_data_ptr<float>(), in.scale, x.size(0), kernels.from, filled(kernels.to)};
  }
  Finish finish;
  if (bias)
    finish = {noise ? noise->const_data_ptr<float>() : nullptr, bias->const_data_ptr<float>(), noise && noise->size(0) > 1 ? out.height * out.width : 0,
              {static_cast<float>(gain), static_cast<float>(slope), static_cast<float>(clamp)}, true};
  const auto tiles = [&](int64_t size, int64_t pad_y, int64_t pad_x) {
    return Tiles(out.n, ceil_div(out.height, size), ceil_div(out.width, size), pad_y, pad_x);
  };
  if (stride == 1)
    Convolution<Plain>{in, out, kernels, tiles(Plain::out, pad_y, pad_x), demodulation, finish}.run();
  else if (adjoint)
    Convolution<Transposed>{in, out, kernels, enlarged_tiles(in), demodulation, finish}.run();
  else
    Convolution<Strided>{in, out, kernels, tiles(Strided::out, pad_y, pad_x), demodulation, finish}.run();
  if (demodulate) {
    energies = energies->narrow(1, 0, kernels.to);
    norms = norms->narrow(1, 0, kernels.to).contiguous();
  }
  return {y, norms, energies};
}

// The gradient by the kernels [O, C, 3, 3] from that by the results, dy; o next to o in memory if `swapped`. x and dy are multiplied with x_scale
// [n, C] and dy_scale [n, O].
at::Tensor winograd_kernels(const at::Tensor& x, const at::Tensor& dy, int64_t pad_y, int64_t pad_x, int64_t stride, bool swapped,
                            const Maybe& x_scale, const Maybe& dy_scale) {
  const int64_t from = x.size(1), to = dy.size(1);
  at::Tensor dw = swapped ? at::zeros({from, to, 3, 3}, x.options()).transpose(0, 1) : at::zeros({to, from, 3, 3}, x.options());
  Images<const float> left = images(x.const_data_ptr<float>(), x), right = images(dy.const_data_ptr<float>(), dy);
  if (x_scale) left.scale = x_scale->const_data_ptr<float>();
  if (dy_scale) right.scale = dy_scale->const_data_ptr<float>();
  float* out = dw.mutable_data_ptr<float>();
  const Tiles tiles(right.n, ceil_div(right.height, 4), ceil_div(right.width, 4), pad_y, pad_x);
  if (tiles.count == 0 || from == 0 || to == 0) return dw;
  if (stride == 1)
    KernelGradient<Plain>{left, right, out, dw.stride(1), dw.stride(0), tiles}.run();
  else
    KernelGradient<Strided>{left, right, out, dw.stride(1), dw.stride(0), tiles}.run();
  return dw;
}
