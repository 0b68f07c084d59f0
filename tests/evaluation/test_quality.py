# SPDX-License-Identifier: Apache-2.0
"""Quality: which images are compared with which, that success is not punished, and what the figures are called."""

import dataclasses
import math

import pytest
import torch

from stylegan_redact.evaluation import PairedImages, ask, render
from stylegan_redact.evaluation._frechet import frechet_distance
from stylegan_redact.evaluation._kernel import kernel_distance
from stylegan_redact.evaluation._manifold import precision_and_recall
from stylegan_redact.evaluation.quality import Quality
from stylegan_redact.extractors import INCEPTION

STEMS = ("fd-D", "fd-D_unbiased", "kid-D", "pr-D_precision", "pr-D_recall")
SETS = ("before", "after", "floor")


def described(n: int = 1200, *, redaction: str = "removes", extractor: str = "D") -> PairedImages:
    """A third of the images has a beard, which moves two of six features. A redaction removes it, leaves it, or ruins half of the images as well."""
    stream = torch.Generator().manual_seed(4)
    beard = torch.rand([n], generator=stream) < 1 / 3
    innocent = torch.randn([n, 6], generator=stream)
    moved = torch.tensor([2.0, -2.0, 0, 0, 0, 0])
    before = innocent + beard[:, None] * moved
    after = before if redaction == "leaves" else innocent.clone()
    if redaction == "ruins":
        after[: n // 2, 5] += 3
    shows = torch.where(beard, 1.0, -1.0)[:, None]
    shows_after = shows if redaction == "leaves" else torch.full_like(shows, -1)
    still = torch.zeros(n)
    return PairedImages(("beard",), shows, shows_after, still, still, torch.arange(n), "z", before, after, extractor)


def test_it_compares_the_right_images_the_right_way_round() -> None:
    pairs = described(601)
    before, after = pairs.features_before, pairs.features_after
    assert before is not None and after is not None
    free = [bool(score <= 0) for score in pairs.logits_before[:, 0]]
    reference = torch.stack([before[i] for i in range(0, 601, 2) if free[i]])
    floor = torch.stack([before[i] for i in range(1, 601, 2) if free[i]])
    odd = range(1, 601, 2)[: len(floor)]
    sets = {"before": torch.stack([before[i] for i in odd]), "after": torch.stack([after[i] for i in odd]), "floor": floor}
    expected = {}
    for name, rows in sets.items():
        figures = (*frechet_distance(reference, rows), kernel_distance(reference, rows), *precision_and_recall(reference, rows))
        expected |= {f"{stem}_{name}": figure for stem, figure in zip(STEMS, figures, strict=True)}
    answers = Quality().answer(pairs, "beard", ())
    assert answers == expected and len({estimate.value for estimate in answers.values()}) == len(answers)


def test_success_is_not_punished_and_failure_shows() -> None:
    """A redaction that removes the beard and nothing else reaches the floor; one that does nothing stays where it was; a ruinous one is worse."""
    removed, left, ruined = (Quality().answer(described(redaction=kind), "beard", ()) for kind in ("removes", "leaves", "ruins"))
    for stem in ("fd-D_unbiased", "kid-D"):
        assert removed[f"{stem}_floor"].low < 0 < removed[f"{stem}_floor"].high and removed[f"{stem}_after"].low < 0 < removed[f"{stem}_after"].high
        assert removed[f"{stem}_before"].low > removed[f"{stem}_after"].high
        assert left[f"{stem}_after"] == left[f"{stem}_before"] == removed[f"{stem}_before"]
        assert ruined[f"{stem}_after"].low > removed[f"{stem}_after"].high
    assert removed["fd-D_after"].value == pytest.approx(removed["fd-D_floor"].value, abs=0.05) and removed["fd-D_before"].value > 0.8
    assert removed["pr-D_precision_after"].value > removed["pr-D_precision_before"].high
    assert ruined["pr-D_precision_after"].high < removed["pr-D_precision_after"].low


def test_what_the_judge_says_of_images_after_does_not_matter() -> None:
    pairs = described(300)
    told = dataclasses.replace(pairs, logits_after=-pairs.logits_after)
    assert Quality().answer(told, "beard", ()) == Quality().answer(pairs, "beard", ())


def test_only_the_first_images_may_have_features() -> None:
    pairs = described(600)
    few = described(600)
    assert few.features_before is not None and few.features_after is not None
    few = dataclasses.replace(few, features_before=few.features_before[:300], features_after=few.features_after[:300])
    short = {
        field.name: getattr(few, field.name)[:300] if torch.is_tensor(getattr(few, field.name)) else getattr(few, field.name)
        for field in dataclasses.fields(few)
    }
    assert Quality().answer(few, "beard", ()) == Quality().answer(PairedImages(**short), "beard", ()) != Quality().answer(pairs, "beard", ())


@pytest.mark.parametrize(
    ("extractor", "stems"),
    [
        ("D", STEMS),
        (INCEPTION, ("fid", "fid_unbiased", "kid", "precision", "recall")),
        ("inception", tuple(stem.replace("-D", "-inception") for stem in STEMS)),  # a file of that name is not NVIDIA's
    ],
)
def test_figures_are_named_after_the_extractor(extractor: str, stems: tuple[str, ...]) -> None:
    answers = Quality().answer(described(300, extractor=extractor), "beard", ())
    assert list(answers) == [f"{stem}_{name}" for stem in stems for name in SETS]


def test_without_features_there_is_nothing_and_with_too_few_images_nan() -> None:
    pairs = described(300)
    assert Quality().answer(dataclasses.replace(pairs, features_before=None, features_after=None), "beard", ()) == {}
    answers = Quality().answer(described(100), "beard", ())
    assert list(answers) == [f"{stem}_{name}" for stem in STEMS for name in SETS]
    for key, estimate in answers.items():
        assert math.isnan(estimate.value) and 20 < estimate.n < 40, key
        assert (estimate.low, estimate.high) == ((0, 100) if key.startswith("pr-D") else (-math.inf, math.inf))


def test_it_has_its_section_in_the_table() -> None:
    text = render(ask(described(300), "beard"), "beard")
    section = text.partition("\nquality\n")[2]
    lines = [line.split("  ")[1] for line in section.splitlines() if line]
    assert lines[:4] == ["fd-D", "fd-D floor", "fd-D unbiased", "fd-D unbiased floor"] and " -> " in section.splitlines()[0]
