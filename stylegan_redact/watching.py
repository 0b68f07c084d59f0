# SPDX-License-Identifier: Apache-2.0
"""A redaction that is looked at while it is made: tick lines, snapshots, and an end as soon as the measured targets hold."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stylegan_redact import api, evaluation, pictures, ranks, snapshots, ticks
from stylegan_redact.keeping import Moment, Over
from stylegan_redact.measuring import Measurement
from stylegan_redact.progress import Progress
from stylegan_redact.running import Run
from stylegan_redact.types import Estimate, Feature, Network, RedactError

MOST_LOOKED_AT = 4_000
"""Seeds of a look."""


class Enough(Over):
    """The targets hold: the network that meets them, and after how many images of the training."""

    def __init__(self, network: Network, images: int) -> None:
        super().__init__(f"enough after {images} images")
        self.network, self.images = network, images


@dataclass(frozen=True)
class EarlyStop:
    """Told every moment of a training (`checkpoints.Checkpoints`); a run that was resumed looks at the same moments."""

    every: int
    """Images of the training between two looks."""
    measure: Callable[[Network], Mapping[str, Estimate]]
    """On seeds of its own: neither labelled nor measured in the end."""
    targets: tuple[evaluation.Target, ...]
    say: Callable[[str], None]

    def __call__(self, moment: Moment) -> None:
        """Looks, if it is time to.

        Raises:
            Enough: all targets are met.
        """
        if moment.so_far is None or moment.share >= 1 or moment.images // self.every == (moment.images - moment.step_images) // self.every:
            return
        network = moment.so_far()
        estimates = self.measure(network)
        verdicts = evaluation.check(estimates, evaluation.measurable(estimates, self.targets))
        missed = [each.target.text for each in verdicts if not each.met]
        told = f"After {moment.images / 1000:g} thousand images {len(verdicts) - len(missed)} of {len(verdicts)} targets are met"
        self.say(f"{told}: it stops here" if not missed else f"{told}; not: {'; '.join(missed)}")
        if not missed:
            raise Enough(network, moment.images)


@dataclass
class Watched:
    """A redacted network and how it came to be."""

    network: Network
    record: Mapping[str, Any] = field(default_factory=dict)
    """For the pickle: after how many images the training was ended, if it was."""


def looked_seeds(request: Any, method: Any, who: Any, seeds: range) -> range:
    """Seeds to look at while it is made, none of which is labelled, or measured in the end; none if no early stop was asked.

    Args:
        request: Has `early_stop` and `snap`, thousands of images between two looks or snapshots; `num_images`, to measure in the end, from the middle
                 of `seeds`; and `method`, a name.
        method:  Its instance; one whose training can be looked at says so: `watched: ClassVar[bool] = True`.
        who:     Who knows what, a casting.Cast.
        seeds:   All that the run may use.

    Raises:
        RedactError: there is nothing to look at, nobody could say when to stop, several processes would have to look, or no seeds are left.
    """
    early_stop, num_images = request.early_stop, request.num_images
    for name, kimg in (("--early-stop", early_stop), ("--snap", request.snap)):
        if kimg is not None and not getattr(method, "watched", False):
            raise RedactError(f"{name}={kimg:g} was asked - {request.method} has no training of so many images to look at - leave it out")
        end = getattr(method, "kimg", math.inf) + getattr(method, "batch", 0) / 1000  # Whole steps may go a little past it.
        if kimg is not None and end < kimg < math.inf:
            raise RedactError(f"{name}={kimg:g} was asked - the training ends before that, at --kimg={method.kimg:g} - give less, or leave it out")
    if early_stop is None:
        return range(0)
    asked, most = f"--early-stop={early_stop:g} was asked", len(seeds) // 2 - MOST_LOOKED_AT
    if not math.isfinite(early_stop) or round(1000 * early_stop) < 1:
        raise RedactError(f"{asked} - it is thousands of images between two looks - give a finite number, of one image (0.001) at least")
    if who.class_index is not None or who.sitting is not None or not set(who.features) <= set(who.judge.attributes):
        raise RedactError(f"{asked} - no judge rates attributes here, so nobody can say when - give --judge, or leave it out")
    if ranks.world().size > 1:
        raise RedactError(f"{asked} on {ranks.world().size} processes - it is looked at on one only - leave it out, or use one process")
    if num_images > most:
        raise RedactError(f"{asked} with --num-images={num_images} - no seeds are left to look at - measure on at most {most}")
    return seeds[len(seeds) - min(num_images, MOST_LOOKED_AT) :]


def redact(plan: Any, feature: Feature, layout: pictures.Layout | None, run: Run, progress: Progress) -> Watched:
    """The network redacted as planned, or as far as it took.

    Args:
        plan:     A job.Plan.
        feature:  As it was labelled.
        layout:   Which pictures snapshots show; None: there are none.
        run:      It can save networks.
        progress: Told.
    """
    watchers: list[Callable[[Moment], None]] = []
    if plan.request.snap is not None and layout is not None and feature.latents is not None:
        draw = functools.partial(pictures.save_one, layout=layout, batch=plan.batch, c=pictures.labels_of(feature.latents, layout.seeds))
        watchers.append(snapshots.of_run(plan.request.snap, run, draw))
    if plan.request.early_stop is not None:
        measure = functools.partial(_look, plan, progress)
        watchers.append(EarlyStop(round(1000 * plan.request.early_stop), measure, evaluation.targets_of(plan.features), progress.tell))

    tick = ticks.Ticks(run.folder, progress)

    def observe(moment: Moment) -> None:
        tick(moment)
        with tick.maintaining():
            for watcher in watchers:
                watcher(moment)

    run.checkpoints.observe = observe
    try:
        return Watched(api.redact(plan.network, feature, plan.method, keep=plan.keep, seed=plan.request.seed, progress=progress))
    except Enough as enough:
        for network in (enough.network.G, enough.network.G_ema):
            network.requires_grad_(False)
            network.eval()
        return Watched(enough.network, {"stopped_after_images": enough.images})


def _look(plan: Any, progress: Progress, after: Network) -> Mapping[str, Estimate]:
    how: dict[str, Any] = dict(labels=plan.labels, whole_class=False, half=False)
    measurement = Measurement(plan.network, after, plan.judge, plan.features, plan.keep, plan.looked_seeds, ("z",), plan.batch, **how)
    return measurement.answers(progress, stage="look")[0]
