# SPDX-License-Identifier: Apache-2.0
"""A function of the user's that says which pictures are valid: the others show the feature. To name its file is to agree that it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_redact.downloads import sha256_of
from stylegan_redact.features._labelling import feature_of, look_at
from stylegan_redact.labels import Labels
from stylegan_redact.names import slug
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, Network, Progress
from stylegan_redact.validity import Validity, check_validity, load_validity


@dataclass(frozen=True)
class ByFunction:
    """The feature that invalid pictures have."""

    function: str = option("mine.py:valid", "file.py:function, uint8 image [H, W, C] -> True if valid; it is run with your rights", path=True)
    name: str | None = option(None, "Of the feature; None: invalid_ and the function's name")
    labels: Labels | None = None
    """Classes to draw from, of a conditional network."""
    half: bool = False
    """Draw in float16 where the network does."""
    valid: Validity | None = None
    """The function, loaded."""

    @property
    def feature(self) -> str:
        """Its name."""
        return self.name or f"invalid_{slug(self.function.rpartition(':')[2])}"

    def prepared(self, network: Network) -> ByFunction:
        """With the function, whose file is run now.

        Raises:
            RedactError: there is no such function, or its file cannot be run.
        """
        return replace(self, valid=load_validity(self.function))

    def look(self, img: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """[n, 1]: 1 of an invalid picture, which shows the feature, -1 of a valid one."""
        assert self.valid is not None
        return 1 - 2 * self.valid(img, seeds).float()[:, None].to(img.device)

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Latents labelled by the function, and the subspace that separates them.

        Args:
            network:  Its G_ema is drawn, noise "const".
            seeds:    NVIDIA's seeds to label.
            batch:    Images at a time.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: the function fails, naming the seed, or hardly any picture is invalid, or nearly all.
        """
        source = self if self.valid is not None else self.prepared(network)
        said, latents = look_at(network, seeds, source.look, self.labels, batch=batch, half=self.half, progress=progress)
        return feature_of(self.feature, replace(latents, score=said[:, 0]), {}, progress)

    def hashes(self) -> Mapping[str, Any]:
        """For records: which file it was."""
        return {"file_sha256": sha256_of(check_validity(self.function)[0])}

    def notes(self, network: Network) -> tuple[str, ...]:
        """That the file is run."""
        path, name = check_validity(self.function)
        return (f"{path.name} is run, with your rights; what shows in pictures that {name} calls invalid is to go",)
