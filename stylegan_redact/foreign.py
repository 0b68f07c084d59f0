# SPDX-License-Identifier: Apache-2.0
"""Generators that are none of ours, made to fit: which of the usual arguments they take, and which of their layers read which row of ws.

What is found is measured by drawing, not guessed from names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from stylegan_redact.types import RedactError

ROWS = "stylegan_redact_rows"
"""Attribute of a foreign generator: dotted name of each layer that reads w -> its row of ws."""
_HOOK = "stylegan_redact_hook"
_SIZES = ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels")
_MAY_BE_LEFT_OUT: Mapping[str, Any] = {"noise_mode": "const", "force_fp32": True, "truncation_psi": 1, "truncation_cutoff": None}
"""Arguments that StyleGAN's networks take, with the value whose absence changes nothing where a network does not know of them."""


def adapt(G: Any, key: str) -> Any:
    """The generator itself, checked: it offers G.mapping(z, c) -> ws and G.synthesis(ws) -> img as modules, and draws the same picture twice.

    Its mapping and synthesis get a hook that leaves out arguments that they do not take; `ROWS` becomes an attribute of it.

    Raises:
        RedactError: it offers something else; says what.
    """
    asked = f"{key} was run from its own source"
    missing = [name for name in _SIZES if type(getattr(G, name, None)) is not int]
    missing += [name for name in ("mapping", "synthesis") if not isinstance(getattr(G, name, None), torch.nn.Module)]
    if missing:
        raise RedactError(f"{asked} - it lacks {', '.join(missing)}, and G.mapping(z, c) and G.synthesis(ws) are what is needed - give a StyleGAN")
    for part in (G.mapping, G.synthesis):
        setattr(part, _HOOK, part.register_forward_pre_hook(_without_unknown, with_kwargs=True))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            ws = G.mapping(torch.randn(2, G.z_dim), torch.eye(2, G.c_dim) if G.c_dim else None, truncation_psi=1)
            _same_shape(asked, "its mapping gives", ws, (2, G.num_ws, G.w_dim))
            img = [G.synthesis(ws, noise_mode="const", force_fp32=True) for _ in range(2)]
            _same_shape(asked, "its synthesis gives", img[0], (2, G.img_channels, G.img_resolution, G.img_resolution))
            if not torch.equal(*img):
                raise RedactError(f"{asked} - it draws another picture every time, before and after could not be compared - give it fixed noise")
            setattr(G, ROWS, _rows(G, torch.randn_like(ws)))
        except RedactError:
            raise
        except Exception as error:  # noqa: BLE001 - the trusted source raises whatever it likes
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise RedactError(f"{asked} - it does not draw a picture from G.mapping and G.synthesis: {reason} - give a StyleGAN") from None
    return G


def released(net: Any) -> Any:
    """The network itself, without what `adapt` added, so that it can be pickled as it came."""
    vars(net).pop(ROWS, None)
    for part in net.modules():
        if _HOOK in vars(part):
            vars(part).pop(_HOOK).remove()
    return net


def _without_unknown(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook: the call without those arguments that the module does not take and that would change nothing."""
    known = inspect.signature(module.forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return args, kwargs
    return args, {name: value for name, value in kwargs.items() if name in known or _MAY_BE_LEFT_OUT.get(name, ...) != value}


def _same_shape(asked: str, what: str, got: Any, wanted: tuple[int, ...]) -> None:
    if not isinstance(got, torch.Tensor) or got.shape != wanted or not bool(torch.isfinite(got).all()):
        there = f"numbers of shape {list(got.shape)}" if isinstance(got, torch.Tensor) else f"a {type(got).__name__}"
        raise RedactError(f"{asked} - {what} {there} where finite ones of shape {list(wanted)} are needed - give a StyleGAN")


def _rows(G: Any, ws: torch.Tensor) -> dict[str, int]:
    """Name of every affine layer of the synthesis network that is given a row of ws as it is -> that row. What steers a pose is left out."""
    given: dict[str, torch.Tensor] = {}
    layers = {name: layer for name, layer in G.synthesis.named_modules() if name.split(".")[-1] == "affine" and name != "input.affine"}
    hooks = [layer.register_forward_pre_hook(_recorder(given, name)) for name, layer in layers.items()]
    try:
        G.synthesis(ws, noise_mode="const", force_fp32=True)
    finally:
        for hook in hooks:
            hook.remove()
    rows: dict[str, int] = {}
    for name, x in given.items():
        for row in range(G.num_ws):
            if x.shape == ws[:, row].shape and torch.equal(x.to(ws), ws[:, row]) and is_affine(layers[name], x):
                rows.setdefault(f"synthesis.{name}", row)
    return rows


def _recorder(given: dict[str, torch.Tensor], name: str) -> Any:
    def record(_: torch.nn.Module, args: tuple[Any, ...]) -> None:
        given.setdefault(name, args[0])

    return record


def gains(layer: Any) -> tuple[float, float]:
    """What a style layer multiplies its stored weight and its stored bias with; 1 where it has no such attributes."""
    return float(getattr(layer, "weight_gain", 1.0)), float(getattr(layer, "bias_gain", 1.0))


def is_affine(layer: Any, x: torch.Tensor) -> bool:
    """Whether the layer computes on x [n, w_dim] what its weight, bias and gains say."""
    weight, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
    if not (isinstance(weight, torch.Tensor) and isinstance(bias, torch.Tensor)) or weight.shape[1:] != x.shape[1:] or bias.shape != weight.shape[:1]:
        return False
    weight_gain, bias_gain = gains(layer)
    return bool(torch.allclose(layer(x).double(), x.double() @ weight.double().T * weight_gain + bias.double() * bias_gain, rtol=1e-4, atol=1e-4))
