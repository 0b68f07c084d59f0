# SPDX-License-Identifier: Apache-2.0
"""What the operations on images compute, in torch's operations, step by step: what compiled code is held to, and what runs where there is none.

Whoever replaces one of them has the same functions: `bias_act`, `upfirdn2d` and `filtered`. They see no gradients; `gpu_ops` has those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

VALUE, GRADIENT, SECOND = range(3)
"""What `bias_act` computes: y; the gradient of x from that of y; the gradient of x from those of y and of that gradient."""
NO_SIGNS, WRITE_SIGNS, READ_SIGNS = range(3)
"""What `filtered` does with the signs of the up-sampled image."""
STRAIGHT = ("linear", "relu", "lrelu")
"""Activations of straight lines, whose slope their result tells."""
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

ACTIVATIONS: dict[str, Callable] = {
    "linear": lambda x, **_: x,
    "relu": lambda x, **_: torch.relu(x),
    "lrelu": lambda x, alpha, **_: F.leaky_relu(x, alpha),
    "tanh": lambda x, **_: torch.tanh(x),
    "sigmoid": lambda x, **_: torch.sigmoid(x),
    "elu": lambda x, **_: F.elu(x),
    "selu": lambda x, **_: F.selu(x),
    "softplus": lambda x, **_: F.softplus(x),
    "swish": lambda x, **_: torch.sigmoid(x) * x,
}
"""Name -> the function. The order is that of NVIDIA's `cuda_idx`, which begins with 1."""


class Plan(NamedTuple):
    """How images become others: up-sampled samples t = sum of fu[k] * zero-inserted[t - up_offset + k], an activation, and
    result o = sum of fd[k] * up-sampled[o * down - down_offset + k]. All pairs are (x, y)."""

    up: tuple[int, int]
    down: tuple[int, int]
    up_offset: tuple[int, int]
    down_offset: tuple[int, int]
    start: tuple[int, int]
    """Size of the image, of what it becomes in the middle, and of the result."""
    middle: tuple[int, int]
    size: tuple[int, int]
    up_gain: float = 1.0
    down_gain: float = 1.0
    slope: float = 1.0
    clamp: float = math.inf

    def adjoint(self, fu: torch.Tensor, fd: torch.Tensor) -> Plan:
        """The plan that carries a gradient back, with the filters swapped and flipped."""
        up_offset = (fd.shape[-1] - 1 - self.down_offset[0], fd.shape[0] - 1 - self.down_offset[1])
        down_offset = (fu.shape[-1] - 1 - self.up_offset[0], fu.shape[0] - 1 - self.up_offset[1])
        gains = {"up_gain": self.down_gain, "down_gain": self.up_gain, "slope": self.slope, "clamp": self.clamp}
        return Plan(self.down, self.up, up_offset, down_offset, self.size, self.middle, self.start, **gains)


def _slope(act: str, u: torch.Tensor, alpha: float) -> torch.Tensor:
    """The derivative of an activation at u."""
    s = torch.sigmoid(u)
    slopes: dict[str, Callable[[], torch.Tensor]] = {
        "linear": lambda: torch.ones_like(u),
        "relu": lambda: (u > 0).to(u.dtype),
        "lrelu": lambda: torch.where(u > 0, torch.ones_like(u), torch.full_like(u, alpha)),
        "tanh": lambda: 1 - torch.tanh(u).square(),
        "sigmoid": lambda: s * (1 - s),
        "elu": lambda: torch.where(u > 0, torch.ones_like(u), u.exp()),
        "selu": lambda: SELU_SCALE * torch.where(u > 0, torch.ones_like(u), SELU_ALPHA * u.exp()),
        "softplus": lambda: s,
        "swish": lambda: s + u * s * (1 - s),
    }
    return slopes[act]()


def _bend(act: str, u: torch.Tensor) -> torch.Tensor:
    """The second derivative of an activation at u."""
    s = torch.sigmoid(u)
    bends: dict[str, Callable[[], torch.Tensor]] = {
        "tanh": lambda: -2 * torch.tanh(u) * (1 - torch.tanh(u).square()),
        "sigmoid": lambda: s * (1 - s) * (1 - 2 * s),
        "elu": lambda: torch.where(u > 0, torch.zeros_like(u), u.exp()),
        "selu": lambda: torch.where(u > 0, torch.zeros_like(u), SELU_SCALE * SELU_ALPHA * u.exp()),
        "softplus": lambda: s * (1 - s),
        "swish": lambda: s * (1 - s) * (2 + u * (1 - 2 * s)),
    }
    return torch.zeros_like(u) if act in STRAIGHT else bends[act]()


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None,
    r: torch.Tensor | None,
    h: torch.Tensor | None,
    *,
    mode: int,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """`clamp(gain * act(x + b))`, or one of its derivatives.

    Args:
        x:     The images, or the gradient of y.
        b:     Bias [x.shape[dim]] of what r is, or None.
        r:     For derivatives: y if the activation is one of `STRAIGHT` (which needs gain > 0 and alpha >= 0), else x.
        h:     For `SECOND`: the gradient of the gradient.
        mode:  VALUE, GRADIENT or SECOND.
    """
    if b is not None:
        b = b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    if mode == VALUE:
        y = ACTIVATIONS[act](x if b is None else x + b, alpha=alpha) * gain
        return y if clamp is None else y.clamp(-clamp, clamp)
    assert r is not None
    u = r if b is None or act in STRAIGHT else r + b
    y = r if act in STRAIGHT else ACTIVATIONS[act](u, alpha=alpha) * gain
    if mode == GRADIENT:
        dx = x * gain * _slope(act, u, alpha)
    else:
        assert h is not None
        dx = x * h * gain * _bend(act, u)
    return dx if clamp is None else torch.where(y.abs() >= clamp, torch.zeros_like(dx), dx)


