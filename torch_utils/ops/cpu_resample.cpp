// SPDX-License-Identifier: Apache-2.0
// Resampling with FIR filters on a CPU, with bias, leaky ReLU and clamp in between: y = down(act(up(x + b))), read and written once.
//
// Source: Karras et al. 2021, arXiv 2106.12423: section 3.2 (the order of the steps), appendix D (nothing of the up-sampled image reaches the
// memory but two bits a sample, whether it was negative and whether it was clamped, from which the gradient is had).
//
// As many planes (channels of images) as a vector has lanes are worked on side by side, transposed to [column][lane] when a row is read: then
// every sum over taps is a sum of whole vectors, whatever the factors and the number of taps, and no inserted zero is ever multiplied. Rows flow
// through two rings that stay in the cache: of rows read (and up-sampled along x), and of up-sampled rows (filtered along x). A tile is a strip of
// columns, so that nothing is computed twice but a few columns beside it. No sum depends on the number of threads.

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu_kernels.h"

namespace {

using at::vec::Vectorized;

int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -((-a) / b); }
int64_t floor_div(int64_t a, int64_t b) { return -ceil_div(-a, b); }
int64_t modulo(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

constexpr int64_t kBlock = 16;  // columns of the result that rows are added for at a time

enum Map { kNone = 0, kWrite = 1, kRead = 2 };

// One stage along both axes. Taps are those of a correlation. Sample t of an up-sampling reads the zero-inserted image at t - offset + tap,
// sample o of a down-sampling reads the up-sampled image at o * factor - offset + tap. [0] is x, [1] is y.
template <typename T>
struct Stage {
  std::array<int64_t, 2> factor, offset, size;  // size: number of taps
  bool separable, identity, mirrored;  // mirrored: 2-D taps are the same upside down, as those of a radial filter are
  std::vector<T> taps[2];  // separable: along x, along y; else taps[0] is [size[1]][size[0]]

  Stage(const at::Tensor& f, std::array<int64_t, 2> factor, std::array<int64_t, 2> offset, double gain) : factor(factor), offset(offset) {
    separable = f.dim() == 1;
    size = {f.size(-1), f.size(0)};
    const T* data = f.template const_data_ptr<T>();
    taps[0].assign(data, data + f.numel());
    for (T& tap : taps[0]) tap *= static_cast<T>(gain);
    if (separable) taps[1].assign(data, data + f.numel());
    mirrored = !separable && size[1] > 1;
    for (int64_t i = 0; i < f.numel() && mirrored; ++i) mirrored = data[i] == data[(size[1] - 1 - i / size[0]) * size[0] + i % size[0]];
    identity = f.numel() == 1 && taps[0][0] == 1 && data[0] == 1 && factor[0] == 1 && factor[1] == 1 && offset[0] == 0 && offset[1] == 0;
  }

  // Taps of an up-sampling that meet a sample of the image where the first one is `first`.
  int64_t count(int axis, int64_t first) const { return std::max<int64_t>(ceil_div(size[axis] - first, factor[axis]), 0); }

  // [phase of y][phase of x] -> those taps side by side.
  std::vector<std::vector<T>> phases(bool two_axes, int axis) const {
    std::vector<std::vector<T>> all;
    for (int64_t py = 0; py < (two_axes ? factor[1] : 1); ++py)
      for (int64_t p = 0; p < factor[axis]; ++p) {
        std::vector<T> some;
        if (two_axes)
          for (int64_t j = py; j < size[1]; j += factor[1])
            for (int64_t k = p; k < size[0]; k += factor[0]) some.push_back(taps[0][j * size[0] + k]);
        else
          for (int64_t k = p; k < size[axis]; k += factor[axis]) some.push_back(taps[axis][k]);
        all.push_back(some);
      }
    return all;
  }
};

// out[b * out_step] = sum over j, m of taps[j][m] * rows[j][first + b * step + m], in vectors.
template <typename T, int B>
inline void fir_block(T* out, int64_t out_step, const T* const* rows, int64_t first, int64_t step, const T* taps, int64_t nj, int64_t nm) {
  using Vec = Vectorized<T>;
  constexpr int64_t V = Vec::size();
  Vec sum[B];
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) sum[b] = Vec(T(0));
  for (int64_t j = 0; j < nj; ++j) {
    const T* in = rows[j] + first * V;
    for (int64_t m = 0; m < nm; ++m, in += V) {
      const Vec tap(*taps++);
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b) sum[b] = at::vec::fmadd(Vec::loadu(in + b * step * V), tap, sum[b]);
    }
  }
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) sum[b].store(out + b * out_step * V);
}

