# SPDX-License-Identifier: Apache-2.0
"""Directions of other tools: what is read, what is refused, sign and threshold, SeFa against an obvious computation."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch

from stylegan_redact import feature_requests
from stylegan_redact.features._direction_file import read_direction
from stylegan_redact.features.direction import Direction
from stylegan_redact.features.sefa import Sefa
from stylegan_redact.network import sample_w, style_layers
from stylegan_redact.types import Feature, LabelledLatents, Network, RedactError
from stylegan_redact.wspace.calibrate import by_labels, by_quantile
from stylegan_redact.wspace.sefa import amplified_directions

pytestmark = pytest.mark.usefixtures("one_thread")
WAY = np.arange(1.0, 9.0)
UNIT = torch.from_numpy(WAY / np.linalg.norm(WAY))


@pytest.fixture(scope="module")
def G() -> Any:
    return tiny_run.generator()


def write(path: Path, value: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, value)
    elif path.suffix == ".npz":
        np.savez(path, **value)
    elif path.suffix == ".pt":
        torch.save(value, path)
    else:
        path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("name", "value", "index"),
    [
        ("a.npy", WAY, None),
        ("a.npy", WAY[None].astype(np.float32), None),  # InterFaceGAN
        ("a.pt", torch.from_numpy(WAY)[None].float(), None),  # e4e
        (
            "a.pt",
            {"comp": torch.eye(8)[:, None] * 2 + 0, "mean": torch.zeros(8), "std": torch.ones(8)}
            | {"comp": torch.from_numpy(np.stack([WAY[::-1].copy(), WAY]))[:, None]},
            1,
        ),  # noqa: E501 - GANSpace in e4e
        ("a.npz", {"lat_comp": np.stack([WAY[::-1], WAY])[:, None], "lat_mean": np.zeros(8)}, 1),  # GANSpace
        ("a.pt", {"eigvec": torch.from_numpy(np.stack([WAY[::-1].copy(), WAY], 1)), "ckpt": "x"}, 1),  # SeFa of rosinality's repository
        ("a.npz", {"whatever": WAY}, None),
        ("a.json", WAY.tolist(), None),
        ("a.json", {"direction": WAY.tolist(), "space": "w"}, None),
    ],
)
def test_files_of_other_tools(G: Any, tmp_path: Path, name: str, value: Any, index: int | None) -> None:
    found = read_direction(write(tmp_path / name, value), G, index=index)
    torch.testing.assert_close(found.unit, UNIT, atol=1e-6, rtol=0)
    assert found.space == "w" and found.notes == ()


def test_of_w_plus_what_the_layers_share(G: Any, tmp_path: Path) -> None:
    rows = np.zeros([G.num_ws, 8])
    rows[1:3] = [-WAY, -2 * WAY]
    found = read_direction(write(tmp_path / "a.npy", rows[None]), G)
    torch.testing.assert_close(found.unit, -UNIT)  # The sign of the file, not that of a decomposition.
    assert found.space == "w_plus" and f"moves 2 of {G.num_ws} layers (100 % in common)" in found.notes[0]
    rows[4] = 90 * np.eye(8)[0]
    with pytest.raises(RedactError, match=r"makes up \d+ % of it, less than 90 % - methods here move all layers alike"):
        read_direction(write(tmp_path / "b.npy", rows), G)


def test_style_channels_are_what_a_finite_difference_says(G: Any, tmp_path: Path) -> None:
    name = list(style_layers(G))[2]
    found = read_direction(write(tmp_path / "a.json", [[name, 3, 2.0], [0, 1]]), G)
    layers = [affine for _, affine in style_layers(G).values()]

    def read(w: torch.Tensor) -> torch.Tensor:
        return 2 * layers[2](w)[:, 3] + layers[0](w)[:, 1]

    step = torch.cat([read(torch.eye(8)[[i]]) - read(torch.zeros(1, 8)) for i in range(8)]).double()
    torch.testing.assert_close(found.unit, step / step.norm(), atol=1e-5, rtol=0)
    assert found.space == "s"
    for channels, says in ([[["b9", 0]], "layer 'b9' was named"], [[[0, 999]], "channel 999"]):
        with pytest.raises(RedactError, match=says):
            read_direction(write(tmp_path / "a.json", channels), G)


@pytest.mark.parametrize(
    ("name", "value", "options", "says"),
    [
        ("a.npy", np.ones(9), {}, "its last dimension is 9, this network's w has 8"),
        ("a.npy", np.zeros(8), {}, "zero or not finite"),
        ("a.npy", np.array(["x"] * 8), {}, "it must be numbers"),
        ("a.npy", np.ones([3, 8]), {}, "choose one with index=N"),
        ("a.npy", np.ones([3, 8]), {"index": 3}, "number 3 was asked of 3"),
        ("a.npy", np.ones(8), {"space": "z"}, "a direction of z is none of w"),
        ("a.npz", {"a": WAY, "b": WAY}, {}, r"several arrays \(a, b\)"),
        ("a.json", {"direction": WAY.tolist(), "space": "z"}, {}, "it says that it is of the space z"),
        ("a.json", {"channels": [1, 2]}, {}, "no list of"),
    ],
)
def test_refusals(G: Any, tmp_path: Path, name: str, value: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(RedactError, match=says):
        read_direction(write(tmp_path / name, value), G, **options)


def test_nothing_in_a_file_is_run(G: Any, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return (Path.touch, (tmp_path / "executed",))

    for name, data in (("a.pt", pickle.dumps(Hostile())), ("a.npy", pickle.dumps(Hostile())), ("a.json", b"{"), ("a.npz", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RedactError, match="cannot be read without running code"):
            read_direction(tmp_path / name, G)
    np.save(tmp_path / "b.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    for name, says in (("b.npy", "cannot be read"), ("c.npy", "no such file"), ("c.txt", r"ends in \.txt")):
        with pytest.raises(RedactError, match=says):
            read_direction(tmp_path / name, G)
    assert not (tmp_path / "executed").exists()


def test_another_network_is_told(G: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"direction": WAY.tolist(), "network_sha256": "a" * 64})
    assert "is a direction of the network aaaaaaaaaaaa..., this one is bbbbbbbbbbbb" in read_direction(path, G, "b" * 64).notes[0]
    assert read_direction(path, G, "a" * 64).notes == read_direction(path, G).notes == ()


def test_sign_and_threshold_by_labels() -> None:
    w = torch.randn([400, 8], generator=torch.Generator().manual_seed(1))
    position = w.double() @ UNIT
    latents = LabelledLatents(w, (-position - 0.8).float())  # Shows where the file points away from, past 0.8.
    subspace, turned = by_labels(UNIT, latents)
    assert turned and subspace.accuracy == 1
    torch.testing.assert_close(subspace.basis[0], -UNIT)
    assert float(subspace.threshold[0]) == pytest.approx(0.8, abs=0.05)
    assert not by_labels(-UNIT, latents)[1]
    with pytest.raises(RedactError, match="9 labels say that it shows"):
        by_labels(UNIT, LabelledLatents(w, torch.arange(400.0) - 390))
    bare = by_quantile(UNIT, w, 0.8)
    assert float((position > bare.threshold[0]).double().mean()) == pytest.approx(0.2, abs=0.003) and bare.accuracy != bare.accuracy


def test_sefa_is_the_singular_vectors_of_the_stacked_weights(G: Any) -> None:
    weights = [affine.weight * affine.weight_gain for _, affine in style_layers(G).values()]  # type: ignore[operator]
    rows, sizes = amplified_directions(weights)
    _, expected, vectors = np.linalg.svd(np.concatenate([weight.double().numpy() for weight in weights]))
    np.testing.assert_allclose(sizes, expected, rtol=1e-6)
    np.testing.assert_allclose((rows.numpy() * vectors).sum(1) ** 2, 1, rtol=1e-6)
    planted, by = amplified_directions([torch.diag(torch.tensor([1.0, 5.0, 2.0]))])
    assert planted.argmax(1).tolist() == [1, 2, 0] and by.tolist() == pytest.approx([5, 2, 1])
    with pytest.raises(RedactError, match="0 style layers"):
        amplified_directions([])


def test_features_gathered_from_directions(G: Any, tmp_path: Path) -> None:
    net = Network(G, None, G)
    path = write(tmp_path / "glow.npy", WAY)
    feature = Direction(str(path), quantile=0.7).gather(net, range(200))
    assert feature.name == "glow" and feature.detector is None and feature.latents is not None and feature.subspace is not None
    assert float((feature.latents.score > 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(feature.latents.w, sample_w(G, range(200)))
    known = Feature("glow", LabelledLatents(feature.latents.w, -feature.latents.score))
    turned = Direction(str(path), known=known).gather(net, range(3))
    assert turned.subspace is not None and torch.allclose(turned.subspace.basis[0], -UNIT) and turned.latents is known.latents
    for index in (0, 7):
        sefa = Sefa(index).gather(net, range(50))
        assert sefa.name == f"sefa{index}" and sefa.subspace is not None and sefa.subspace.basis.shape == (1, 8)
    with pytest.raises(RedactError, match="there are 8"):
        Sefa(8).gather(net, range(50))


def test_what_the_command_line_names() -> None:
    assert feature_requests.asked("beard,hat").source == "attribute" and feature_requests.asked("attribute:beard").value == "beard"
    asked = feature_requests.asked("direction:C:/x/y.npy:quantile=0.9:flip=true:name=beard")
    assert (asked.source, asked.value) == ("direction", "C:/x/y.npy") and asked.options == {"quantile": 0.9, "flip": True, "name": "beard"}
    assert feature_requests.asked("person:a:b=c").value == "a:b=c"
    with pytest.raises(RedactError, match="there is no source 'hat'; there are attribute:NAME"):
        feature_requests.asked("hat:3")
