# SPDX-License-Identifier: Apache-2.0
"""Triton's kernels, interpreted on a processor, against the definitions in float64."""

import importlib.util
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_utils.ops import definitions, gpu_launch
from torch_utils.ops.definitions import GRADIENT, READ_SIGNS, SECOND, STRAIGHT, VALUE, WRITE_SIGNS, Plan

FLOAT64 = 1e-12  # relative to the largest value
HALF = 2e-3

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
    # numpy, in Triton's interpreter, of the infinities that belong to lanes without data
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*encountered in:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def kernels():
    """The module as it is with TRITON_INTERPRET=1, which Triton reads when a kernel is defined; the one that others import stays as it is."""
    path = Path(definitions.__file__).with_name("triton_kernels.py")
    spec = importlib.util.spec_from_file_location("interpreted_triton_kernels", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec.loader.exec_module(module)
        if not interpreter_reads_memory():
            pytest.skip("needs an interpreter of Triton that was built for the numpy at hand: this one (Triton 3.0 beside numpy 2) loads zeros")
        yield module


def interpreter_reads_memory():
    """Whether Triton's interpreter loads what is there. For GPUs that does not matter: compiled kernels know no numpy."""
    from triton.runtime.interpreter import _interpreter

    there = np.array([7.0])
    found = _interpreter.load(np.array([there.ctypes.data], dtype=np.uint64), np.array([True]), np.zeros(1), there.dtype)
    return found.tolist() == [7.0]


def random_of(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agree(found, expected, tolerance=FLOAT64):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected.double(), atol=tolerance * (1e-3 + float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", definitions.ACTIVATIONS)
def test_bias_act_and_its_two_derivatives(kernels, act, clamp):
    for layout in (torch.contiguous_format, torch.channels_last):
        x, g, h = (random_of(2, 3, 5, 7, seed=i).contiguous(memory_format=layout) for i in range(3))
        b, how = random_of(3, seed=3), dict(dim=1, act=act, alpha=0.3, gain=1.7, clamp=clamp)
        r = definitions.bias_act(x, b, None, None, mode=VALUE, **how) if act in STRAIGHT else x
        for mode, args in ((VALUE, (x, b, None, None)), (GRADIENT, (g, b, r, None)), (SECOND, (g, b, r, h))):
            found = kernels.bias_act(*args, mode=mode, **how)
            agree(found, definitions.bias_act(*args, mode=mode, **how))
            assert found.is_contiguous(memory_format=layout)


def test_bias_act_of_several_blocks_and_in_half_precision(kernels):
    x, how = random_of(3, 1000), dict(mode=VALUE, dim=0, act="lrelu", alpha=0.2, gain=2.0, clamp=1.0)
    agree(kernels.bias_act(x, random_of(3, seed=1), None, None, **how), definitions.bias_act(x, random_of(3, seed=1), None, None, **how))
    half = kernels.bias_act(x.half(), None, None, None, **how)
    assert half.dtype == torch.float16
    agree(half, definitions.bias_act(x, None, None, None, **how), HALF)


@pytest.mark.parametrize(
    ("taps", "how"),
    [
        ([4, 4], ((2, 2), (1, 1), (2, 1, 2, 1), 4.0)),
        ([4, 4], ((1, 1), (2, 2), (1, 1, 1, 1), 1.0)),
        ([6], ((2, 2), (1, 1), (3, 2, 3, 2), 4.0)),
        ([3, 5], ((2, 3), (3, 2), (4, 3, 2, 5), -0.7)),
        ([3, 2], ((3, 1), (1, 2), (-4, 2, 3, -3), 1.0)),
        ([1, 2], ((4, 3), (2, 1), (1, 2, 3, 1), 1.0)),
    ],
)
def test_upfirdn2d(kernels, taps, how):
    f, x = random_of(*taps, seed=1).float(), random_of(2, 3, 9, 8)
    expected = definitions.upfirdn2d(x, f, *how)
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        found = kernels.upfirdn2d(image, f, *how)
        agree(found, expected)
        assert found.is_contiguous(memory_format=gpu_launch.layout_of(image))
    agree(kernels.upfirdn2d(x.half(), f, *how), expected, HALF)


def test_filtered_lrelu_is_made_of_them(kernels):
    plan = Plan((2, 2), (2, 2), (5, 5), (0, 0), (6, 5), (16, 15), (6, 5), 4.0, 1.0, 0.2, 1.5)
    x, fu, fd = random_of(2, 3, 5, 6), random_of(6, seed=1).float(), random_of(4, 4, seed=2).float()
    signs, expected_signs = (torch.zeros(definitions.signs_shape(x, plan), dtype=torch.uint8) for _ in range(2))
    agree(kernels.filtered(x, None, fu, fd, plan, WRITE_SIGNS, signs), definitions.filtered(x, None, fu, fd, plan, WRITE_SIGNS, expected_signs))
    assert torch.equal(signs, expected_signs)
    agree(kernels.filtered(x, None, fu, fd, plan, READ_SIGNS, signs), definitions.filtered(x, None, fu, fd, plan, READ_SIGNS, signs))


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("dtype", ["fp16", "fp64"])
def test_they_compile_for_gpus_that_are_not_there(arch, dtype, tmp_path, monkeypatch):
    """Down to machine code, by the assembler that comes with Triton; half a minute."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    from torch_utils.ops import triton_kernels

    pointer, wide = f"*{dtype}", triton_kernels.tl.float64 if dtype == "fp64" else triton_kernels.tl.float32

    def code_of(kernel, pointers, integers, constants):
        constants |= {"WIDE": wide, "BLOCK": 1024}
        signature = {**pointers, **dict.fromkeys(integers.split(), "i64")}
        if "constexprs" in inspect.signature(ASTSource).parameters:
            source = ASTSource(kernel, signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants)
        else:  # Triton 3.0
            source = ASTSource(kernel, signature=signature, constants=constants)
        return triton.compile(source, target=GPUTarget("cuda", arch, 32)).asm["cubin"]

    for act, mode in (("lrelu", 0), ("lrelu", 1), ("selu", 0), ("selu", 2), ("swish", 1)):
        constants = {"ALPHA": 0.2, "GAIN": 1.4, "CLAMP": 256.0, "ACT": act, "MODE": mode, "FROM_Y": act == "lrelu", "BIASED": True}
        assert code_of(triton_kernels._bias_act_kernel, dict.fromkeys("xbrhy", pointer), "n stride channels", constants)
    constants = {"PAD_X": -2, "PAD_Y": 1, "SHIFT_X": 2, "SHIFT_Y": 1, "UP_X": 2, "UP_Y": 2, "DOWN_X": 1, "DOWN_Y": 1}
    constants |= {"TAPS_X": 4, "TAPS_Y": 4, "GAIN": 4.0, "BY_PIXEL": True}
    numbers = "n channels in_x in_y out_x out_y xs_n xs_c xs_y xs_x ys_n ys_c ys_y ys_x"
    pointers = {"x": pointer, "f": "*fp64" if dtype == "fp64" else "*fp32", "y": pointer}
    assert code_of(triton_kernels._upfirdn2d_kernel, pointers, numbers, constants)


def test_it_can_be_asked_for_where_there_is_no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location("triton_kernels_without", Path(definitions.__file__).with_name("triton_kernels.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.AVAILABLE
