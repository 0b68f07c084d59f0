# SPDX-License-Identifier: Apache-2.0
"""What sources that label are made of: two groups of scores, the AUC and its interval, probes with and without a gap between kinds of pictures."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import tiny
import torch

from stylegan_redact.estimates import separation
from stylegan_redact.features._groups import Groups, two_groups
from stylegan_redact.features._labelling import check_rate
from stylegan_redact.features.images import Examples, against_generated, against_without
from stylegan_redact.features.text import sides
from stylegan_redact.types import RedactError

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_odds_by_hand() -> None:
    """Bayes' rule of two normal densities, written out."""
    groups, score = Groups(low=-1.0, high=2.0, spread=0.5, share=0.2), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    by_hand = [math.log(0.2 / 0.8) - (x - 2.0) ** 2 / 0.5 + (x + 1.0) ** 2 / 0.5 for x in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(groups.log_odds(score), torch.tensor(by_hand, dtype=torch.float64))
    assert groups.apart == 6


@pytest.mark.parametrize(("share", "apart"), [(0.5, 4.0), (0.15, 4.0), (0.04, 6.0)])
def test_two_planted_groups_are_found(share: float, apart: float) -> None:
    score = 0.01 * (normal(4000) + apart * (torch.arange(4000) < 4000 * share))
    found = two_groups(score)
    assert found.share == pytest.approx(share, abs=0.02) and found.apart == pytest.approx(apart, abs=0.3)
    assert two_groups(7 + 100 * score).apart == pytest.approx(found.apart, rel=1e-4)  # Units do not matter.


def test_one_group_is_not_two() -> None:
    assert not any(two_groups(normal(2000, seed=seed)).distinct for seed in range(6))
    two = two_groups(torch.cat([torch.zeros(50), torch.ones(50)]) + 0.001 * normal(100))
    assert two.apart > 100 and two.distinct
    found = two_groups(normal(500) + 4 * (torch.arange(500) < 100))  # Schwarz's criterion of both, from densities written out.
    score = normal(500) + 4 * (torch.arange(500) < 100)
    parts = [share * torch.exp(-((score - mean) ** 2) / 2 / found.spread**2) / found.spread for share, mean in
             ((found.share, found.high), (1 - found.share, found.low))]  # fmt: skip
    one = torch.exp(-((score - score.mean()) ** 2) / 2 / score.var(correction=0)) / score.std(correction=0)
    assert found.evidence == pytest.approx(2 * float((sum(parts).log() - one.log()).sum()) - 2 * math.log(500)) and found.distinct


def test_auc_by_hand_and_its_interval_covers() -> None:
    shows, score = [True, True, False, False, False], [3.0, 1.0, 1.0, 0.0, 2.0]
    assert separation(shows, score).value == pytest.approx((3 + 0.5 + 1) / 6)
    assert separation([True] * 9 + [False] * 5, list(range(14, 0, -1))).value == 1.0
    assert separation([True] * 9 + [False] * 5, list(range(14, 0, -1))).low == pytest.approx(0.025 ** (1 / 5))  # Clopper and Pearson, 5 of 5.
    truth, covered = 0.5 * (1 + math.erf(1 / 2)), 0  # P(x + 1 > y), of two unit normals.
    for seed in range(200):
        draws = normal(150, seed=seed)
        flags = torch.arange(150) < 40
        found = separation(flags, draws + flags)
        covered += found.low <= truth <= found.high
    assert 180 <= covered <= 199


def test_a_gap_between_photographs_and_generated_pictures_drops_out() -> None:
    """The feature is 3 along axis 0; photographs lie 8 along axis 1, and a little along axis 0, where generated ones lie."""
    shows = torch.arange(2000) < 300
    generated = normal(2000, 6)
    generated[:, 0] += 3 * shows
    photographs = normal(120, 6, seed=1)
    photographs[:60, 0] += 3
    photographs += torch.tensor([1.0, 8.0, 0, 0, 0, 0])
    score, told = against_without("hat", photographs[:60], photographs[60:], generated)
    assert separation(shows, score).value > 0.95 and told.low > 0.85 and told.n == 120
    with pytest.raises(RedactError, match="its scores of 2000 generated pictures make one group"):
        against_without("hat", photographs[:60], photographs[60:], normal(2000, 6, seed=9))
    assert float((score > 0).double().mean()) == pytest.approx(0.15, abs=0.04)
    with pytest.raises(RedactError, match="it sees where pictures come from"):
        against_generated("hat", photographs[:60], generated)
    with pytest.raises(RedactError, match="hardly tells them from those without .*0.75 is needed"):
        against_without("hat", normal(60, 6, seed=2), normal(60, 6, seed=3), generated)


def test_examples_that_the_network_drew_need_no_others() -> None:
    shows = torch.arange(2300) < 345
    pictures = normal(2300, 6)
    pictures[:, 0] += 3 * shows
    score, told = against_generated("hat", pictures[:45], pictures[45:])
    assert separation(shows[45:], score).value > 0.95
    assert float((score > 0).double().mean()) == pytest.approx(300 / 2255, abs=0.04) and told.low > 0.6
    with pytest.raises(RedactError, match="hardly tells them from generated ones"):
        against_generated("hat", normal(45, 6, seed=4), pictures)


def test_without_a_discriminator_an_embedder_is_asked_for() -> None:
    net = tiny.network()
    with pytest.raises(RedactError, match="embedder=FILE"):
        Examples(path="x").prepared(type(net)(net.G, None, net.G_ema))


def test_sides_of_a_sentence() -> None:
    assert sides("a bearded man | a shaven man", "a person") == (("a bearded man",), ("a shaven man",))
    assert sides("a beard", "a dog") == (("a dog with a beard",), ("a dog without a beard", "a dog"))


def test_no_decided_picture_is_refused() -> None:
    with pytest.raises(RedactError, match="no generated image could be told"):
        check_rate("hat", torch.zeros(0))


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs open_clip")
def test_open_clip_itself(tmp_path: Path) -> None:
    """The package's own loading code, with a CLIP of its layout that is small, and random."""
    from stylegan_redact.features._clip import Clip

    open_clip = pytest.importorskip("open_clip")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (tmp_path / "tiny-clip.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = open_clip.create_model("tiny-clip")
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    clip = Clip("tiny-clip", str(tmp_path / "weights.pt"))
    img = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = clip.of_images(img)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    small = torch.nn.functional.interpolate(img, size=[32, 32], mode="bicubic", antialias=True).clamp(-1, 1)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(net.eval().encode_image((small / 2 + 0.5 - mean) / std), dim=1)
    assert float((found * expected).sum(1).min()) > 0.999  # Pillow rounds to whole levels.
    assert clip.of_texts(["a beard", "no beard"]).shape == (2, 16)
    assert clip.of_images(img[:, :1]).shape == (3, 16)  # Grey pictures too.


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (torch.linspace(0.001, 0.9, 100), r'answers lie between 0.001 and 0.9: .*"output": "probabilities"'),
        (torch.linspace(-9, -0.1, 100), r'highest answer is -0.1: .*"threshold": -0.69'),
        (torch.linspace(1, 9, 100), "choose a rarer feature$"),
        (torch.ones(100), "choose a rarer feature$"),
        (torch.linspace(-9, -1, 100), "to redact - choose a feature that it draws$"),
    ],
)
def test_a_classifier_that_gives_probabilities_is_no_matter_of_the_network(score: torch.Tensor, says: str) -> None:
    with pytest.raises(RedactError, match=says):
        check_rate("beard", score)


def test_the_advised_number_of_latents_suffices_more_often_than_not() -> None:
    with pytest.raises(RedactError, match="20 of 1000 .* label about 2000 latents"):
        check_rate("beard", torch.arange(1000) - 979.5)
