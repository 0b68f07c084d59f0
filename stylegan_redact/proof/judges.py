# SPDX-License-Identifier: Apache-2.0
"""Who judges two given networks: a judge, perhaps a second one, and how much the first is known to overlook. Neither steered the redaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from stylegan_redact import detectors, evaluation, steering
from stylegan_redact.backends import find as backends
from stylegan_redact.network_files import NetworkFile
from stylegan_redact.photos import read_images
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.portraits.portrait import ATTRIBUTES
from stylegan_redact.types import Detector, RedactError

HELD_OUT_SEED = 910_000
"""Of drawings that no network here was trained on."""
DRAWN = 32
MISSES = detectors.PORTRAITS / "judge_misses.json"
"""Of the bundled judge: attribute -> [overlooked, of so many drawings that show it]."""


@dataclass(frozen=True)
class Panel:
    """One or two judges who look at the same images: a detector whose columns are those of the first, then those of the second."""

    feature: str
    judge: Detector
    second: Detector | None
    misses: tuple[int, int] | None
    """Of the judge: overlooked, and of how many that show the feature."""
    told: str
    """The judge, in words."""
    record: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    attacker: Detector | None = None
    """Whose gradient leads attacks; it may have steered the redaction, since it judges nothing."""
    pictures: torch.Tensor | None = None
    """[n, C, H, W] that show the feature, to be inverted."""

    differentiable = False

    @property
    def attributes(self) -> tuple[str, ...]:
        """Of both, those of the second with a mark."""
        return (*self.judge.attributes, *(f"second judge: {name}" for name in (self.second.attributes if self.second is not None else ())))

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """[n, a + b]."""
        both = [self.judge.logits(img)] + ([] if self.second is None else [self.second.logits(img)])
        return torch.cat(both, dim=1)

    def of_judge(self, pairs: evaluation.PairedImages) -> evaluation.PairedImages:
        """What the first judge said."""
        return dataclasses.replace(_columns(pairs, slice(0, len(self.judge.attributes)), self.judge), judge_misses=self.misses)

    def of_second(self, pairs: evaluation.PairedImages) -> evaluation.PairedImages | None:
        """What the second judge said, if there is one who was asked."""
        return (
            None
            if self.second is None or len(pairs.attributes) == len(self.judge.attributes)
            else _columns(pairs, slice(len(self.judge.attributes), None), self.second)
        )


class Asked(Protocol):
    """What the command line says of judges."""

    @property
    def judge(self) -> str | None: ...
    @property
    def second_judge(self) -> str | None: ...
    @property
    def judge_misses(self) -> str | None: ...
    @property
    def attacker(self) -> str | None: ...
    @property
    def positives(self) -> str | None: ...
    @property
    def feature(self) -> str: ...


def find(asked: Asked, files: Sequence[NetworkFile], G: Any, device: torch.device) -> Panel:
    """The judges that were asked for, or those that come with the bundled network.

    Raises:
        RedactError: there is none, one steered the redaction, both are the same, or the feature is not known to them.
    """
    judge, second, feature = asked.judge, asked.second_judge, asked.feature
    if judge is None:
        if second is not None or asked.attacker is not None:
            raise RedactError("--second-judge or --attacker was given without --judge - they come after a judge - give one")
        return _bundled(asked, files, device)
    shape = (G.img_channels, G.img_resolution, G.img_resolution)
    steered = set(_steering(files))
    given = {text: backends.find(text, feature) for text in (judge, second, asked.attacker) if text is not None}
    sitting = [given[text] for text in (judge, second) if text is not None]
    for file in sitting:
        if file.sha256 in steered:
            raise RedactError(f"{file.path} was to judge - it steered the redaction, as the file says: it would find nothing - give another judge")
    if len({file.sha256 for file in sitting}) < len(sitting):
        raise RedactError("--judge and --second-judge are the same file - a second judge has to see with other eyes - give another one")
    loaded = [file.load(shape, device) for file in sitting]
    record = {role: file.record for role, file in zip(("judge", "second_judge"), sitting, strict=False)}
    known = _read_misses(asked.judge_misses)
    attacker = None if asked.attacker is None else given[asked.attacker].load(shape, device)
    if attacker is not None and not attacker.differentiable:
        raise RedactError(f"{asked.attacker} was to lead attacks - it gives no gradients - give a classifier that does")
    if attacker is not None:
        record["attacker"] = given[str(asked.attacker)].record
    return Panel(
        feature, loaded[0], loaded[1] if second else None, known, f"the judge {sitting[0].sha256[:12]}", record, _notes(known, second is not None),
        attacker, _pictures(asked.positives, shape, device),
    )  # fmt: skip


def _bundled(asked: Asked, files: Sequence[NetworkFile], device: torch.device) -> Panel:
    feature = asked.feature
    if any(file.bundled is None for file in files):
        stranger = next(file.name for file in files if file.bundled is None)
        raise RedactError(f"{feature!r} was to be measured in {stranger} - judges come only with the bundled network - give --judge=FILE")
    judge, second, attacker = (detectors.load_bundled(role, device) for role in ("judge", "second_judge", "detector"))
    name = steering.attribute_name(feature, judge.attributes, "feature", "the judge")
    known = _read_misses(asked.judge_misses) or _bundled_misses(name)
    record = {role: {"bundled": files[0].bundled, "role": role} for role in ("judge", "second_judge", "detector")}
    pictures = _pictures(asked.positives, (3, 64, 64), device) if asked.positives is not None else drawings(name, DRAWN).to(device)
    return Panel(name, judge, second, known, "the bundled judge", record, _notes(known, two=True), attacker, pictures)


def drawings(feature: str, n: int) -> torch.Tensor:
    """[n, 3, 64, 64]: held-out drawings that show the attribute, which no network was trained on."""
    images, truth = draw_portraits(HELD_OUT_SEED, 40 * n)
    shown = images[truth[:, ATTRIBUTES.index(feature)]][:n]
    return torch.from_numpy(np.ascontiguousarray(shown.transpose(0, 3, 1, 2))).float() / 127.5 - 1  # uint8 => [-1, 1]


def _pictures(folder: str | None, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor | None:
    """[n, C, H, W] of the image files in a folder, at the network's resolution."""
    if folder is None:
        return None
    return read_images(folder, shape, "pictures that show the feature were expected").to(device)