template <typename T>
inline void fir(T* out, int64_t out_step, const T* const* rows, int64_t first, int64_t step, const T* taps, int64_t nj, int64_t nm, int64_t n) {
  constexpr int64_t V = Vectorized<T>::size();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) fir_block<T, 8>(out + i * out_step * V, out_step, rows, first + i * step, step, taps, nj, nm);
  if (i + 4 <= n) {
    fir_block<T, 4>(out + i * out_step * V, out_step, rows, first + i * step, step, taps, nj, nm);
    i += 4;
  }
  for (; i < n; ++i) fir_block<T, 1>(out + i * out_step * V, out_step, rows, first + i * step, step, taps, nj, nm);
}

// Rows of a square of vectors become columns: interleaving the upper with the lower half rotates the bits of (row, column) by one.
template <typename T>
inline void transpose(Vectorized<T>* square) {
  constexpr int V = Vectorized<T>::size();
  for (int bit = 1; bit < V; bit *= 2) {
    Vectorized<T> turned[V];
#pragma GCC unroll 16
    for (int i = 0; i < V / 2; ++i) std::tie(turned[2 * i], turned[2 * i + 1]) = at::vec::interleave2(square[i], square[i + V / 2]);
#pragma GCC unroll 16
    for (int i = 0; i < V; ++i) square[i] = turned[i];
  }
}

// Where the planes of a group lie: `start` of each, and how far it is to the next column and row. Lanes beyond the last plane repeat it.
template <typename T>
struct Planes {
  static constexpr int64_t V = Vectorized<T>::size();
  T* start[V];
  int64_t lanes, row, column;
  bool by_pixel;  // the lanes of a pixel lie side by side (channels last); else the columns of a plane

  // Strides from the sizes: those of axes of length 1 may be anything.
  Planes(const at::Tensor& image, int64_t group) : by_pixel(!image.is_contiguous()) {
    T* data = static_cast<T*>(image.data_ptr());
    const int64_t channels = image.size(1), planes = image.size(0) * channels, pixels = image.size(2) * image.size(3);
    lanes = std::min(V, planes - group * V);
    column = by_pixel ? channels : 1, row = image.size(3) * column;
    for (int64_t lane = 0; lane < V; ++lane) {
      const int64_t plane = group * V + std::min(lane, lanes - 1);
      start[lane] = data + (by_pixel ? plane / channels * channels * pixels + plane % channels : plane * pixels);
    }
  }

  // Columns [from, to) of row y as vectors, plus `bias`.
  void read(T* out, int64_t y, int64_t from, int64_t to, Vectorized<T> bias) const {
    using Vec = Vectorized<T>;
    if (by_pixel) {
      for (int64_t x = from; x < to; ++x) (Vec::loadu(start[0] + y * row + x * column) + bias).store(out + (x - from) * V);
      return;
    }
    for (int64_t x = from; x < to; x += V) {
      if (x + V > to && to - from >= V) x = to - V;  // the last square may overlap the one before
      if (x + V > to) {
        T offset[V];
        bias.store(offset);
        for (; x < to; ++x)
          for (int64_t lane = 0; lane < V; ++lane) out[(x - from) * V + lane] = start[lane][y * row + x] + offset[lane];
        return;
      }
      Vec square[V];
#pragma GCC unroll 16
      for (int64_t lane = 0; lane < V; ++lane) square[lane] = Vec::loadu(start[lane] + y * row + x);
      transpose(square);
#pragma GCC unroll 16
      for (int64_t i = 0; i < V; ++i) (square[i] + bias).store(out + (x - from + i) * V);
    }
  }

