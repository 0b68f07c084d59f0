# SPDX-License-Identifier: Apache-2.0
"""The same seeds drawn by the network before and after, once for all questions: images go by in batches, what a judge says of them stays."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stylegan_redact import estimates, ranks, rows
from stylegan_redact.extractors import FeatureExtractor
from stylegan_redact.labels import Labels, needed
from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.network import c_dim_of, sample_w, synthesize
from stylegan_redact.types import ACCESSES, Detector, Estimate, Network, Progress, RedactError

NOISE_MODES = ("const", "none", "random")

SIMILARITY_BATCH = 16
"""Images at a time in MS-SSIM: its many maps of 64 images leave the processor's cache, which takes 1.7 times as long."""

_COLUMNS = ("logits_before", "logits_after", "l1", "dissimilarity", "seeds")
_FEATURES = ("features_before", "features_after")


@dataclass(frozen=True)
class PairedImages:
    """What is kept of n pairs of images, the same seed before and after."""

    attributes: tuple[str, ...]
    """Names of the columns of both logits."""
    logits_before: torch.Tensor
    """[n, a] float32, > 0: the image before shows it."""
    logits_after: torch.Tensor
    """[n, a] float32, > 0: the image after shows it."""
    l1: torch.Tensor
    """[n], mean of |after - before| over an image in [-1, 1]."""
    dissimilarity: torch.Tensor
    """[n], 1 - MS-SSIM of before and after; nan where it was not wanted."""
    seeds: torch.Tensor
    """[n] int64, NVIDIA's seeds, each one once."""
    access: str = "z"
    """One of ACCESSES."""
    features_before: torch.Tensor | None = None
    """[m, d] of the first m images before, m <= n, by the extractor; None: there was none."""
    features_after: torch.Tensor | None = None
    """[m, d] of the same images after."""
    extractor: str = ""
    """Its name."""
    judge_misses: tuple[int, int] | None = None
    """What is known of the judge from elsewhere: images that truly show the feature and were overlooked, and of how many."""

    def shows_before(self, attribute: str) -> torch.Tensor:
        """[n] bool: does the image before show it?"""
        return self.logits_before[:, self._column(attribute)] > 0

    def shows_after(self, attribute: str) -> torch.Tensor:
        """[n] bool: does the image after show it?"""
        return self.logits_after[:, self._column(attribute)] > 0

    def others(self, feature: str, keep: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The judge's attributes without the feature. Raises RedactError if the judge does not know the feature or one to keep."""
        for name in (feature, *keep):
            self._column(name)
        if feature in keep:
            raise RedactError(f"{feature!r} was to be redacted and kept - it can be one of the two - take it out of the list to keep")
        return tuple(name for name in self.attributes if name != feature)

    def _column(self, attribute: str) -> int:
        if attribute not in self.attributes:
            close = difflib.get_close_matches(attribute, self.attributes)
            advice = f"did you mean {' or '.join(close)}?" if close else "take one of them, or a judge that knows it"
            raise RedactError(f"attribute {attribute!r} was to be measured - the judge knows: {', '.join(self.attributes)} - {advice}")
        return self.attributes.index(attribute)


def measure_pairs(  # noqa: PLR0913 - keyword-only, and each says how the same images are drawn
    before: Network,
    after: Network,
    judge: Detector,
    seeds: Sequence[int],
    *,
    batch: int = 64,
    access: str = "z",
    labels: Labels | None = None,
    half: bool = False,
    noise_mode: str = "const",
    truncation_psi: float = 1.0,
    extractor: FeatureExtractor | None = None,
    similarity: bool = True,
    progress: Progress | None = None,
) -> PairedImages:
    """What a judge says of the same seeds drawn by G_ema before and after, and how far each image changed.

    Args:
        before:         The network as it was.
        after:          The redacted one, of the same architecture, on the same device.
        judge:          Not the detector that steered the redaction.
        seeds:          Each once, none used for the redaction; with them z is drawn as NVIDIA's tools draw it.
        batch:          Images at a time: memory does not grow with the number of seeds.
        access:         z: each network from the seed on. w: the w that the mapping network *before* gives, handed to both synthesis networks (a user
                        who kept latents). w_plus: two such w, of the seed's z and of the next z in its stream, the first up to a random row of ws
                        and the second from there on.
        labels:         Which c goes with each seed, if the network is conditional: the same before and after, and for both w of w_plus.
        half:           Draw in float16 where the networks do, which `precision.self_test` has found to be safe for both.
        noise_mode:     const, none or random. Random noise is a function of the seeds of a batch, the same before and after.
        truncation_psi: Of the mapping network.
        extractor:      Whose features are kept; each is [n, d].
        similarity:     Whether MS-SSIM is wanted; without it dissimilarity is nan.
        progress:       Called after every batch. Of several ranks (`ranks.joined`) each draws its share of the batches, and all get all.

    Raises:
        RedactError: seeds missing or repeated, an unknown access or noise mode, labels missing or too many,
            or a judge that answers with anything but finite [n, a].
    """
    how: dict[str, Any] = {"access": access, "labels": labels, "half": half, "noise_mode": noise_mode, "truncation_psi": truncation_psi}
    _check(seeds, batch, access, noise_mode)

    def work(some: Sequence[int]) -> tuple[torch.Tensor, ...]:
        (images,) = image_pairs(before, after, some, batch=batch, **how)
        with torch.no_grad():
            features = [] if extractor is None else [extractor.features(img).detach().float().cpu() for img in images]
            return (*_compare(*images, judge, similarity), *features)

    def told() -> Iterator[tuple[torch.Tensor, ...]]:
        done = 0
        for part in ranks.world().spread(work, [seeds[start : start + batch] for start in range(0, len(seeds), batch)]):
            yield part
            done += len(part[0])
            if progress is not None:
                progress("measure", done / len(seeds), {})

    logits_before, logits_after, l1, dissimilarity, *found = rows.filled(told(), len(seeds))
    pairs = PairedImages(tuple(judge.attributes), logits_before, logits_after, l1, dissimilarity, rows.numbers(seeds), access)
    return pairs if extractor is None else dataclasses.replace(pairs, features_before=found[0], features_after=found[1], extractor=extractor.name)


def image_pairs(  # noqa: PLR0913 - keyword-only, those of measure_pairs
    before: Network,
    after: Network,
    seeds: Sequence[int],
    *,
    batch: int = 64,
    access: str = "z",
    labels: Labels | None = None,
    half: bool = False,
    noise_mode: str = "const",
    truncation_psi: float = 1.0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images before and after, [n, C, H, W] each in [-1, 1], a batch at a time in the order of the seeds.

    Args: as those of `measure_pairs`, which draws by this.

    Raises:
        RedactError: seeds missing or repeated, an unknown access or noise mode, labels missing or too many.
    """
    _check(seeds, batch, access, noise_mode)
    for start in range(0, len(seeds), batch):
        some = seeds[start : start + batch]
        with torch.no_grad():
            c = None if labels is None else labels(some)
            w_before = _codes(before.G_ema, some, access, truncation_psi, c)
            w_after = _codes(after.G_ema, some, access, truncation_psi, c) if access == "z" else w_before
            pair = _draw(before.G_ema, w_before, noise_mode, half, some[0]), _draw(after.G_ema, w_after, noise_mode, half, some[0])
        yield pair


def joined(portions: Iterable[PairedImages], count: int) -> PairedImages:
    """Portions of one measurement, of `count` pairs, in this order, as one; features as far as portions have them from the first on."""
    first: list[PairedImages] = []
    features: list[tuple[torch.Tensor, torch.Tensor]] = []

    def columns() -> Iterator[list[torch.Tensor]]:
        for index, portion in enumerate(portions):
            first.append(portion) if index == 0 else None
            if portion.features_before is not None and portion.features_after is not None and len(features) == index:
                features.append((portion.features_before, portion.features_after))
            yield [getattr(portion, name) for name in _COLUMNS]

    found: dict[str, Any] = dict(zip(_COLUMNS, rows.filled(columns(), count), strict=True))
    if features:
        sides = rows.filled(features, sum(len(before) for before, _ in features))
        found |= dict(zip(_FEATURES, sides, strict=True))
    return dataclasses.replace(first[0], **found)


def rate(shows: torch.Tensor) -> Estimate:
    """The share of `shows` [n] that is True, in percent, with Clopper and Pearson's interval; nan within 0 to 100 if n is 0."""
    if len(shows) == 0:
        return Estimate(math.nan, 0.0, 100.0, 0, "%")
    share = estimates.clopper_pearson(int(shows.sum()), len(shows))
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n, "%", share.confidence)


def _check(seeds: Sequence[int], batch: int, access: str, noise_mode: str) -> None:
    # A range has each seed once; a set of a million would take more memory than all that is measured.
    if len(seeds) == 0 or (not isinstance(seeds, range) and len(set(seeds)) < len(seeds)):
        raise RedactError(f"{len(seeds)} seeds were to be measured - {len(set(seeds))} of them are different - give one or more, each once")
    strange = [seed for seed in (seeds[0], seeds[-1]) if int(seed) != seed or not 0 <= seed < 2**32]
    if strange:
        raise RedactError(f"the seed {strange[0]} was to be measured - NVIDIA's seeds are whole numbers from 0 to {2**32 - 1} - give such")
    if batch < 1:
        raise RedactError(f"batch={batch} was asked - images are drawn at least 1 at a time - give a larger batch")
    if access not in ACCESSES:
        raise RedactError(f"access={access!r} was asked - there is: {', '.join(ACCESSES)} - take one of them")
    if noise_mode not in NOISE_MODES:
        raise RedactError(f"noise_mode={noise_mode!r} was asked - there is: {', '.join(NOISE_MODES)} - take one of them")


def _codes(G: Any, seeds: Sequence[int], access: str, truncation_psi: float, c: torch.Tensor | None) -> torch.Tensor:
    """w [n, w_dim] of the seeds, or for w_plus ws [n, num_ws, w_dim]."""
    if access != "w_plus":
        return sample_w(G, seeds, c=c, truncation_psi=truncation_psi)
    c = needed(c, c_dim_of(G), "latents were to be drawn")
    streams = [np.random.RandomState(seed) for seed in seeds]
    z = torch.from_numpy(np.stack([stream.randn(2, G.z_dim) for stream in streams])).float()  # [n, 2, z_dim]; the first is NVIDIA's of the seed
    crossover = torch.tensor([stream.randint(1, G.num_ws) for stream in streams])
    device = next(G.parameters()).device
    both = None if c is None else c.repeat_interleave(2, dim=0).to(device)
    w = G.mapping(z.flatten(0, 1).to(device), both, truncation_psi=truncation_psi)[:, 0].unflatten(0, (-1, 2))  # [n, 2, w_dim]
    of_second = (torch.arange(G.num_ws) >= crossover[:, None]).to(device)  # [n, num_ws]
    return torch.where(of_second[:, :, None], w[:, 1:], w[:, :1])  # [n, num_ws, w_dim]


def _draw(G: Any, w: torch.Tensor, noise_mode: str, half: bool, seed: int) -> torch.Tensor:
    """Clamped: what a viewer sees of the image, and what a judge was trained on."""
    devices = [w.device] if w.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=noise_mode == "random"):
        if noise_mode == "random":
            torch.manual_seed(seed)
        return synthesize(G, w, noise_mode=noise_mode, half=half).float().clamp(-1, 1)


