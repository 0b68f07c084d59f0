// SPDX-License-Identifier: Apache-2.0
// Products of matrices of floats that lie in the cache, and transposing of vectors, for the convolutions on a CPU.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

namespace {

using Vec = at::vec::Vectorized<float>;

constexpr int64_t V = Vec::size();
constexpr int kRows = V == 16 ? 14 : 6;  // rows of a product that are kept in registers, two vectors wide

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Floats from a point to the next: an odd number of lines of the cache, as an even one would have all points meet in few of its places.
inline int64_t odd(int64_t floats) { return (ceil_div(floats, 16) | 1) * 16; }

inline int64_t filled(int64_t channels) { return ceil_div(channels, V) * V; }
inline at::Tensor floats(int64_t count) { return at::empty({count}, at::kFloat); }

// A vector of which no more than `count` values are there; the others are 0.
inline Vec some_of(const float* from, int64_t count) { return count >= V ? Vec::loadu(from) : Vec::loadu(from, count); }

// rows[i][j] -> rows[j][i]: log2(V) times, row i and row i + V / 2 are interleaved.
inline void transpose(Vec* rows) {
  Vec other[V];
  Vec *from = rows, *to = other;
  for (int64_t done = 1; done < V; done *= 2, std::swap(from, to))
    for (int64_t i = 0; i < V / 2; ++i) std::tie(to[2 * i], to[2 * i + 1]) = at::vec::interleave2(from[i], from[i + V / 2]);
  if (from != rows) std::copy(from, from + V, rows);
}

// to[i * step + lane] = from[lane * stride + i]; lanes that are not there become 0.
inline void gather_lanes(const float* from, int64_t stride, int64_t lanes, int64_t count, float* to, int64_t step = V) {
  for (int64_t i = 0; i < count; i += V) {
    Vec rows[V];
    const int64_t some = std::min(V, count - i);
    for (int64_t l = 0; l < V; ++l)
      rows[l] = l >= lanes ? Vec(0.0f) : some == V ? Vec::loadu(from + l * stride + i) : Vec::loadu(from + l * stride + i, some);
    transpose(rows);
    for (int64_t j = 0; j < some; ++j) rows[j].store(to + (i + j) * step);
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

}  // namespace