  void write(const T* in, int64_t y, int64_t from, int64_t to) const {
    using Vec = Vectorized<T>;
    if (by_pixel) {
      for (int64_t x = from; x < to; ++x) Vec::loadu(in + (x - from) * V).store(start[0] + y * row + x * column);
      return;
    }
    for (int64_t x = from; x < to; x += V) {
      if (x + V > to && to - from >= V) x = to - V;
      if (x + V > to) {
        for (; x < to; ++x)
          for (int64_t lane = 0; lane < lanes; ++lane) start[lane][y * row + x] = in[(x - from) * V + lane];
        return;
      }
      Vec square[V];
#pragma GCC unroll 16
      for (int64_t i = 0; i < V; ++i) square[i] = Vec::loadu(in + (x - from + i) * V);
      transpose(square);
      for (int64_t lane = 0; lane < lanes; ++lane) square[lane].store(start[lane] + y * row + x);
    }
  }
};

template <typename T>
struct Activation {
  bool on;
  T slope, clamp;  // clamp is infinite for none
};

template <typename T>
struct Job {
  static constexpr int64_t V = Vectorized<T>::size();
  using Vec = Vectorized<T>;
  at::Tensor x, y;
  std::optional<at::Tensor> bias;
  Stage<T> up, down;
  std::array<int64_t, 2> middle;  // size of the up-sampled image
  Activation<T> act;
  Map mode;
  uint8_t* map;  // [group][middle y][middle x / 4, rounded up][lane]: 2 bits a sample, 1: negative, 2: clamped
  std::vector<std::vector<T>> up_x, up_y;

  Vec bias_of(int64_t group) const {
    T values[V] = {};
    const int64_t channels = x.size(1), planes = x.size(0) * channels;
    if (bias)
      for (int64_t lane = 0; lane < V && group * V + lane < planes; ++lane) values[lane] = bias->const_data_ptr<T>()[(group * V + lane) % channels];
    return Vec::loadu(values);
  }

  // Leaky ReLU and clamp of n vectors (a multiple of 4), or the slopes that the map remembers.
  void activate(T* row, uint8_t* codes, int64_t n) const {
    const Vec zero(T(0)), one(T(1)), two(T(2)), slope(act.slope), high(act.clamp), low(-act.clamp);
    if (mode == kRead) {
      const Vec quarter(T(0.25)), minus_four(T(-4));
      for (int64_t i = 0; i < n; i += 4, codes += V) {
        T bytes[V];
        for (int64_t lane = 0; lane < V; ++lane) bytes[lane] = static_cast<T>(codes[lane]);
        Vec rest = Vec::loadu(bytes);
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
          const Vec above = (rest * quarter).floor(), code = at::vec::fmadd(above, minus_four, rest);
          const Vec factor = Vec::blendv(Vec::blendv(zero, slope, code == one), one, code == zero);
          (Vec::loadu(row + (i + part) * V) * factor).store(row + (i + part) * V);
          rest = above;
        }
      }
      return;
    }
    for (int64_t i = 0; i < n; i += 4) {
      Vec packed(zero);
#pragma GCC unroll 4
      for (int part = 3; part >= 0; --part) {
        T* at = row + (i + part) * V;
        const Vec value = Vec::loadu(at), positive = value > zero;
        const Vec bent = Vec::blendv(value * slope, value, positive);
        at::vec::clamp(bent, low, high).store(at);
        if (mode == kWrite) {
          const Vec code = Vec::blendv(Vec::blendv(one, zero, positive), two, bent.abs() > high);
          packed = at::vec::fmadd(packed, Vec(T(4)), code);
        }
      }
      if (mode == kWrite) {
        T bytes[V];
        packed.store(bytes);
        for (int64_t lane = 0; lane < V; ++lane) codes[lane] = static_cast<uint8_t>(static_cast<int32_t>(bytes[lane]));
        codes += V;
      }
    }
  }
};

