// SPDX-License-Identifier: Apache-2.0
// The compiled CPU code as a Python module. Alone in its file: with its headers each of the others would take seconds more to compile.

#include <torch/csrc/utils/pybind.h>

#include "cpu_kernels.h"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using pybind11::arg;
  const auto none = pybind11::none();
  // While one of these runs, other threads of Python may.
  const auto def = [&m](const char* name, auto function, auto... options) {
    m.def(name, function, pybind11::call_guard<pybind11::gil_scoped_release>(), options...);
  };
  def("resample", &resample);
  def("lanes", &lanes);
  def("bias_act", &bias_act);
  def("gradient", &gradient);
  def("finish_layer", &finish_layer);
  def("layer_gradient", &layer_gradient);
  def("scale_and_dot", &scale_and_dot);
  def("add_scaled", &add_scaled);
  def("winograd", &winograd, arg("x"), arg("w"), arg("pad_y"), arg("pad_x"), arg("stride"), arg("adjoint"), arg("scale") = none,
      arg("demodulate") = false, arg("noise") = none, arg("bias") = none, arg("gain") = 1.0, arg("slope") = 1.0, arg("clamp") = 0.0);
  def("winograd_kernels", &winograd_kernels, arg("x"), arg("dy"), arg("pad_y"), arg("pad_x"), arg("stride"), arg("swapped"), arg("x_scale") = none,
      arg("dy_scale") = none);
  def("pointwise", &pointwise);
  def("pointwise_kernels", &pointwise_kernels);
}
