# SPDX-License-Identifier: Apache-2.0
"""A JSON file beside a classifier: what it takes and gives, in all that can be said, and what is said wrongly."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import save_torchscript

from stylegan_redact import detectors
from stylegan_redact.backends.find import find
from stylegan_redact.types import RedactError

SHAPE = (3, 16, 16)


class Means(torch.nn.Module):
    """[n, 3]: the means of the channels of the picture as it came, and with `softmax` their shares."""

    def __init__(self, softmax: bool = False, size: int = 0) -> None:
        super().__init__()
        self.softmax, self.size = softmax, size

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        assert self.size == 0 or img.shape[2] == self.size
        out = img.mean([2, 3])
        return out.softmax(1) if self.softmax else out


def images(n: int = 3) -> torch.Tensor:
    return torch.rand([n, 3, 16, 16], generator=torch.Generator().manual_seed(1)) * 2 - 1


def loaded(folder: Path, told: dict[str, Any] | None, net: torch.nn.Module, feature: str = "beard") -> detectors.Classifier:
    save_torchscript(net, folder / "net.pt")
    if told is not None:
        (folder / "net.json").write_text(json.dumps(told))
    return find(str(folder / "net.pt"), feature).load(SHAPE)


MEANS = images().mean([2, 3])
SHARES = MEANS.softmax(1)
UNIT = (MEANS * 0.5 + 0.5 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("told", "softmax", "expected"),
    [
        ({"index": 1}, False, MEANS[:, 1:2]),
        ({"index": 2, "sign": -1}, False, -MEANS[:, 2:]),
        ({"index": 0, "threshold": 0.25}, False, MEANS[:, :1] - 0.25),
        ({"index": 0, "threshold": 0.25, "sign": -1}, False, 0.25 - MEANS[:, :1]),
        ({"index": 2, "against": 0}, False, MEANS[:, 2:] - MEANS[:, :1]),
        ({"index": 1, "output": "probabilities"}, True, torch.logit(SHARES[:, 1:2])),
        ({"index": 1, "output": "probabilities", "threshold": 0.25}, True, torch.logit(SHARES[:, 1:2]) + 1.0986123),  # log 3
        ({"index": 0, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}, False, UNIT[:, :1]),
        ({"index": 1, "size": 8}, False, MEANS[:, 1:2]),
    ],
    ids=str,
)
def test_one_output(tmp_path: Path, told: dict[str, Any], softmax: bool, expected: torch.Tensor) -> None:
    detector = loaded(tmp_path, told, Means(softmax, told.get("size", 0)))
    assert detector.attributes == ("beard",) and detector.differentiable
    assert torch.allclose(detector.logits(images()), expected, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in detector.net.parameters())


def test_several_outputs(tmp_path: Path) -> None:
    detector = loaded(tmp_path, {"names": ["hat", "beard", "smile"], "sign": [1, -1, 1], "threshold": [0, 0.5, 0]}, Means(), "smile")
    assert detector.attributes == ("hat", "beard", "smile")
    assert torch.allclose(detector.logits(images()), torch.stack([MEANS[:, 0], 0.5 - MEANS[:, 1], MEANS[:, 2]], dim=1), atol=1e-6)
    with pytest.raises(RedactError, match="knows: hat, beard, smile"):
        loaded(tmp_path, None, Means(), "wig")


def test_everyday_names_are_found_among_them(tmp_path: Path) -> None:
    told = {"names": ["No_Beard", "Eyeglasses", "Smiling"]}
    glasses, beard = (loaded(tmp_path, told, Means(), name) for name in ("glasses", "beard"))
    assert glasses.attributes == ("No_Beard", "glasses", "Smiling") and beard.attributes == ("beard", "Eyeglasses", "Smiling")
    assert torch.allclose(glasses.logits(images()), MEANS) and torch.allclose(beard.logits(images())[:, 0], -MEANS[:, 0])


def test_without_a_file_beside_it_nothing_changes(tmp_path: Path) -> None:
    save_torchscript(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 1)), tmp_path / "net.pt")
    file = find(str(tmp_path / "net.pt"), "beard")
    assert file.record == {"torchscript_sha256": file.sha256}
    assert torch.equal(file.load(SHAPE).logits(images()), detectors.load_torchscript(tmp_path / "net.pt", "beard", SHAPE).logits(images()))


def test_names_inside_the_file_hold(tmp_path: Path) -> None:
    detectors.save_torchscript(Means(), tmp_path / "net.pt", ["hat", "beard", "smile"])
    (tmp_path / "net.json").write_text(json.dumps({"sign": [-1, 1, 1], "size": 4}))
    file = find(str(tmp_path / "net.pt"), "hat")
    with pytest.raises(RedactError, match="sign or threshold is a list that is not as long as names"):
        file.load(SHAPE)
    (tmp_path / "net.json").write_text(json.dumps({"sign": -1, "size": 4}))
    assert torch.allclose(file.load(SHAPE).logits(images()), -MEANS, atol=1e-6) and file.load(SHAPE).attributes == ("hat", "beard", "smile")
    assert set(file.record) == {"torchscript_sha256", "description_sha256"}
    (tmp_path / "net.json").write_text(json.dumps({"index": 1}))
    with pytest.raises(RedactError, match="the file itself names its outputs"):
        file.load(SHAPE)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"indx": 1}, "it has indx - there is: against, index, mean, names"),
        ([1], "it has no dictionary"),
        ({"index": "1"}, "index is no number"),
        ({"index": -1}, "index is no number"),
        ({"index": 1, "names": ["a", "b"]}, "names and index are both there"),
        ({"names": "beard"}, "names are no list"),
        ({"against": 1}, "against comes with an index"),
        ({"index": 1, "against": 1}, "against comes with an index"),
        ({"index": 1, "sign": 2}, "sign is neither 1 nor -1"),
        ({"index": 1, "sign": [1, -1]}, "not as long as names"),
        ({"index": 1, "threshold": "0.5"}, "threshold is no number"),
        ({"index": 1, "threshold": float("nan")}, "threshold is no number"),
        ({"index": 1, "output": "softmax"}, "there is logits, probabilities"),
        ({"index": 1, "output": "probabilities", "threshold": 0}, "no probability between 0 and 1"),
        ({"index": 1, "size": [8]}, r"size is not a number of pixels"),
        ({"index": 1, "size": 0}, r"size is not a number of pixels"),
        ({"index": 1, "mean": 0.5}, "mean and std do not go together"),
        ({"index": 1, "mean": 0.5, "std": 0}, "mean and std do not go together"),
        ({}, r"two images gave shape \[2, 3\] - it must give one finite logit"),
        ({"index": 5}, r"two images gave shape \[2, 0\] - it must give one finite logit"),
        ({"names": ["beard", "hat"]}, r"two images gave shape \[2, 3\] - it must give finite logits \[n, 2\]"),
        ({"index": 1, "mean": [0.5, 0.5], "std": [1, 1]}, r"does not take images of shape \[n, 3, 16, 16\]"),
    ],
    ids=str,
)
def test_what_is_said_wrongly_is_refused(tmp_path: Path, told: Any, message: str) -> None:
    with pytest.raises(RedactError, match=message):
        loaded(tmp_path, told, Means())


def test_a_file_beside_it_that_is_no_json_is_refused(tmp_path: Path) -> None:
    save_torchscript(Means(), tmp_path / "net.pt")
    (tmp_path / "net.json").write_text("{index: 1}")
    with pytest.raises(RedactError, match="it is no JSON"):
        find(str(tmp_path / "net.pt"), "beard").load(SHAPE)


@pytest.mark.slow
def test_torch_export(tmp_path: Path) -> None:
    """Slow: torch.export imports half of torch."""
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(Means().eval(), (images(2),), dynamic_shapes=shapes), tmp_path / "net.pt2")
    (tmp_path / "net.json").write_text(json.dumps({"index": 1, "sign": -1}))
    file = find(str(tmp_path / "net.pt2"), "beard")
    detector = file.load(SHAPE)
    assert file.record == {"file_sha256": file.sha256, "kind": "torch.export", "description_sha256": file.record["description_sha256"]}
    assert torch.allclose(detector.logits(images()), -MEANS[:, 1:2], atol=1e-6) and detector.differentiable
    assert detector.logits(images(1)).shape == (1, 1)


def test_torch_export_files_are_known_by_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick half of the test above: a file of that layout, and torch's reader replaced."""

    class Exported:
        def module(self) -> torch.nn.Module:
            return Means()

    def broken(path: Path) -> Exported:
        raise RuntimeError("of another torch\nand so on")

    for name in ("net/archive_format", "serialized_exported_program.json"):
        with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
            archive.writestr(name, "pt2")
        file = find(str(tmp_path / "net.pt2"), "beard")
        assert file.kind == "torch.export"
        (tmp_path / "net.json").write_text(json.dumps({"index": 1}))
        with monkeypatch.context() as patched:
            patched.setattr(torch.export, "load", lambda path: Exported())
            assert torch.allclose(file.load(SHAPE).logits(images()), MEANS[:, 1:2], atol=1e-6)
            patched.setattr(torch.export, "load", broken)
            with pytest.raises(RedactError, match=r"a network of torch.export was expected .* cannot be read \(of another torch\)"):
                file.load(SHAPE)
