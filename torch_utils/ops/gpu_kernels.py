# SPDX-License-Identifier: Apache-2.0
"""What computes the operators of `gpu_ops` on a GPU: compiled kernels (`cuda/`), else Triton's, else torch's operations; decided once a process.

The environment variable STYLEGAN_REDACT_KERNELS=off forbids all but torch's operations.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any

from torch_utils import custom_ops
from torch_utils.ops import definitions, gpu_launch
from torch_utils.ops.cpu_kernels import SWITCH, switched_off

SOURCES = ("bias_act.cu", "upfirdn2d.cu", "filtered_lrelu.cu", "module.cpp")
FOLDER = os.path.join(os.path.dirname(__file__), "cuda")


def provider(device_type: str) -> Any:
    """What has the functions of `definitions` for tensors of that device."""
    return definitions if device_type == "cpu" else _on_a_gpu()


@functools.cache
def _on_a_gpu() -> Any:
    """One warning where it is not the compiled kernels."""
    if switched_off():
        return definitions
    try:
        return compiled()
    except (RuntimeError, ImportError, OSError) as error:
        why = str(error)
    triton: Any = importlib.import_module("torch_utils.ops.triton_kernels")
    if triton.AVAILABLE:
        what, found = "Triton's kernels are used instead, StyleGAN3 is slower and takes more memory with them", triton
    else:
        what, found = "torch's operations are used instead, which is several times as slow and takes more memory", definitions
    warnings.warn(f"{why} - {what}; {SWITCH}=off silences this", RuntimeWarning, stacklevel=2)
    return found


def compiled() -> gpu_launch.Kernels:
    """The compiled kernels, built if need be.

    Raises:
        RuntimeError, ImportError, OSError: they cannot be built, or do not load.
    """
    module = custom_ops.get_plugin("stylegan_gpu_plugin", SOURCES, source_dir=FOLDER, extra_cuda_cflags=["-O3"])
    return gpu_launch.Kernels(module.__file__)
