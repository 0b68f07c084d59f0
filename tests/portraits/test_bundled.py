# SPDX-License-Identifier: Apache-2.0
"""The files that come with the package: what they hold, that they are ours, and that they do what the docs say of them."""

from __future__ import annotations

import ast
import inspect
import json

import numpy as np
import pytest
import torch

from stylegan_redact import detectors
from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.network import generate, load_network, sample_w
from stylegan_redact.networks import stylegan2
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.portraits.faint import PARTIAL, draw_faint
from stylegan_redact.portraits.portrait import ATTRIBUTES
from stylegan_redact.portraits.train_classifiers import HELD_OUT_SEED, to_tensor

NETWORK = detectors.PORTRAITS / "portraits64.pkl"
NUM_DRAWINGS = 1000
NUM_SEEDS = 600


@pytest.fixture(scope="module")
def snapshot():
    return read_snapshot(NETWORK)


@pytest.fixture(scope="module")
def logits(snapshot) -> dict[str, torch.Tensor]:
    """What either classifier says of the first seeds: role -> [n, attributes]."""
    network = load_network(snapshot)
    images = list(generate(network.G_ema, sample_w(network.G_ema, range(NUM_SEEDS)), batch=50))
    return {role: torch.cat([detectors.load_bundled(role).logits(img) for img in images]) for role in detectors.BUNDLED_ROLES}


def test_network_is_small_and_embeds_our_present_source(snapshot) -> None:
    assert NETWORK.stat().st_size <= 6_000_000
    ours = inspect.getsource(stylegan2)
    for key in ("G", "D", "G_ema"):
        embedded = snapshot.modules[key].module_src
        assert embedded == ours, f"{key}: run the training command again, which writes the pickle with the present source"
        ast.parse(embedded, feature_version=(3, 7))
    assert snapshot.training_set_kwargs is None and snapshot.redaction is None


@pytest.mark.parametrize("role", detectors.BUNDLED_ROLES)
def test_classifiers_know_each_attribute_of_drawings_they_never_saw(role: str) -> None:
    classifier = detectors.load_bundled(role)
    assert classifier.attributes == ATTRIBUTES
    images, truth = draw_portraits(HELD_OUT_SEED, NUM_DRAWINGS)
    with torch.no_grad():
        shows = classifier.logits(to_tensor(images)).numpy() > 0
    right = (shows == truth).mean(axis=0)
    assert right.min() >= 0.99, dict(zip(ATTRIBUTES, np.round(right, 4), strict=True))
    assert (shows == truth).mean() > (shows == ~truth).mean()  # the sign of a logit


def test_classifiers_are_of_three_kinds() -> None:
    assert len({type(detectors.load_bundled(role).net) for role in detectors.BUNDLED_ROLES}) == 3


def test_classifiers_agree_on_what_the_network_draws(logits) -> None:
    for role in ("detector", "second_judge"):
        agree = ((logits[role] > 0) == (logits["judge"] > 0)).float().mean(dim=0)
        assert float(agree.min()) > 0.85 and float(agree.mean()) > 0.95, (role, dict(zip(ATTRIBUTES, agree.tolist(), strict=True)))


def test_what_the_judge_is_said_to_overlook_is_what_it_overlooks() -> None:
    told = json.loads((detectors.PORTRAITS / "judge_misses.json").read_text())
    images, truth = draw_faint(HELD_OUT_SEED, NUM_DRAWINGS)
    with torch.no_grad():
        shows = detectors.load_bundled("judge").logits(to_tensor(images)).numpy() > 0
    assert list(told) == list(ATTRIBUTES)
    for name in PARTIAL:
        missed, of = told[name]
        column = ATTRIBUTES.index(name)
        some = clopper_pearson(int((truth & ~shows)[:, column].sum()), int(truth[:, column].sum()), 0.9999)
        assert some.low <= missed / of <= some.high and of > 900, name


def test_network_draws_beards_at_a_tenth_to_a_fifth(logits) -> None:
    rate = float((logits["judge"][:, ATTRIBUTES.index("beard")] > 0).float().mean())
    assert 0.07 < rate < 0.23  # 10 to 20 % within the error of so few seeds
