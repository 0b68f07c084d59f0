# SPDX-License-Identifier: Apache-2.0
"""Everyday names, CelebA's, and the bundled network's mean each other; a classifier of No_Beard answers for beard, turned round."""

from __future__ import annotations

import pytest
import torch

from stylegan_redact import detectors, names
from stylegan_redact.names import ABSENT, ATTRIBUTES, SAME
from stylegan_redact.portraits.portrait import ATTRIBUTES as BUNDLED
from stylegan_redact.types import RedactError

CELEBA = (
    "5_o_Clock_Shadow", "Bald", "Blond_Hair", "Eyeglasses", "Goatee", "Gray_Hair", "Male", "Mustache", "No_Beard", "Sideburns", "Smiling",
    "Wearing_Hat", "Young",
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "attribute", "present"),
    [
        ("glasses", "Eyeglasses", True),
        ("spectacles", "Eyeglasses", True),
        ("beard", "No_Beard", False),
        ("no-beard", "No_Beard", True),
        ("woman", "Male", False),
        ("old", "Young", False),
        ("grey hair", "Gray_Hair", True),
        ("smile", "Smiling", True),
        ("HAT", "Wearing_Hat", True),
        ("stubble", "5_o_Clock_Shadow", True),
    ],
)
def test_words_among_celebas(asked: str, attribute: str, present: bool) -> None:
    assert names.find(asked, CELEBA) == names.Match(attribute, present)


def test_celebas_names_among_the_bundled_ones() -> None:
    found = {asked: names.find(asked, BUNDLED) for asked in ("Eyeglasses", "Gray_Hair", "Wearing_Hat", "No_Beard", "Smiling")}
    assert {asked: match and (match.attribute, match.present) for asked, match in found.items()} == {
        "Eyeglasses": ("eyeglasses", True), "Gray_Hair": ("grey_hair", True), "Wearing_Hat": ("hat", True), "No_Beard": ("beard", False),
        "Smiling": ("smile", True),
    }  # fmt: skip


def test_every_word_leads_to_celeba_and_nothing_else_does() -> None:
    assert all(names.find(word, ATTRIBUTES) is not None for word in (*ATTRIBUTES, *SAME, *ABSENT))
    assert names.find("hamster", ATTRIBUTES) is None and names.find("glow", ("glow", "shine")) == names.Match("glow", True)


@pytest.mark.parametrize(
    ("asked", "says"), [("mustasche", "did you mean mustache"), ("eyeglases", "did you mean eyeglasses"), ("berd", "did you mean beard")]
)
def test_typos_get_suggestions(asked: str, says: str) -> None:
    assert says in names.advice(asked, CELEBA)
    assert names.advice("hamster", CELEBA) == "take one of these"


def test_what_is_reported_beside_a_beard() -> None:
    assert names.beside("beard", CELEBA) == ("Goatee", "Mustache", "Sideburns", "5_o_Clock_Shadow")
    assert names.beside("beard", BUNDLED) == ("mustache",) and names.beside("hat", CELEBA) == ()


class Two(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([img.mean([1, 2, 3]), img.amax([1, 2, 3])], 1)


def test_a_file_of_no_beard_is_a_classifier_of_beards(tmp_path) -> None:
    path = tmp_path / "two.pt"
    detectors.save_torchscript(Two(), path, ["Smiling", "No_Beard"])
    img = torch.rand([3, 3, 8, 8], generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain, turned = (detectors.load_torchscript(path, word, (3, 8, 8)) for word in ("no-beard", "beard"))
    assert plain.attributes == ("Smiling", "no-beard") and turned.attributes == ("Smiling", "beard") and turned.differentiable
    torch.testing.assert_close(turned.logits(img), plain.logits(img) * torch.tensor([1.0, -1.0]))
    with pytest.raises(RedactError, match="did you mean smiling"):
        detectors.load_torchscript(path, "smilling", (3, 8, 8))