def _compare(img_before: torch.Tensor, img_after: torch.Tensor, judge: Detector, similarity: bool) -> tuple[torch.Tensor, ...]:
    """Logits before and after [n, a], L1 [n], 1 - MS-SSIM [n], on the CPU."""
    few = zip(img_after.split(SIMILARITY_BATCH), img_before.split(SIMILARITY_BATCH), strict=True) if similarity else ()
    alike = [ms_ssim(some_after, some_before) for some_after, some_before in few]
    dissimilarity = 1 - torch.cat(alike) if similarity else img_before.new_full([len(img_before)], math.nan)
    l1 = (img_after - img_before).abs().mean((1, 2, 3))
    logits = [judge.logits(img).float().cpu() for img in (img_before, img_after)]
    for side, answer in zip(("before", "after"), logits, strict=True):
        if answer.shape != (len(img_before), len(judge.attributes)):
            told = f"{list(answer.shape)} for {len(img_before)} images and {len(judge.attributes)} attributes"
            raise RedactError(f"a judge's logits [n, a] were asked - it gave {told} - use a judge with a logit for each")
        if not bool(torch.isfinite(answer).all()):  # nan > 0 is False: a broken network would pass for a redacted one
            raise RedactError(f"images {side} were to be judged - a logit is not finite - check the network {side} for weights that are not finite")
    return logits[0], logits[1], l1.cpu(), dissimilarity.cpu()
