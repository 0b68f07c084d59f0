# SPDX-License-Identifier: Apache-2.0
"""One row of `compare_methods.py`, in a process of its own, so that its peak memory is its own.

Work comes as JSON on stdin, what was found goes as JSON to stdout.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import click
import torch

from stylegan_redact import api, asking, attacks, detectors, evaluation, extractors, job, plugins
from stylegan_redact.attacks.gradient import Gradient
from stylegan_redact.attacks.relearn import Relearn
from stylegan_redact.evaluation import PairedImages
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.network import seed_range
from stylegan_redact.proof import attacking
from stylegan_redact.proof.judges import Panel
from stylegan_redact.proof.run import MOST_FEATURES
from stylegan_redact.run_dir import strict
from stylegan_redact.types import Feature, Network, RedactError
from stylegan_redact.wspace.geometry import hinge_for

NONE, FILTER = "none", "filter"
"""Rows that no method makes: the network as it is, and a sampler that rejects latents past the hinge."""
REJECTION = "stylegan_redact.wspace.rejection"
QUANTILE = 0.5
"""Of the filter's hinge, unless the row says otherwise."""
MOST_REDRAWS = 1000
W_PLUS_STEPS = 20
EXAMPLES = 10
QUESTIONS = ["residual_rate", "collateral", "image_change", "quality"]


@dataclass(frozen=True)
class Work:
    """What a row is to be made of; the same for all rows but for feature and method."""

    network: str
    feature: str
    method: str
    """With options, as in edit:hold=0."""
    classifier: str | None
    judge: str | None
    num_images: int
    num_latents: int
    starts: int
    """Of the attack in W+."""
    kimg: float | None
    """Thousands of images that every method which trains on images gets; None: each its default."""
    access: tuple[str, ...]
    seed: int
    device: str


class Filtered:
    """A generator whose mapping network hands on only w that pass: a z that does not is replaced by one that does."""

    def __init__(self, G: Any, accepted: Any) -> None:
        self._G, self._accepted = G, accepted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._G, name)

    def mapping(self, z: torch.Tensor, c: torch.Tensor | None, **options: Any) -> torch.Tensor:
        """ws [n, num_ws, w_dim]. The rows that pass stay as they are; the others' z are drawn anew, from seeds that follow from their z alone.

        Raises:
            RedactError: nothing passes.
        """
        ws = self._G.mapping(z, c, **options)
        for row in (~self._accepted(ws[:, 0])).nonzero().flatten().tolist():
            label = None if c is None else c[row : row + 1]
            ws[row] = self._redrawn(z[row], label, options)
        return ws

    def _redrawn(self, z: torch.Tensor, c: torch.Tensor | None, options: dict[str, Any]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(z.double().abs().sum().item() * 2**20))
        for _ in range(MOST_REDRAWS):
            ws = self._G.mapping(torch.randn([1, len(z)], generator=generator).to(z), c, **options)
            if bool(self._accepted(ws[:, 0])):
                return ws[0]
        raise RedactError(f"latents that pass the filter were asked - none of {MOST_REDRAWS} does - take a larger quantile")


def rows_there() -> list[str]:
    """The network as it is, every method that suppresses an attribute, by default options, and the filter if this version has it."""
    names = [name for name in plugins.names(asking.METHODS) if "label" not in plugins.load(asking.METHODS, name).needs]
    return [NONE, *names] + ([FILTER] if importlib.util.find_spec(REJECTION) is not None else [])


def measure(work: Work) -> dict[str, Any]:
    """Everything that the table shows of a row, as plain values."""
    kind, options = plugins.with_options(work.method)
    special = kind in (NONE, FILTER)
    plan = job.prepare(_request(work, "fold" if special else kind, {} if special else options))
    feature = Attribute(plan.feature, plan.detector).gather(plan.network, plan.labelled_seeds, batch=plan.batch)
    started = time.perf_counter(), time.process_time()
    if kind == NONE:
        after = plan.network
    elif kind == FILTER:
        after = filtered(plan.network, feature, float(options.get("quantile", QUANTILE)))
    else:
        after = api.redact(plan.network, feature, plan.method, seed=work.seed)
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    memory = peak_memory()
    found = evaluation.ask(_pairs(plan, after, "z"), plan.feature, questions=QUESTIONS)
    for access in work.access:
        if access != "z" and kind != FILTER:  # A filter of seeds is not met by latents that somebody kept.
            answers = evaluation.ask(_pairs(plan, after, access), plan.feature, questions=["residual_rate"])
            found |= {f"{access}_{key}": value for key, value in answers.items()}
    cost = dict(seconds=seconds, cpu_seconds=cpu_seconds, peak_memory_mib=memory)
    record = dict(feature=work.feature, method=work.method, **cost, estimates=evaluation.as_json(found))
    return record | _attacked(plan, plan.network if kind == FILTER else after, work)


