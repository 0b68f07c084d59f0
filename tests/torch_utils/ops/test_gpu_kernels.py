# SPDX-License-Identifier: Apache-2.0
"""The bodies of the GPU's kernels, run on a processor by `emulation.cpp`, against the definitions in float64: every index, tap, sign and stride."""

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from torch_utils.ops import definitions, gpu_kernels, gpu_launch
from torch_utils.ops.definitions import GRADIENT, NO_SIGNS, READ_SIGNS, SECOND, STRAIGHT, VALUE, WRITE_SIGNS, Plan

FLOAT64 = 1e-12  # relative to the largest value; sums of at most 576 terms
FLOAT32 = 2e-6

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
MODES = [(0, 0, 0), (1, 1, 1)]
"""(64-bit indices, no size known to the compiler, threads backwards)."""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The bodies as a shared library, with checks of alignment, bounds and overflow: a fault aborts."""
    path = tmp_path_factory.mktemp("emulation") / "emulation.so"
    source = Path(__file__).with_name("emulation.cpp")
    checks = ["-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", *checks, "-I", gpu_kernels.FOLDER, str(source), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def emulated(library):
    """(kernels, how to run them)."""
    raw = ctypes.CDLL(str(library))
    yield gpu_launch.Kernels(str(library)), raw.emulate
    assert raw.overrun() == 0, "shared memory of somebody else was written"


def random_of(seed=0):
    return torch.Generator().manual_seed(seed)


def agree(found, expected, tolerance=FLOAT64):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected.double(), atol=tolerance * (1e-3 + float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", definitions.ACTIVATIONS)
def test_bias_act_and_its_two_derivatives(emulated, act, clamp):
    kernels, emulate = emulated
    for shape, dim, layout in [
        ((2, 3, 5, 7), 1, torch.channels_last),
        ((2, 3, 4, 5), 2, torch.contiguous_format),
        ((5, 3), 1, torch.contiguous_format),
    ]:
        x, g, h = (torch.randn(shape, generator=random_of(i), dtype=torch.float64).contiguous(memory_format=layout) for i in range(3))
        b = torch.randn(shape[dim], generator=random_of(3), dtype=torch.float64)
        how = dict(dim=dim, act=act, alpha=0.3, gain=1.7, clamp=clamp)
        y = definitions.bias_act(x, b, None, None, mode=VALUE, **how)
        r = y if act in STRAIGHT else x
        for wide in (0, 1):
            emulate(wide, 0, wide)
            for mode, args in ((VALUE, (x, b, None, None)), (GRADIENT, (g, b, r, None)), (SECOND, (g, b, r, h))):
                found = kernels.bias_act(*args, mode=mode, **how)
                agree(found, definitions.bias_act(*args, mode=mode, **how))
                assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("offset", [0, 1])
def test_bias_act_of_packets_and_of_what_does_not_lie_so(emulated, offset):
    kernels, emulate = emulated
    emulate(0, 0, 0)
    how = dict(dim=1, act="lrelu", alpha=0.2, gain=2.0, clamp=1.0)
    for numbers in (3 * 8, 3 * 7, 3):  # float32 comes in packets of 4: none, some and all of the last one are there
        x = torch.randn(numbers + offset, generator=random_of())[offset:].view(1, 3, -1)
        b = torch.tensor([0.5, -0.5, 0.1])
        agree(kernels.bias_act(x, b, None, None, mode=VALUE, **how), definitions.bias_act(x, b, None, None, mode=VALUE, **how), FLOAT32)


def test_bias_act_hides_nothing_that_is_not_a_number(emulated):
    kernels, _ = emulated
    x = torch.tensor([[math.nan, math.inf, -math.inf, 0.0]])
    for act in definitions.ACTIVATIONS:
        how = dict(mode=VALUE, dim=1, act=act, alpha=0.2, gain=1.5, clamp=None)
        torch.testing.assert_close(kernels.bias_act(x, None, None, None, **how), definitions.bias_act(x, None, None, None, **how), equal_nan=True)


RESAMPLINGS = {
    "StyleGAN2, up": ([4, 4], (2, 2), (1, 1), (2, 1, 2, 1), 4.0),
    "StyleGAN2, down": ([4, 4], (1, 1), (2, 2), (1, 1, 1, 1), 1.0),
    "StyleGAN2, same": ([4, 4], (1, 1), (1, 1), (2, 1, 2, 1), 4.0),
    "separable": ([12], (2, 2), (1, 1), (6, 5, 6, 5), 4.0),
    "both": ([3, 5], (2, 3), (3, 2), (4, 3, 2, 5), -0.7),
    "crops": ([3, 2], (3, 1), (1, 2), (-4, 2, 3, -3), 1.0),
    "fewer taps than zeros": ([1, 2], (4, 3), (2, 1), (1, 2, 3, 1), 1.0),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RESAMPLINGS)
def test_upfirdn2d(emulated, name, mode):
    kernels, emulate = emulated
    emulate(*mode)
    taps, *how = RESAMPLINGS[name]
    f = torch.randn(taps, generator=random_of(1))
    x = torch.randn(2, 3, 9, 8, generator=random_of(), dtype=torch.float64)
    expected = definitions.upfirdn2d(x, f, *how)
    for image in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        found = kernels.upfirdn2d(image, f, *how)
        agree(found, expected)
        assert found.is_contiguous(memory_format=gpu_launch.layout_of(image))
    agree(kernels.upfirdn2d(x.float(), f, *how), expected, FLOAT32)


def plan_of(size, up, down, fu, fd, offset, down_offset=(0, 0), **options):
    """A Plan whose up-sampled image is what the taps leave of the padded one, padded by `offset` on both sides."""
    taps = [[f[-1], f[0]] for f in (fu, fd)]
    middle = [size[i] * up + 2 * offset[i] - taps[0][i] + 1 for i in (0, 1)]
    result = [(middle[i] + 2 * down_offset[i] - taps[1][i]) // down + 1 for i in (0, 1)]
    return Plan((up, up), (down, down), tuple(offset), down_offset, tuple(size), tuple(middle), tuple(result), **options)


LAYERS = {
    "t": dict(size=(25, 22), up=2, down=2, fu=[12], fd=[12], offset=(9, 8)),
    "t, next rate": dict(size=(17, 20), up=4, down=2, fu=[24], fd=[12], offset=(-5, 3)),
    "t, gradient of next rate": dict(size=(22, 25), up=2, down=4, fu=[12], fd=[24], offset=(11, 10), down_offset=(23, 20)),
    "r": dict(size=(20, 23), up=2, down=2, fu=[12], fd=[12, 12], offset=(11, 10)),
    "r, gradient": dict(size=(20, 23), up=2, down=2, fu=[12, 12], fd=[12], offset=(0, 1), down_offset=(11, 11)),
    "r, next rate": dict(size=(19, 12), up=4, down=2, fu=[24], fd=[12, 12], offset=(3, 2)),
    "nothing usual": dict(size=(9, 8), up=3, down=1, fu=[5, 4], fd=[7, 6], offset=(5, 4), down_offset=(1, 2)),
    "fewer taps than factors": dict(size=(9, 7), up=3, down=4, fu=[2], fd=[1], offset=(6, 6)),
    "no up-sampling": dict(size=(12, 11), up=1, down=2, fu=[1], fd=[8], offset=(3, 3)),
}


def problem(name, dtype=torch.float64, channels=3):
    """(x, b, fu, fd, plan)."""
    layer = LAYERS[name]
    plan = plan_of(**layer, up_gain=layer["up"] ** 2 * math.sqrt(2), down_gain=0.8, slope=0.2, clamp=1.5)
    fu, fd = (torch.randn(layer[key], generator=random_of(i)) / math.prod(layer[key]) ** 0.5 for i, key in enumerate(("fu", "fd")))
    x, b = (
        torch.randn(2, channels, *plan.start[::-1], generator=random_of(2), dtype=torch.float64),
        torch.randn(channels, generator=random_of(3)).double(),
    )
    return x.to(dtype), b.to(dtype), fu, fd, plan


def needed(plan, fd, axis):
    """The up-sampled samples that any sample of the result reads: no others have signs."""
    starts = range(-plan.down_offset[axis], plan.size[axis] * plan.down[axis] - plan.down_offset[axis], plan.down[axis])
    return sorted({start + tap for start in starts for tap in range(fd.shape[-1 if axis == 0 else 0])} & set(range(plan.middle[axis])))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_filtered_lrelu_with_every_use_of_signs(emulated, name, mode):
    kernels, emulate = emulated
    emulate(*mode)
    x, b, fu, fd, plan = problem(name)
    signs, expected_signs = (torch.full(definitions.signs_shape(x, plan), 255, dtype=torch.uint8) for _ in range(2))
    expected = definitions.filtered(x, b, fu, fd, plan, WRITE_SIGNS, expected_signs)
    agree(kernels.filtered(x, b, fu, fd, plan, WRITE_SIGNS, signs), expected)
    agree(kernels.filtered(x, b, fu, fd, plan, NO_SIGNS), expected)
    rows, columns = (needed(plan, fd, axis) for axis in (1, 0))
    codes, expected_codes = (
        torch.stack([s >> 2 * i & 3 for i in range(4)], -1).flatten(-2)[..., rows, :][..., columns] for s in (signs, expected_signs)
    )
    assert torch.equal(codes, expected_codes) and {0, 1, 2} == set(codes.unique().tolist())
    found = kernels.filtered(x, None, fu, fd, plan, READ_SIGNS, signs)
    agree(found, definitions.filtered(x, None, fu, fd, plan, READ_SIGNS, signs))


@pytest.mark.parametrize("name", ["t", "r", "t, gradient of next rate"])
def test_filtered_lrelu_in_single_precision_and_other_layouts(emulated, name):
    kernels, emulate = emulated
    emulate(0, 0, 1)
    x, b, fu, fd, plan = problem(name, torch.float32)
    expected = definitions.filtered(x.double(), b.double(), fu, fd, plan)
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        found = kernels.filtered(image, b, fu, fd, plan)
        agree(found, expected, FLOAT32)
        assert found.is_contiguous(memory_format=gpu_launch.layout_of(image))


def test_what_fits_no_tile_is_done_step_by_step(emulated):
    kernels, _ = emulated
    fu, fd = torch.randn(90, 90, generator=random_of()) / 90, torch.randn(5, generator=random_of(1))
    plan = plan_of((8, 9), 2, 2, [90, 90], [5], (50, 50), slope=0.2, clamp=1.0)
    x = torch.randn(1, 2, 9, 8, generator=random_of(2), dtype=torch.float64)
    agree(kernels.filtered(x, None, fu, fd, plan), definitions.filtered(x, None, fu, fd, plan))


def test_nothing_is_launched_for_nothing(emulated):
    kernels, _ = emulated
    x, b, fu, fd, plan = problem("t")
    assert kernels.filtered(x[:0], b, fu, fd, plan).shape == (0, 3, plan.size[1], plan.size[0])
    assert kernels.bias_act(x[:0], b, None, None, mode=VALUE, dim=1, act="relu", alpha=0.0, gain=1.0, clamp=None).shape == x[:0].shape
    assert kernels.upfirdn2d(x[:0], fu, (2, 2), (1, 1), (6, 5, 6, 5), 1.0).shape == (0, 3, 44, 50)


def test_arguments_that_the_kernels_would_trust_are_checked(emulated):
    kernels, _ = emulated
    x, b, fu, fd, plan = problem("t")
    how = dict(mode=VALUE, dim=1, act="lrelu", alpha=0.2, gain=1.0, clamp=None)
    signs = torch.zeros(definitions.signs_shape(x, plan), dtype=torch.uint8)
    for call in (
        lambda: kernels.bias_act(x, b[:2], None, None, **how),
        lambda: kernels.bias_act(x, b.float(), None, None, **how),
        lambda: kernels.bias_act(x, None, x, None, **how),
        lambda: kernels.bias_act(x, None, x[:1], None, **{**how, "mode": GRADIENT}),
        lambda: kernels.bias_act(x, None, x, None, **{**how, "mode": GRADIENT, "gain": -1.0}),
        lambda: kernels.upfirdn2d(x, fu, (1, 1), (1, 1), (-20, -20, 0, 0), 1.0),
        lambda: kernels.upfirdn2d(x.int(), fu, (1, 1), (1, 1), (0, 0, 0, 0), 1.0),
        lambda: kernels.filtered(x[..., 1:], b, fu, fd, plan),
        lambda: kernels.filtered(x, b, fu, fd, plan, WRITE_SIGNS),
        lambda: kernels.filtered(x, b, fu, fd, plan, READ_SIGNS, signs[..., 1:]),
        lambda: kernels.filtered(x, b[1:], fu, fd, plan),
    ):
        with pytest.raises(AssertionError):
            call()


def test_a_library_of_another_version_is_refused(library, monkeypatch):
    class Longer(ctypes.Structure):
        _fields_ = [("more", ctypes.c_int64 * 99)]

    monkeypatch.setattr(gpu_launch, "_Upfirdn", Longer)
    with pytest.raises(RuntimeError, match="another version's"):
        gpu_launch.Kernels(str(library))