// One strip of columns of one group of planes, from row to row.
template <typename T>
class Strip {
  static constexpr int64_t V = Vectorized<T>::size();
  const Job<T>& job;
  int64_t group, from, to;                              // columns of the result
  int64_t middle_from, middle_n, read_from, read_n;     // columns needed of the up-sampled image and of the image
  int64_t ring_read, ring_middle, row_read, row_middle;  // rows in a ring, and their length in vectors
  Planes<T> in, out;
  Vectorized<T> bias;
  std::unique_ptr<T, decltype(&std::free)> memory{nullptr, &std::free};
  T *zeros, *fresh, *sample, *result, *rows_read, *rows_middle, *folded;
  int64_t next_read = 0, next_middle = 0;
  std::vector<const T*> rows, sums;

 public:
  Strip(const Job<T>& job, int64_t group, int64_t from, int64_t to)
      : job(job), group(group), from(from), to(to), in(job.x, group), out(job.y, group), bias(job.bias_of(group)) {
    const auto &up = job.up, &down = job.down;
    // whole bytes of the map
    middle_from = floor_div(from * down.factor[0] - down.offset[0], 4) * 4;
    middle_n = ceil_div((to - 1) * down.factor[0] - down.offset[0] + down.size[0] - middle_from, 4) * 4;
    read_from = ceil_div(middle_from - up.offset[0], up.factor[0]);
    read_n = std::max<int64_t>(floor_div(middle_from + middle_n - 1 + up.size[0] - 1 - up.offset[0], up.factor[0]) + 1 - read_from, 1);
    ring_read = std::max<int64_t>(ceil_div(up.size[1], up.factor[1]), 1);
    ring_middle = down.size[1];
    row_read = up.separable ? middle_n : read_n;
    row_middle = down.separable ? to - from : middle_n;
    const int64_t longest = std::max({middle_n, read_n, to - from});
    const int64_t pairs = down.mirrored ? down.size[1] / 2 * ((kBlock - 1) * down.factor[0] + down.size[0]) : 0;
    const int64_t vectors = 4 * longest + ring_read * row_read + ring_middle * row_middle + pairs;
    memory.reset(static_cast<T*>(std::aligned_alloc(64, (vectors * V * sizeof(T) + 63) / 64 * 64)));
    TORCH_CHECK(memory != nullptr, "no memory for a strip");
    zeros = memory.get(), fresh = zeros + longest * V, sample = fresh + longest * V, result = sample + longest * V;
    rows_read = result + longest * V, rows_middle = rows_read + ring_read * row_read * V;
    folded = rows_middle + ring_middle * row_middle * V;
    std::fill(zeros, zeros + longest * V, T(0));
    rows.resize(std::max(ring_read, ring_middle));
    sums.resize(ring_middle);
  }

  void run(int64_t first, int64_t last) {
    const auto& down = job.down;
    next_middle = first * down.factor[1] - down.offset[1];
    next_read = ceil_div(next_middle - job.up.offset[1], job.up.factor[1]);
    for (int64_t o = first; o < last; ++o) {
      const int64_t top = o * down.factor[1] - down.offset[1];
      for (next_middle = std::max(next_middle, top); next_middle < top + down.size[1]; ++next_middle)
        if (next_middle >= 0 && next_middle < job.middle[1]) compute_middle(next_middle);
      for (int64_t j = 0; j < down.size[1]; ++j)
        rows[j] = top + j < 0 || top + j >= job.middle[1] ? zeros : rows_middle + modulo(top + j, ring_middle) * row_middle * V;
      const int64_t column = from * down.factor[0] - down.offset[0] - middle_from;
      if (down.identity) {
        out.write(rows[0], o, from, to);
        continue;
      }
      if (down.mirrored)
        add_and_filter(column);
      else if (down.separable)
        fir(result, 1, rows.data(), 0, 1, down.taps[1].data(), down.size[1], 1, to - from);
      else
        fir(result, 1, rows.data(), column, down.factor[0], down.taps[0].data(), down.size[1], down.size[0], to - from);
      out.write(result, o, from, to);
    }
  }

