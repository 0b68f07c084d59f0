# SPDX-License-Identifier: Apache-2.0
"""Pairs of images measured in portions that are kept on disk: a run that is killed goes on with the portion it was at."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from stylegan_redact import evaluation, ranks
from stylegan_redact.extractors import FeatureExtractor
from stylegan_redact.run_dir import explained, whole_file
from stylegan_redact.types import Progress, RedactError

PORTION = 1024
"""Seeds."""


@dataclasses.dataclass(frozen=True)
class PairStore:
    """A folder with a file for each portion; of several ranks, the first one's."""

    folder: Path
    say: Callable[[str], None]
    """Tells the user something."""

    def measure(
        self, seeds: Sequence[int], name: str, extractor: FeatureExtractor | None, most_features: int, progress: Progress, **how: Any
    ) -> evaluation.PairedImages:
        """What `evaluation.measure_pairs` gives for the seeds, portions that are there already read instead of measured.

        Args:
            seeds:         To measure.
            name:          Of this way of measuring: portions of another are not taken for it.
            extractor:     Whose features are kept.
            most_features: Of the first so many seeds, or a few more, to fill a portion.
            progress:      Told (stage, share done, figures).
            how:           For measure_pairs.
        """
        first = ranks.world().rank == 0

        def portions() -> Iterator[evaluation.PairedImages]:
            for start in range(0, len(seeds), PORTION):
                some = seeds[start : start + PORTION]
                path = self.folder / f"{re.sub(r'[^0-9a-z.]+', '-', name)}-{some[0]}-{some[-1] + 1}.safetensors"
                there = ranks.world().from_first(vars(found) if first and (found := load(path)) is not None else None)
                portion = None if there is None else evaluation.PairedImages(**there)
                if portion is None:
                    tell = _portion_of(progress, name, start, len(some), len(seeds))
                    portion = evaluation.measure_pairs(seeds=some, extractor=extractor if start < most_features else None, progress=tell, **how)
                    if first:
                        self._keep(portion, path)
                yield portion

        return evaluation.joined(portions(), len(seeds))

    def _keep(self, portion: evaluation.PairedImages, path: Path) -> None:
        try:
            with explained(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            save(portion, path)
        except RedactError as error:
            self.say(f"What was measured is not kept: {error}. The run goes on without")

    def remove(self) -> None:
        """Deletes the portions; what they were for is there."""
        shutil.rmtree(self.folder, ignore_errors=True)


def save(pairs: evaluation.PairedImages, path: Path) -> None:
    """Writes a portion."""
    values = {field.name: getattr(pairs, field.name) for field in dataclasses.fields(pairs)}
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, torch.Tensor)}
    told = {"attributes": json.dumps(pairs.attributes), "access": pairs.access, "extractor": pairs.extractor}
    with whole_file(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=told)


def load(path: Path) -> evaluation.PairedImages | None:
    """What `save` wrote, or None: then it is to be measured, which gives the same again. That goes for a file that is damaged, too."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            attributes = tuple(json.loads(told["attributes"]))
    except (safetensors.SafetensorError, KeyError, ValueError):
        return None
    return evaluation.PairedImages(attributes=attributes, access=told["access"], extractor=told["extractor"], **tensors)


def _portion_of(progress: Progress, name: str, start: int, count: int, total: int) -> Progress:
    def tell(_stage: str, fraction: float, figures: dict[str, float]) -> None:
        progress(f"measure {name}", (start + fraction * count) / total, figures)

    return tell
