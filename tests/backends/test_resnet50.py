# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 state dicts: its numbers against the paper's layers written out in float64, its columns, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from stylegan_redact import names
from stylegan_redact.backends.find import find
from stylegan_redact.backends.resnet50 import ResNet50
from stylegan_redact.types import RedactError

SHAPE = (3, 32, 32)
WIDTH = 4


def state(outputs: int = 80) -> dict[str, torch.Tensor]:
    """Of a narrow one, with numbers everywhere."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ResNet50(outputs, WIDTH).state_dict().items()}
    found = {name: torch.randn(shape, generator=generator) * (2 / max(1, shape[1:].numel())) ** 0.5 for name, shape in shapes.items()}
    for name in found:
        if name.endswith("running_var"):
            found[name] = found[name].abs() + 0.5
        elif name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(7)
        elif "bn" in name and name.endswith("weight"):
            found[name] = found[name].abs() / 2
    return found


def images(n: int, size: int = 32) -> torch.Tensor:
    return torch.rand([n, 3, size, size], generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2


def written_out(weights: Mapping[str, torch.Tensor], img: torch.Tensor) -> torch.Tensor:
    """He et al. 2016, table 1, in float64: [n, 3, 256, 256] -> what the last layer gives."""
    p = {name: tensor.double() for name, tensor in weights.items()}

    def normed(x: torch.Tensor, conv: str, bn: str, **kwargs: Any) -> torch.Tensor:
        x = functional.conv2d(x, p[f"{conv}.weight"], **kwargs)
        mean, var, gain, bias = (p[f"{bn}.{part}"].reshape(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    x = functional.max_pool2d(normed(img.double(), "conv1", "bn1", stride=2, padding=3).relu(), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inside = normed(x, f"{at}.conv1", f"{at}.bn1").relu()
            inside = normed(inside, f"{at}.conv2", f"{at}.bn2", stride=stride, padding=1).relu()
            shortcut = normed(x, f"{at}.downsample.0", f"{at}.downsample.1", stride=stride) if block == 0 else x
            x = (normed(inside, f"{at}.conv3", f"{at}.bn3") + shortcut).relu()
    return x.mean([2, 3]) @ p["fc.weight"].t() + p["fc.bias"]


def test_it_has_as_many_parameters_as_the_one_that_everybody_uses() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in ResNet50(1000).parameters()) == 25_557_032


@pytest.mark.parametrize("wrapped", [True, False])
def test_logits_are_presence_less_absence(tmp_path: Path, wrapped: bool) -> None:
    weights, img = state(), images(2, 256)
    named = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"state_dict": named} if wrapped else weights, tmp_path / "attributes.pt")
    file = find(str(tmp_path / "attributes.pt"), "beard")
    detector = file.load((3, 256, 256))
    expected = written_out(weights, img.clamp(-1, 1)).reshape(2, 40, 2)
    expected = expected[:, :, 1] - expected[:, :, 0]
    expected[:, 24] *= -1  # no_beard
    assert torch.allclose(detector.logits(img).double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert detector.differentiable and float(expected.std(0).min()) > 0
    assert detector.attributes == (*names.ATTRIBUTES[:24], "beard", *names.ATTRIBUTES[25:])
    assert file.record == {"file_sha256": file.sha256, "kind": "resnet50", "attribute": "not no_beard"}


def test_one_logit_each_and_files_of_old(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in state(40).items() if not name.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    detector = find(str(tmp_path / "old.pt"), "grey-hair").load(SHAPE)
    assert detector.attributes[17] == "grey-hair"
    enlarged = functional.interpolate(images(2).clamp(-1, 1), size=[256, 256], mode="bilinear", antialias=True)
    expected = written_out(weights, enlarged)
    assert torch.allclose(detector.logits(images(2)).double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


class Anything:
    pass


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: Anything(), r"cannot be read as tensors alone \(it holds more than tensors\) .* torch.jit.save"),
        (lambda found: [1, 2], "holds no state dict"),
        (lambda found: {"epoch": 3}, "holds no state dict"),
        (lambda found: {"x": torch.zeros(1)}, "it has no conv1 and fc"),
        (lambda found: found | {"fc.weight": torch.zeros(7, 128)}, r"its fc.weight is \[7, 128\]"),
        (lambda found: found | {"layer1.0.conv2.weight": torch.zeros(4, 4, 1, 1)}, r"layer1.0.conv2.weight is \(4, 4, 1, 1\), of a ResNet-50"),
        (lambda found: {name: tensor for name, tensor in found.items() if "layer4.2" not in name}, "layer4.2.bn1.bias is missing"),
        (lambda found: found | {"layer4.3.conv1.weight": torch.zeros(1)}, "it is unknown"),
    ],
)
def test_something_else_is_refused(tmp_path: Path, change: Any, told: str) -> None:
    torch.save(change(state()), tmp_path / "x.pt")
    with pytest.raises(RedactError, match=told):
        find(str(tmp_path / "x.pt"), "beard").load(SHAPE)


def test_a_feature_that_celeba_does_not_have_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "x.pt")
    with pytest.raises(RedactError, match="CelebA has beard, .*did you mean eyeglasses"):
        find(str(tmp_path / "x.pt"), "eyeglases").load(SHAPE)
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pt")  # What the file is comes before what the feature is called.
    with pytest.raises(RedactError, match="it has no conv1 and fc"):
        find(str(tmp_path / "x.pt"), "digit").load(SHAPE)