def filtered(network: Network, feature: Feature, quantile: float) -> Network:
    """The network behind a sampler that rejects latents past the hinge; no weight of it changes."""
    if feature.latents is None or feature.subspace is None:
        raise RedactError(f"{feature.name} was to be filtered - there are no labelled latents of it - gather it from a classifier")
    hinge = hinge_for(feature.latents, feature.subspace, quantile)
    accepted = importlib.import_module(REJECTION).accepted
    return dataclasses.replace(network, G_ema=Filtered(network.G_ema, lambda w: accepted(w, hinge)))


def peak_memory() -> float:
    """Of this process so far, in MiB. Linux counts in what the parent had when it started this one, which imports less."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _request(work: Work, kind: str, options: dict[str, Any]) -> job.Request:
    return job.Request(
        work.network, work.feature, method=kind, method_options=budgets(kind, work.kimg) | options, classifier=work.classifier, judge=work.judge,
        seed=work.seed, num_images=work.num_images, num_latents=work.num_latents, device=work.device,
    )  # fmt: skip


def budgets(kind: str, kimg: float | None) -> dict[str, float]:
    """What each stage of a method gets of so many thousands of images: shared as the defaults of its options that end in kimg are; None: nothing."""
    stages = {each.name: each.default for each in plugins.options(plugins.load(asking.METHODS, kind)) if each.name.endswith("kimg")}
    return {} if kimg is None else {name: kimg * (default / sum(stages.values())) for name, default in stages.items()}


def _pairs(plan: job.Plan, after: Network, access: str) -> PairedImages:
    """The first MOST_FEATURES through z also described by the discriminator, where there is one."""
    extractor = extractors.DiscriminatorFeatures(plan.network.D) if plan.network.D is not None and access == "z" else None
    portions = [(plan.measured_seeds[:MOST_FEATURES], extractor), (plan.measured_seeds[MOST_FEATURES:], None)]
    return evaluation.joined(
        [
            evaluation.measure_pairs(plan.network, after, plan.judge, seeds, batch=plan.batch, access=access, extractor=describes, similarity=False)
            for seeds, describes in portions
            if len(seeds)
        ],
        len(plan.measured_seeds),
    )


def _attacked(plan: job.Plan, after: Network, work: Work) -> dict[str, Any]:
    """What it costs whoever has the file to get the feature back. The detector leads, as the attacker's; success is what all judges see."""
    second = detectors.load_bundled("second_judge", plan.device) if work.judge is None else None
    panel = Panel(plan.feature, plan.judge, second, None, "the judge", {}, attacker=plan.detector)
    scene = attacking.scene_of(panel, plan.network, plan.labels, plan.measured_seeds.stop, plan.batch)
    victim, control = attacks.Victim("after", after), attacks.Victim("before", plan.network)
    found = {}
    if plan.detector.differentiable:
        pool = seed_range(scene.fresh.stop, 100 * work.starts)
        attacked = dataclasses.replace(scene, starts=attacks.feature_free_in_all(scene, [victim, control], pool, work.starts))
        found["w_plus"] = attacks.as_json(Gradient(space="w_plus", steps=W_PLUS_STEPS).attack(victim, attacked, work.seed))
    relearn = Relearn(examples=EXAMPLES)
    found["relearn"] = attacks.as_json(relearn.attack(victim, scene, work.seed))
    # What the same judges see in the same images of the original: half of it is what has to come back.
    before = attacks.percent(scene.seen_rate(plan.network.G_ema, scene.fresh[-relearn.images :]))
    found["relearn_before"] = evaluation.as_json({"rate": before})["rate"]
    return found


@click.command()
def main() -> None:
    """Make the row that stdin asks for."""
    asked = json.load(sys.stdin)
    try:
        click.echo(json.dumps(strict(measure(Work(**asked | {"access": tuple(asked["access"])}))), allow_nan=False))
    except RedactError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