def upfirdn2d(x: torch.Tensor, f: torch.Tensor, up: Sequence[int], down: Sequence[int], pads: Sequence[int], gain: float) -> torch.Tensor:
    """Images after: zeros inserted, padding or cropping, filtering, every n-th sample kept; all that can be negative or zero may be.

    Args:
        x:        Images [n, C, H, W].
        f:        Taps of a correlation, [t] if separable or [fh, fw].
        up, down: Factors (x, y).
        pads:     (x0, x1, y0, y1).
        gain:     Factor on the result.
    """
    n, c, h, w = x.shape
    upx, upy = up
    if upx > 1 or upy > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, upx - 1, 0, 0, 0, upy - 1])
        x = x.reshape(n, c, h * upy, w * upx)  # [n, c, h * upy, w * upx]
    x = pad_or_crop(x, pads)
    f = f.to(x.dtype)
    for kernel in [f[None, :] * gain, f[:, None]] if f.ndim == 1 else [f * gain]:
        x = F.conv2d(x, kernel.expand(c, 1, *kernel.shape), groups=c)
    return every(x, down)


def every(x: torch.Tensor, down: Sequence[int]) -> torch.Tensor:
    """Every n-th column and row of images, (x, y)."""
    return x if tuple(down) == (1, 1) else x[:, :, :: down[1], :: down[0]]  # An index that takes all is what batches of gradients cannot do.


def pad_or_crop(x: torch.Tensor, pads: Sequence[int]) -> torch.Tensor:
    """Images with zeros around them, or less of them where a pad is negative; (x0, x1, y0, y1)."""
    if any(pad > 0 for pad in pads):  # first: what one side crops may be the padding of the other
        x = F.pad(x, [max(pad, 0) for pad in pads])
    if any(pad < 0 for pad in pads):
        x = F.pad(x, [min(pad, 0) for pad in pads])
    return x


def filtered(
    x: torch.Tensor,
    b: torch.Tensor | None,
    fu: torch.Tensor,
    fd: torch.Tensor,
    plan: Plan,
    mode: int = NO_SIGNS,
    signs: torch.Tensor | None = None,
    resample: Callable = upfirdn2d,
) -> torch.Tensor:
    """What a `Plan` says: bias, up-sampling, activation, down-sampling; the up-sampled image is there as a whole.

    Args:
        x:        Images [n, C, H, W].
        b:        Bias [C], or None.
        fu, fd:   Taps of correlations, [t] or [fh, fw].
        mode:     NO_SIGNS; WRITE_SIGNS: fill `signs`; READ_SIGNS: slopes by `signs` instead of the activation.
        signs:    uint8 of `signs_shape`: two bits for each up-sampled sample, 1: negative, 2: clamped. Whoever replaces this function need not write
                  those of samples that no sample of the result reads.
        resample: What takes the place of `upfirdn2d`.
    """
    x = x if b is None else x + b.reshape(1, -1, 1, 1)
    before, after = [], []
    for axis in (0, 1):
        taps_up, taps_down = fu.shape[-1 - axis if fu.ndim == 2 else 0], fd.shape[-1 - axis if fd.ndim == 2 else 0]
        first, second = plan.up_offset[axis], plan.down_offset[axis]
        before += [first, plan.middle[axis] - x.shape[3 - axis] * plan.up[axis] - first + taps_up - 1]
        after += [second, (plan.size[axis] - 1) * plan.down[axis] + taps_down - plan.middle[axis] - second]
    x = resample(x, fu, plan.up, (1, 1), before, plan.up_gain)
    if mode == READ_SIGNS:
        assert signs is not None
        codes = torch.stack([signs >> 2 * i & 3 for i in range(4)], -1).flatten(-2)[..., : plan.middle[0]]
        x = torch.where(codes == 0, x, torch.where(codes == 1, x * plan.slope, torch.zeros_like(x)))
    else:
        bent = torch.where(x > 0, x, x * plan.slope)
        if mode == WRITE_SIGNS:
            assert signs is not None
            codes = torch.where(bent.abs() > plan.clamp, 2, torch.where(x > 0, 0, 1)).to(torch.uint8)
            codes = F.pad(codes, [0, -plan.middle[0] % 4]).unflatten(-1, [-1, 4])
            signs.copy_(sum(codes[..., i] << 2 * i for i in range(4)))
        x = bent if plan.clamp == math.inf else bent.clamp(-plan.clamp, plan.clamp)
    return resample(x, fd, (1, 1), plan.down, after, plan.down_gain)


def signs_shape(x: torch.Tensor, plan: Plan) -> tuple[int, int, int, int]:
    """[n, C, h, w / 4] of the up-sampled image: four samples in a byte."""
    return x.shape[0], x.shape[1], plan.middle[1], (plan.middle[0] + 3) // 4