 private:
  // Rows that meet the same taps are added first: half the multiplications. A block of columns at a time, so that sums stay in the first-level cache.
  void add_and_filter(int64_t column) {
    const auto& down = job.down;
    const int64_t pairs = down.size[1] / 2;
    for (int64_t i = 0; i < to - from; i += kBlock) {
      const int64_t n = std::min(kBlock, to - from - i), first = (column + i * down.factor[0]) * V;
      const int64_t length = ((n - 1) * down.factor[0] + down.size[0]) * V;
      for (int64_t j = 0; j < pairs; ++j) {
        T* sum = folded + j * length;
        const T *above = rows[j] + first, *below = rows[down.size[1] - 1 - j] + first;
        for (int64_t k = 0; k < length; k += V) (Vectorized<T>::loadu(above + k) + Vectorized<T>::loadu(below + k)).store(sum + k);
        sums[j] = sum;
      }
      if (down.size[1] % 2) sums[pairs] = rows[pairs] + first;
      fir(result + i * V, 1, sums.data(), 0, down.factor[0], down.taps[0].data(), down.size[1] - pairs, down.size[0], n);
    }
  }

  // Row i of the image into its ring, up-sampled along x if the filter is separable.
  void compute_read(int64_t i) {
    const auto& up = job.up;
    T* slot = rows_read + modulo(i, ring_read) * row_read * V;
    T* target = up.separable && !up.identity ? fresh : slot;
    const int64_t left = std::clamp<int64_t>(-read_from, 0, read_n), right = std::clamp<int64_t>(job.x.size(3) - read_from, left, read_n);
    std::fill(target, target + left * V, T(0));
    std::fill(target + right * V, target + read_n * V, T(0));
    in.read(target + left * V, i, read_from + left, read_from + right, bias);
    if (target == slot) return;
    const T* row[1] = {fresh};
    along_x(slot, row, 0, 1);
  }

  // Every phase of x, from n_rows rows.
  void along_x(T* target, const T* const* sources, int64_t phase_y, int64_t n_rows) {
    const auto& up = job.up;
    for (int64_t p = 0; p < std::min(up.factor[0], middle_n); ++p) {
      const int64_t t = middle_from + p, first = modulo(up.offset[0] - t, up.factor[0]);
      const int64_t column = (t + first - up.offset[0]) / up.factor[0] - read_from;
      const auto& taps = job.up_x[(up.separable ? 0 : phase_y * up.factor[0]) + first];
      fir(target + p * V, up.factor[0], sources, column, 1, taps.data(), n_rows, up.count(0, first), ceil_div(middle_n - p, up.factor[0]));
    }
  }

  // Row t of the up-sampled image, activated, into its ring, filtered along x if the filter is separable.
  void compute_middle(int64_t t) {
    const auto &up = job.up, &down = job.down;
    const int64_t first = modulo(up.offset[1] - t, up.factor[1]), top = (t + first - up.offset[1]) / up.factor[1], n = up.count(1, first);
    for (next_read = std::max(next_read, top); next_read < top + n; ++next_read)
      if (next_read >= 0 && next_read < job.x.size(2)) compute_read(next_read);
    for (int64_t j = 0; j < n; ++j)
      rows[j] = top + j < 0 || top + j >= job.x.size(2) ? zeros : rows_read + modulo(top + j, ring_read) * row_read * V;
    T* slot = rows_middle + modulo(t, ring_middle) * row_middle * V;
    T* target = down.separable || down.identity ? sample : slot;
    if (up.identity)
      std::copy(rows[0], rows[0] + middle_n * V, target);
    else if (up.separable)
      fir(target, 1, rows.data(), 0, 1, job.up_y[first].data(), n, 1, middle_n);
    else
      along_x(target, rows.data(), first, n);
    const int64_t left = std::clamp<int64_t>(-middle_from, 0, middle_n);
    const int64_t width = ceil_div(job.middle[0], 4), right = std::clamp<int64_t>(width * 4 - middle_from, left, middle_n);
    uint8_t* codes = job.map == nullptr ? nullptr : job.map + ((group * job.middle[1] + t) * width + (middle_from + left) / 4) * V;
    if (job.act.on) job.activate(target + left * V, codes, right - left);
    const int64_t end = std::clamp<int64_t>(job.middle[0] - middle_from, left, middle_n);
    std::fill(target, target + left * V, T(0));
    std::fill(target + end * V, target + middle_n * V, T(0));
    if (target == slot) return;
    const int64_t column = from * down.factor[0] - down.offset[0] - middle_from;
    if (down.identity) {
      std::copy(sample + column * V, sample + (column + to - from) * V, slot);
      return;
    }
    const T* row[1] = {sample};
    fir(slot, 1, row, column, down.factor[0], down.taps[0].data(), 1, down.size[0], to - from);
  }
};

