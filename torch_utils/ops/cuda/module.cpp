// SPDX-License-Identifier: Apache-2.0
// A Python module without anything in it, whose file torch_utils/ops/gpu_launch.py opens to call the kernels: no header of torch, so it is built in
// seconds and serves every version of it.

#include <Python.h>

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, TEXT(TORCH_EXTENSION_NAME), nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PASTE(PyInit_, TORCH_EXTENSION_NAME)() { return PyModule_Create(&definition); }
