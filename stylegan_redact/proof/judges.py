# SPDX-License-Identifier: Apache-2.0
"""Who judges two given networks: a judge, perhaps a second one, and how much the first is known to overlook. Neither steered the redaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from stylegan_redact import detectors, evaluation, network_files, steering
from stylegan_redact.network_files import NetworkFile
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.portraits.portrait import ATTRIBUTES
from stylegan_redact.types import Detector, RedactError

HELD_OUT_SEED = 910_000
"""Of drawings that no network here was trained on."""
DRAWN = 32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
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
    paths = [path for path in (judge, second) if path is not None]
    sha256 = [network_files.sha256_of(path) for path in paths]
    for path, digest in zip(paths, sha256, strict=True):
        if digest in steered:
            raise RedactError(f"{path} was to judge - it steered the redaction, as the file says: it would find nothing - give another judge")
    if len(set(sha256)) < len(sha256):
        raise RedactError("--judge and --second-judge are the same file - a second judge has to see with other eyes - give another one")
    loaded = [detectors.load_torchscript(path, feature, shape, device) for path in paths]
    record = {role: {"torchscript_sha256": digest} for role, digest in zip(("judge", "second_judge"), sha256, strict=False)}
    known = _read_misses(asked.judge_misses)
    attacker = None if asked.attacker is None else detectors.load_torchscript(asked.attacker, feature, shape, device)
    if attacker is not None and not attacker.differentiable:
        raise RedactError(f"{asked.attacker} was to lead attacks - it gives no gradients - give a classifier that does")
    if attacker is not None:
        record["attacker"] = {"torchscript_sha256": network_files.sha256_of(str(asked.attacker))}
    return Panel(
        feature, loaded[0], loaded[1] if second else None, known, f"the judge {sha256[0][:12]}", record, _notes(known, second is not None),
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
    paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES] if Path(folder).is_dir() else []
    if not paths:
        raise RedactError(f"pictures that show the feature were expected in {folder} - there are none ({', '.join(IMAGE_SUFFIXES)}) - give a folder")
    mode = "RGB" if shape[0] == 3 else "L"
    try:
        read = [np.asarray(Image.open(path).convert(mode).resize((shape[2], shape[1]), Image.Resampling.LANCZOS)) for path in paths]
    except OSError as error:
        raise RedactError(f"pictures that show the feature were expected in {folder} - one cannot be read ({error}) - take it out") from None
    stack = torch.from_numpy(np.stack(read)).float() / 127.5 - 1  # uint8 => [-1, 1]
    return (stack.permute(0, 3, 1, 2) if stack.ndim == 4 else stack[:, None]).to(device)


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
            if isinstance(detector, Mapping) and isinstance(detector.get("torchscript_sha256"), str):
                yield detector["torchscript_sha256"]
            record = record.get("earlier")


def _columns(pairs: evaluation.PairedImages, part: slice, judge: Detector) -> evaluation.PairedImages:
    return dataclasses.replace(
        pairs, attributes=tuple(judge.attributes), logits_before=pairs.logits_before[:, part], logits_after=pairs.logits_after[:, part]
    )
