// SPDX-License-Identifier: Apache-2.0
// What the compiled CPU code offers to Python (cpu_bindings.cpp). The arguments are not checked here: the Python that calls it has done so.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

using Maybe = std::optional<at::Tensor>;
using Pair = std::array<int64_t, 2>;  // (x, y)

// cpu_resample.cpp
at::Tensor resample(const at::Tensor& x, const Maybe& bias, const at::Tensor& fu, const at::Tensor& fd, Pair up, Pair down, Pair up_offset,
                    Pair down_offset, Pair middle, Pair size, double up_gain, double down_gain, double slope, double clamp, int64_t mode, Maybe map);
int64_t lanes(bool is_double);

// cpu_activation.cpp
at::Tensor bias_act(const at::Tensor& x, const Maybe& b, int64_t inner, double gain, double slope, double clamp);
at::Tensor gradient(const at::Tensor& dy, const at::Tensor& y, double gain, double slope, double clamp);
void finish_layer(at::Tensor x, const Maybe& noise, const at::Tensor& bias, double gain, double slope, double clamp);
std::tuple<at::Tensor, at::Tensor, Maybe> layer_gradient(const at::Tensor& dy, const at::Tensor& y, const Maybe& noise, double gain, double slope,
                                                         double clamp, bool by_pixel);
at::Tensor scale_and_dot(at::Tensor g, const at::Tensor& x, const at::Tensor& scale);
void add_scaled(at::Tensor dw, const at::Tensor& w, const at::Tensor& factors);

// cpu_winograd.cpp
std::tuple<at::Tensor, Maybe, Maybe> winograd(const at::Tensor& x, const at::Tensor& w, int64_t pad_y, int64_t pad_x, int64_t stride, bool adjoint,
                                              const Maybe& scale, bool demodulate, const Maybe& noise, const Maybe& bias, double gain, double slope,
                                              double clamp);
at::Tensor winograd_kernels(const at::Tensor& x, const at::Tensor& dy, int64_t pad_y, int64_t pad_x, int64_t stride, bool swapped,
                            const Maybe& x_scale, const Maybe& dy_scale);

// cpu_pointwise.cpp
at::Tensor pointwise(const at::Tensor& x, const at::Tensor& w);
at::Tensor pointwise_kernels(const at::Tensor& x, const at::Tensor& dy);
