# SPDX-License-Identifier: Apache-2.0
"""Invalid pictures of a generator that is being trained: found anew, kept, sought near past ones; and functions of the user's, right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from stylegan_redact.methods.redact_validity import RedactValidity
from stylegan_redact.network import sample_z
from stylegan_redact.training import invalid
from stylegan_redact.training.invalid import InvalidPictures
from stylegan_redact.types import RedactError
from stylegan_redact.validity import Validity, load_validity


class Echo(torch.nn.Module):
    """A generator whose picture is its latent."""

    z_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.still = torch.nn.Parameter(torch.zeros([]))
        self.mapping = lambda z, c: z if c is None else torch.cat([z, c], 1)
        self.synthesis = lambda ws, noise_mode, force_fp32: ws.view(len(ws), -1, 1, 1)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def below(line: float, told: list[torch.Tensor] | None = None):  # type: ignore[no-untyped-def]
    """Valid is a first entry below the line."""

    def valid(img: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        if told is not None:
            told.append(img.flatten(1))
        return img[:, 0, 0, 0] < line

    return valid


def test_only_invalid_pictures_come() -> None:
    drawn = InvalidPictures(Echo(), below(1.0))(64, random())
    assert drawn.c is None and len(drawn.img) == 64 and bool((drawn.img[:, 0] >= 1.0).all())


def test_labels_go_with_their_pictures() -> None:
    drawn = InvalidPictures(Echo(), below(1.0), torch.eye(3)[[2]])(16, random())
    assert drawn.c is not None and torch.equal(drawn.c, torch.eye(3)[[2] * 16]) and torch.equal(drawn.img[:, 2:, 0, 0], drawn.c)


def test_found_ones_are_replayed_when_there_are_no_more() -> None:
    stream = InvalidPictures(Echo(), below(1.0))
    known = {float(value) for value in stream(64, random()).img[:, 0, 0, 0]} | {float(each.img[0]) for each in stream.found}
    stream.valid = below(100.0)
    assert {float(value) for value in stream(64, random(1)).img[:, 0, 0, 0]} <= known


def test_what_is_kept_is_bounded_in_bytes_and_holds_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invalid, "KEPT_BYTES", 10 * 8 + 7)  # A picture is two numbers.
    stream = InvalidPictures(Echo(), below(-100.0), torch.eye(3)[[2]])
    stream.G.mapping = lambda z, c: z
    for at_a_time in (None, 5):
        drawn = stream(64, random(), at_a_time)
        assert len(drawn.img) == 64 and len(stream.found) == 10
        assert all(each.untyped_storage().nbytes() == each.numel() * 4 for found in stream.found for each in (found.img, found.z, found.c))
    stream.load_state_dict(stream.state_dict())
    assert len(stream.found) == 10 and all(found.img.untyped_storage().nbytes() == 8 for found in stream.found)


def test_rare_ones_are_sought_near_past_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 2.6 lie 0.5 % of a normal variable: near past ones far more do."""
    hits = []
    for rare in (0.0, 0.05):
        monkeypatch.setattr(invalid, "RARE", rare)
        told: list[torch.Tensor] = []
        stream, generator = InvalidPictures(Echo(), below(2.6, told)), random()
        for _ in range(60):
            stream(50, generator)
        hits.append(float((torch.cat(told)[:, 0] >= 2.6).float().mean()))
    assert hits[0] < 0.01 and hits[1] > 5 * hits[0]


def test_nothing_invalid_is_said() -> None:
    with pytest.raises(RedactError, match="nothing to redact"):
        InvalidPictures(Echo(), below(1e6))(4, random())


def test_the_function_gets_pixels_and_may_not_change_them() -> None:
    seen: list[np.ndarray] = []

    def function(picture: np.ndarray) -> bool:
        seen.append(picture.copy())
        picture[:] = 0
        return bool(seen[-1][0, 0, 0] < 200)

    img = torch.tensor([-2.0, 0.0, 2.0]).view(3, 1, 1, 1).expand(3, 3, 4, 5).contiguous()
    assert Validity(function, "f")(img).tolist() == [True, True, False]
    assert seen[0].shape == (4, 5, 3) and seen[0].dtype == np.uint8
    assert [int(each[0, 0, 0]) for each in seen] == [0, 128, 255] and float(img.max()) == 2


@pytest.mark.parametrize(("body", "told"), [("1 / 0", "ZeroDivisionError"), ("None", "gave None"), ("picture.shape", "gave")])
def test_a_function_that_fails_is_reported_with_its_seed(tmp_path: Path, body: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(f"def valid(picture):\n    return {body}\n")
    valid = load_validity(f"{tmp_path / 'mine.py'}:valid")
    with pytest.raises(RedactError, match=f"seed 77 - .*{told}"):
        valid(torch.zeros([1, 3, 4, 4]), [77])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no such value", "file.py:function"),
        ("nowhere.py:valid", "no file"),
        ("{}/mine.py:other", "no function other"),
        ("{}/bad.py:valid", "cannot be run"),
    ],
)
def test_what_names_no_function_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "mine.py").write_text("def valid(picture):\n    return True\n")
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    with pytest.raises(RedactError, match=told):
        load_validity(text.format(tmp_path))


def test_a_method_trains_with_a_function_of_the_user(tmp_path: Path) -> None:
    """Told by pixels what the planted feature is; the detector is not asked."""
    net = tiny.network()
    feature = tiny.feature(net)
    (tmp_path / "mine.py").write_text("def valid(picture):\n    return bool(picture[:8, :8].mean() < 140)\n")
    method = RedactValidity(kimg=0.048, batch=16, validity=f"{tmp_path / 'mine.py'}:valid")
    after = method.redact(net, feature, (), 3)
    assert not torch.equal(after.G_ema.synthesis.b4.const, net.G_ema.synthesis.b4.const)
    (tmp_path / "mine.py").write_text("def valid(picture):\n    raise KeyError('beard')\n")
    with pytest.raises(RedactError, match="KeyError.*beard"):
        method.redact(net, feature, (), 3)


def test_near_latents_are_normal_again() -> None:
    """The seeds' own z else: what NVIDIA's tools draw for them."""
    told: list[torch.Tensor] = []
    stream = InvalidPictures(Echo(), lambda img, seeds: told.append(torch.cat([img.flatten(1), sample_z(seeds, 2)], 1)) or img[:, 0, 0, 0] < 0)
    stream(16, random())
    assert torch.equal(told[0][:, :2], told[0][:, 2:])