def _bundled_misses(feature: str) -> tuple[int, int] | None:
    counts = json.loads(MISSES.read_text(encoding="utf-8")).get(feature)
    return None if counts is None else (int(counts[0]), int(counts[1]))


def _read_misses(text: str | None) -> tuple[int, int] | None:
    """3/500 -> (3, 500)."""
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts) or not 0 <= int(parts[0]) <= int(parts[1]) or parts[1] == "0":
        raise RedactError(f"--judge-misses={text} was asked - it is MISSES/N, of N images that show the feature - give for example 3/500")
    return int(parts[0]), int(parts[1])


def _notes(misses: tuple[int, int] | None, two: bool) -> tuple[str, ...]:
    told = []
    if misses is None:
        told.append(
            "How much the judge overlooks is not known: no bound allows for it. Give --judge-misses=MISSES/N, counted on images that show it."
        )
    if not two:
        told.append("There is one judge: give --second-judge=FILE to see whether another agrees.")
    return tuple(told)


def _steering(files: Sequence[NetworkFile]) -> Iterator[str]:
    """sha256 of every detector that the files say steered a redaction of theirs."""
    for file in files:
        record = file.snapshot.redaction
        while isinstance(record, Mapping):
            detector = record.get("detector")
            if isinstance(detector, Mapping) and (sha256 := backends.was_steering(detector)) is not None:
                yield sha256
            record = record.get("earlier")


def _columns(pairs: evaluation.PairedImages, part: slice, judge: Detector) -> evaluation.PairedImages:
    return dataclasses.replace(
        pairs, attributes=tuple(judge.attributes), logits_before=pairs.logits_before[:, part], logits_after=pairs.logits_after[:, part]
    )
