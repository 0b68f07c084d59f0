# SPDX-License-Identifier: Apache-2.0
"""What is to be proved of two pickles: a request is checked and becomes a plan."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stylegan_redact import asking, class_requests, detectors, extractors, meant, network_files, run_dir, steering
from stylegan_redact.attacks.inversion import Inversion
from stylegan_redact.labels import Labels, of_class
from stylegan_redact.network import c_dim_of, draws_noise, load_network, seed_range, span
from stylegan_redact.network_files import NetworkFile
from stylegan_redact.precision import no_shortcuts
from stylegan_redact.proof import attacking, judges
from stylegan_redact.types import Network, RedactError
from stylegan_redact.version import VERSION

FIRST_SEED = 7_500_000
"""Of an evaluation with --seed=0: none that the main job labels or, unless it is asked for millions, measures on."""
DEFAULT_IMAGES = {"cpu": 10_000, "cuda": 50_000}
NOISE_MODES = ("const", "random")
RANDOM_SHARE = 4
"""Of the seeds, a quarter is measured with random noise too."""


@dataclass(frozen=True)
class Request:
    """What the command line says."""

    before: str
    after: str
    feature: str
    outdir: str = "redact-runs"
    judge: str | None = None
    second_judge: str | None = None
    judge_misses: str | None = None
    """MISSES/N: how many of N images that truly show the feature the judge overlooked."""
    extractor: str = "D"
    keep: tuple[str, ...] = ()
    psi: tuple[float, ...] = (1.0, 0.7)
    noise: tuple[str, ...] = NOISE_MODES
    access: tuple[str, ...] = ("z",)
    seed: int = 0
    num_images: int | None = None
    batch_gpu: int | None = None
    device: str = "auto"
    classes: str | None = None
    trust_source: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    """Of `attacks/`, with options as in gradient:space=z, or presets."""
    attacker: str | None = None
    """The classifier that leads the attacks."""
    attacked: int = 64
    """Starting points of each attack."""
    positives: str | None = None
    """Folder of pictures that show the feature, for inversion."""


@dataclass(frozen=True)
class Cell:
    """One way to sample: what one table of figures is of."""

    psi: float
    noise: str
    access: str

    def __str__(self) -> str:
        return f"psi {self.psi:g}, {self.noise} noise, {self.access}"

    @property
    def slug(self) -> str:
        """For file names."""
        return f"psi{self.psi:g}-{self.noise}-{self.access}"


@dataclass(frozen=True)
class Plan:
    """A request that can be met, with all that was read to find out. Nothing has been written so far."""

    request: Request
    files: tuple[NetworkFile, NetworkFile]
    before: Network
    after: Network
    feature: str
    keep: tuple[str, ...]
    panel: judges.Panel
    extractor: extractors.FeatureExtractor | None
    labels: Labels | None
    cells: tuple[Cell, ...]
    """The first is the one that all questions are asked of."""
    seeds: range
    batch: int
    half: bool
    attacks: Mapping[str, Any]
    """By the name that they were asked by."""
    notes: tuple[str, ...]
    """What the user should know before anything is measured."""

    def seeds_of(self, cell: Cell) -> range:
        """All of them, but where noise is random: there the first quarter, since it changes little and is there to be sure of."""
        return self.seeds if cell.noise == "const" or cell == self.cells[0] else self.seeds[: max(len(self.seeds) // RANDOM_SHARE, 1)]


def prepare(request: Request) -> Plan:
    """Reads and checks all that the request names.

    Raises:
        RedactError: something is missing, damaged, unknown or out of its range, the networks differ in shape, or the judge steered the redaction.
    """
    device = meant.device_of(request.device)
    no_shortcuts(device)
    run_dir.check_outdir(request.outdir)
    files = network_files.find_network(request.before), network_files.find_network(request.after)
    before, after = (load_network(file.snapshot, device, trust_source=request.trust_source) for file in files)
    _check_shapes(before.G_ema, after.G_ema)
    network_files.check_size(before.G_ema)
    if class_requests.is_class(request.feature):
        raise RedactError(f"--feature={request.feature} was asked - a whole class is measured by the run that substitutes it - name an attribute")
    G: Any = before.G_ema
    labels = of_class(request.classes, c_dim_of(G), files[0].name)
    asked = attacking.parse(request.attacks)
    panel = judges.find(request, files, G, device)
    if asked and panel.attacker is None:
        raise RedactError("attacks were asked - nobody leads them - give --attacker=FILE, TorchScript, differentiable, that knows the feature")
    if panel.pictures is None and any(isinstance(attack, Inversion) for attack in asked.values()):
        raise RedactError("the attack inversion was asked - it needs pictures that show the feature - give --positives=DIR, or other attacks")
    detectors.column(panel.judge, panel.feature)
    keep = tuple(steering.attribute_name(name, panel.judge.attributes, "attribute to keep", "the judge") for name in request.keep)
    if panel.feature in keep:
        raise RedactError(f"{panel.feature!r} was to be redacted and kept - it can be one of the two - take it out of --keep")
    batch = request.batch_gpu or meant.default_batch(device, G.img_resolution)
    first = request.seed * asking.SEEDS_PER_RUN + FIRST_SEED
    seeds = seed_range(first, request.num_images or DEFAULT_IMAGES[device.type])
    tested = [class_requests.self_test(net, labels, seeds, batch) for net in (before, after)]
    cells, notes = _cells(request, before, after)
    return Plan(
        request, files, before, after, panel.feature, keep, panel,
        extractor=None if request.extractor == "none" else extractors.load_extractor(request.extractor, before, device),
        labels=labels, cells=cells, seeds=seeds, batch=batch, half=all(each.half for each in tested), attacks=asked,
        notes=(*(each.told for each in tested if each.told), *panel.notes, *notes, *_relation(files)),
    )  # fmt: skip


def resolved(plan: Plan) -> dict[str, Any]:
    """Every option as it will be used; options.json. The same for a run that goes on from where it was killed."""
    return {
        **asdict(plan.request),
        "feature": plan.feature,
        "keep": plan.keep,
        "before_sha256": plan.files[0].snapshot.sha256,
        "after_sha256": plan.files[1].snapshot.sha256,
        "judges": plan.panel.record,
        "cells": [str(cell) for cell in plan.cells],
        "seeds": span(plan.seeds),
        "batch_gpu": plan.batch,
        "half": plan.half,
        "versions": {"stylegan-redact": VERSION, "torch": torch.__version__},
    }


def scope(plan: Plan) -> str:
    """What the figures hold for, in a sentence."""
    psis = " and ".join(f"{psi:g}" for psi in dict.fromkeys(cell.psi for cell in plan.cells))
    noise = " and ".join(dict.fromkeys(cell.noise for cell in plan.cells))
    ways = " and ".join(dict.fromkeys(cell.access for cell in plan.cells))
    quarter = " (with random noise the first quarter)" if "random" in noise and "const" in noise else ""
    return (
        f"Scope: z ~ N(0, I), {len(plan.seeds):,} fresh seeds from {plan.seeds.start}, psi {psis}, {noise} noise{quarter}, entering through {ways}, "
        f"as {plan.panel.told} sees it. Nothing here says that no input whatever gives the feature."
    )


def _cells(request: Request, before: Network, after: Network) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    noisy = [mode for mode in request.noise if mode != "const"]
    modes, notes = request.noise, tuple[str, ...]()
    if noisy and not any(draws_noise(net.G_ema) for net in (before, after)):
        modes, notes = ("const",), ("Random noise draws the same images: no layer of either network adds any. It is not measured again.",)
    if 0 in request.psi:
        notes += ("At psi 0 all seeds draw one picture, of each class: n counts seeds there, not pictures, and no interval at psi 0 means anything.",)
    return tuple(Cell(psi, noise, access) for access, noise, psi in itertools.product(request.access, modes, request.psi)), notes


def _check_shapes(before: Any, after: Any) -> None:
    told = []
    for name in ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels"):
        one, other = getattr(before, name), getattr(after, name)
        if one != other:
            told.append(f"{name} {one} and {other}")
    if told:
        raise RedactError(f"two networks were to be compared seed by seed - they have {', '.join(told)} - give a network and what was made of it")


def _relation(files: Sequence[NetworkFile]) -> tuple[str, ...]:
    """What the file after says of the file before, if that is not what is expected."""
    before, after = (file.snapshot for file in files)
    if before.sha256 == after.sha256:
        return ("Before and after are the same file: every change below is 0.",)
    if after.sha256 in network_files.made_of(before):
        return ("The file before says that it was made of the file after: these two seem to be exchanged.",)
    origins = network_files.made_of(after)
    if origins and before.sha256 not in origins:
        return (f"The file after says that it was made of another file ({origins[0][:12]}...) than the one given as before.",)
    one, other = ({name: tensor.shape for name, tensor in snapshot.modules["G_ema"].tensors.items()} for snapshot in (before, after))
    if one != other:
        return ("G_ema has other tensors after than before, and was hardly made of it: what is compared seed by seed may be strangers.",)
    return ()
