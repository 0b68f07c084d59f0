# SPDX-License-Identifier: Apache-2.0
"""Attacks on a redacted network and on its controls, one after the other, each kept as soon as it is there."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan_redact import asking, attacks, plugins, run_dir
from stylegan_redact.attacks import Curve, Scene, Victim
from stylegan_redact.attacks.resurface import Resurface
from stylegan_redact.labels import Labels
from stylegan_redact.network import seed_range
from stylegan_redact.progress import Progress
from stylegan_redact.proof.judges import Panel
from stylegan_redact.types import Estimate, Network

PRESETS: Mapping[str, tuple[str, ...]] = {
    "all": (
        "random_search", "cem", "gradient:space=z", "gradient:space=w", "gradient:space=w_plus", "gradient:space=s", "moon", "inversion",
        "relearn:examples=1", "relearn:examples=10", "relearn:examples=100", "resurface",
    ),
    "latent": ("random_search", "cem", "gradient:space=z", "gradient:space=w", "gradient:space=w_plus", "gradient:space=s", "moon"),
}  # fmt: skip
FRESH = 20_000
"""Seeds that attacks draw from: for the prior, for examples, for rates."""
_UNDEFENDED: Mapping[str, str] = {
    "gradient:space=s": "The style vectors S are read after every style layer: an edit there or in the mapping network does not reach them.",
    "relearn": "Whoever has the weights may train them: no edit forbids relearning, it can only make it dearer.",
}
CLEAN_STEPS = 50
"""Of training on images without the feature, which make the control `clean`."""


def parse(names: Sequence[str]) -> dict[str, Any]:
    """gradient:space=z:steps=50 -> the attack, under that name; presets are spelt out.

    Raises:
        RedactError: an attack or an option that there is not.
    """
    found: dict[str, Any] = {}
    for name in [each for asked in names for each in PRESETS.get(asked, (asked,))]:
        kind, values = plugins.with_options(name)
        found[name] = plugins.build(plugins.load(asking.ATTACKS, kind), values)
    return found


def scene_of(panel: Panel, original: Network, labels: Labels | None, first_seed: int, batch: int) -> Scene:
    """Of attacks led by the panel's attacker, witnessed by its judges; still without starting points."""
    assert panel.attacker is not None
    witnesses = (panel.judge,) if panel.second is None else (panel.judge, panel.second)
    return Scene(panel.feature, panel.attacker, witnesses, original, labels, (), seed_range(first_seed, FRESH), batch, panel.pictures)


def remarks(curves: Mapping[str, Any]) -> tuple[str, ...]:
    """What kinds of edit cannot defend, of the attacks that were made."""
    return tuple(text for name, text in _UNDEFENDED.items() if any(asked.startswith(name) for asked in curves))


def victims_of(before: Network, after: Network, scene: Scene, seed: int) -> list[Victim]:
    """after, and the controls before and, where there is a discriminator to train against, clean."""
    found = [Victim("after", after), Victim("before", before)]
    if before.D is not None:
        *_, (_, student) = Resurface(steps=CLEAN_STEPS).trained(before, scene, seed)
        found.append(Victim("clean", dataclasses.replace(before, G=copy.deepcopy(student), G_ema=student.requires_grad_(False))))
    return found


def run(
    asked: Mapping[str, Any], victims: Sequence[Victim], scene: Scene, seed: int, folder: Path, progress: Progress
) -> dict[str, dict[str, Curve]]:
    """Attack -> victim -> curve. What is in the folder already is read."""
    folder.mkdir(exist_ok=True)
    curves: dict[str, dict[str, Curve]] = {}
    for name, attack in asked.items():
        curves[name] = {}
        for victim in victims:
            path = folder / f"{name.replace(':', '-').replace('=', '-')}-{victim.name}.json"
            there = run_dir.read_json(path)
            if there is None:
                progress.tell(f"Attack {name} on {victim.name}")
                there = attacks.as_json(attack.attack(victim, scene, seed, progress))
                run_dir.write_json(path, there)
            curves[name][victim.name] = _curve(there)
    return curves


def _curve(told: Mapping[str, Any]) -> Curve:
    points = {int(cost): _estimate(each) for cost, each in told["points"].items()}
    return Curve(told["unit"], told["what"], points, {name: _estimate(each) for name, each in told["figures"].items()})


def _estimate(told: Mapping[str, Any]) -> Estimate:
    value, low, high = (float("nan") if told[name] is None else float(told[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, told["n"], told["unit"])
