# SPDX-License-Identifier: Apache-2.0
"""From the description of a network to a network of ours."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import torch_utils.ops
from stylegan_redact.networks import build
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.types import RedactError

SIZES = (4, 0, 4, 8, 3)
SMALL: dict[str, Any] = dict(channel_base=64, channel_max=4)


def tensors(net: torch.nn.Module | None = None) -> dict[str, torch.Tensor]:
    """Of a new generator, none of them as a constructor leaves it."""
    net = Generator(*SIZES, **SMALL) if net is None else net
    return {name: tensor.detach() + 0.25 for name, tensor in net.state_dict().items()}


def test_the_network_has_the_tensors_given_and_is_ready_to_use() -> None:
    given, before = tensors(), torch.random.get_rng_state()
    net = build.build_module("Generator", SIZES, SMALL, given, ada=False)
    assert type(net) is Generator and torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, given[name]) for name, tensor in net.state_dict().items())
    assert not any(part.training for part in net.modules()) and not any(p.requires_grad for p in net.parameters())
    net.synthesis.b8.conv1.weight.zero_()
    assert given["synthesis.b8.conv1.weight"].abs().max() > 0, "what was given stays as it is"


def test_a_discriminator_is_no_generator() -> None:
    net = build.build_module("Discriminator", (0, 8, 3), SMALL, tensors(Discriminator(0, 8, 3, **SMALL)), ada=False)
    assert type(net) is Discriminator


@pytest.mark.parametrize(("ada", "clamp", "fp16", "beta"), [(True, None, 0, 0.995), (False, 256, 4, 0.998)])
def test_defaults_are_those_of_the_code_that_wrote_the_file(ada: bool, clamp: int | None, fp16: int, beta: float) -> None:
    """ADA hands synthesis arguments in a dict of their own; its discriminator looks like the other."""
    nested = dict(synthesis_kwargs=SMALL) if ada else SMALL
    G: Any = build.build_module("Generator", SIZES, nested, tensors(), ada=ada)
    D: Any = build.build_module("Discriminator", (0, 8, 3), SMALL, tensors(Discriminator(0, 8, 3, **SMALL)), ada=ada)
    assert (G.synthesis.b8.conv1.conv_clamp, G.synthesis.num_fp16_res, G.mapping.w_avg_beta) == (clamp, fp16, beta)
    assert (D.b8.conv0.conv_clamp, D.b4.conv.conv_clamp, D.b8.use_fp16) == (clamp, clamp, not ada)


def test_what_the_file_says_goes_before_defaults() -> None:
    said = dict(synthesis_kwargs=SMALL | dict(conv_clamp=7, num_fp16_res=2), mapping_kwargs=dict(w_avg_beta=0.9))
    G: Any = build.build_module("Generator", SIZES, said, tensors(), ada=True)
    assert (G.synthesis.b8.torgb.conv_clamp, G.synthesis.num_fp16_res, G.mapping.w_avg_beta) == (7, 2, 0.9)
    D: Any = build.build_module("Discriminator", (0, 8, 3), SMALL | dict(conv_clamp=7), tensors(Discriminator(0, 8, 3, **SMALL)), ada=True)
    assert D.b8.conv0.conv_clamp == 7


def test_ada_is_told_by_its_generator() -> None:
    assert build.of_ada_layout("Generator", {"synthesis_kwargs": {}})
    assert not build.of_ada_layout("Generator", {"channel_base": 64}) and not build.of_ada_layout("Discriminator", {})


def changed(**values: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in (tensors() | {name.replace("__", "."): value for name, value in values.items()}).items()
        if tensor is not None
    }


@pytest.mark.parametrize(
    ("class_name", "init_kwargs", "given", "says"),
    [
        (
            "Generator",
            SMALL,
            {"input.affine": torch.zeros(1)},
            "a network of class 'Generator' .*input.affine.* no architecture known here .*stylegan2",
        ),
        ("Generator", SMALL, {}, "such as none is of no architecture"),
        ("SuperGenerator", SMALL, tensors(), "class 'SuperGenerator'"),
        ("Discriminator", SMALL, tensors(), "class 'Discriminator'"),
        ("Generator", SMALL, changed(synthesis__b8__conv0__bias=None), r"lacks tensors \(synthesis.b8.conv0.bias; 1 in all\)"),
        ("Generator", SMALL, changed(mapping__extra=torch.zeros(1)), r"has unknown tensors \(mapping.extra; 1 in all\)"),
        ("Generator", SMALL, changed(mapping__w_avg=torch.zeros(5)), r"has misshapen tensors \(mapping.w_avg; 1 in all\)"),
        ("Generator", SMALL | dict(channel_max=3), tensors(), r"misshapen tensors \(synthesis.*, \.\.\.; \d\d in all\)"),
        ("Generator", SMALL | dict(attention=True), tensors(), "cannot be rebuilt .*attention"),
        ("Generator", SMALL | dict(architecture="dense"), tensors(), "cannot be rebuilt"),
        ("Generator", SMALL | dict(activation="sine"), tensors(), "cannot be rebuilt .*sine"),
    ],
)
def test_what_does_not_fit_is_refused(class_name: str, init_kwargs: dict[str, Any], given: dict[str, torch.Tensor], says: str) -> None:
    with pytest.raises(RedactError, match=says):
        build.build_module(class_name, SIZES, init_kwargs, given, ada=False)


def test_an_architecture_is_a_file_that_says_what_it_recognises() -> None:
    found = build.architectures()
    assert "stylegan2" in found and not {"build", "export"} & set(found)
    assert all(hasattr(module, name) for module in found.values() for name in module.RECOGNISED_BY)


def test_a_checkout_without_what_stylegan3_needs_still_knows_stylegan2(monkeypatch: pytest.MonkeyPatch) -> None:
    """stylegan2-ada-pytorch's torch_utils has no filtered_lrelu."""
    whole = build.architectures()
    monkeypatch.delattr(torch_utils.ops, "filtered_lrelu")
    monkeypatch.setitem(sys.modules, "torch_utils.ops.filtered_lrelu", None)
    monkeypatch.delitem(sys.modules, "stylegan_redact.networks.stylegan3")
    assert set(build.architectures()) == set(whole) - {"stylegan3"}
    assert list(build.lacking()) == ["stylegan3"] and "filtered_lrelu" in build.lacking()["stylegan3"]
    with pytest.raises(RedactError, match="not stylegan3, since .* lacks something: .*filtered_lrelu.* outside this checkout"):
        build.build_module("Generator", SIZES, {}, {"synthesis.input.freqs": torch.zeros(1)}, ada=False)


def test_other_failing_imports_are_no_lack_of_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "stylegan_redact.networks.stylegan3")
    with pytest.raises(ImportError, match="numpy"):
        build.architectures()