constexpr int64_t kColumns = 320;  // of the up-sampled image in a strip, and up to twice as many: its rows fit the second-level cache

template <typename T>
void work(const Job<T>& job) {
  constexpr int64_t V = Vectorized<T>::size();
  const int64_t height = job.y.size(2), width = job.y.size(3), groups = ceil_div(job.y.size(0) * job.y.size(1), V);
  if (groups == 0) return;
  const int64_t strips = std::max<int64_t>(width * job.down.factor[0] / kColumns, 1), columns = ceil_div(width, strips);
  // Bands of rows compute some rows twice: only where there are too few planes for the threads.
  const int64_t threads = at::get_num_threads();
  const int64_t bands = threads == 1 || groups * strips >= 4 * threads ? 1 : std::clamp<int64_t>(height / 16, 1, threads);
  const int64_t rows = ceil_div(height, bands);
  at::parallel_for(0, groups * bands * strips, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t strip = task % strips, band = task / strips % bands, group = task / strips / bands;
      const int64_t from = strip * columns, to = std::min(from + columns, width), first = band * rows, last = std::min(first + rows, height);
      if (from < to && first < last) Strip<T>(job, group, from, to).run(first, last);
    }
  });
}

// y [n, C, h, w] of `size`; see resample() of cpu_kernels.py, which has checked the arguments.
template <typename T>
at::Tensor typed(const at::Tensor& x, const Maybe& bias, const at::Tensor& fu, const at::Tensor& fd, Pair up, Pair down,
                 Pair up_offset, Pair down_offset, Pair middle, Pair size, double up_gain, double down_gain,
                 double slope, double clamp, int64_t mode, Maybe map) {
  at::Tensor y = at::empty({x.size(0), x.size(1), size[1], size[0]}, x.options(), x.is_contiguous() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast);
  Job<T> job{x, y, bias, Stage<T>(fu, up, up_offset, up_gain), Stage<T>(fd, down, down_offset, down_gain), middle,
             {slope != 1 || !std::isinf(clamp) || mode != kNone, static_cast<T>(slope), static_cast<T>(clamp)},
             static_cast<Map>(mode), map ? map->mutable_data_ptr<uint8_t>() : nullptr, {}, {}};
  job.up_x = job.up.phases(!job.up.separable, 0);
  if (job.up.separable) job.up_y = job.up.phases(false, 1);
  work(job);
  return y;
}

}  // namespace

at::Tensor resample(const at::Tensor& x, const Maybe& bias, const at::Tensor& fu, const at::Tensor& fd, Pair up, Pair down,
                    Pair up_offset, Pair down_offset, Pair middle, Pair size, double up_gain, double down_gain, double slope, double clamp,
                    int64_t mode, Maybe map) {
  const auto& run = x.scalar_type() == at::kDouble ? typed<double> : typed<float>;
  return run(x, bias, fu, fd, up, down, up_offset, down_offset, middle, size, up_gain, down_gain, slope, clamp, mode, map);
}

int64_t lanes(bool is_double) { return is_double ? Vectorized<double>::size() : Vectorized<float>::size(); }
