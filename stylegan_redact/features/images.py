# SPDX-License-Identifier: Apache-2.0
"""Pictures that show the feature: which generated ones do is told by a probe on what an embedder, or the network's discriminator, sees in them.

Photographs differ from generated pictures in more than the feature, and a probe of the one against the other learns just that. With pictures
`without` it from the same hands, the probe never meets the difference: it tells those with from those without, as they lie about their common mean,
and is then asked about generated pictures, as they lie about theirs. Without such pictures the examples are told from all generated ones, some of
which show the feature too: this serves examples that the network itself drew, and is refused where the two are told apart too well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import probe
from stylegan_redact.downloads import sha256_of
from stylegan_redact.estimates import separation
from stylegan_redact.extractors import DiscriminatorFeatures, FeatureExtractor, TorchScript, describe_by
from stylegan_redact.features._groups import two_groups
from stylegan_redact.features._labelling import feature_of, look_at
from stylegan_redact.labels import Labels
from stylegan_redact.names import slug
from stylegan_redact.photos import as_file, digest, read_images
from stylegan_redact.plugins import option
from stylegan_redact.types import Estimate, Feature, Network, Progress, RedactError

FEWEST = 10
"""Pictures of either kind."""
LEAST = {True: 0.75, False: 0.6}
"""AUC that the probe must surely reach: with pictures without the feature; and against generated ones, of which half may show it."""
MOST = 0.98
"""AUC against generated pictures past which the probe tells where they come from. A feature of a share p of them, always seen, has 1 - p / 2."""
FIGURE = "the probe tells it (AUC)"
WHAT = "pictures of a feature were expected"
_AT_A_TIME = 32


@dataclass(frozen=True)
class _Described:
    """Examples as the embedder sees them."""

    embed: FeatureExtractor
    shown: torch.Tensor
    """[m, d] of those with the feature."""
    without: torch.Tensor | None
    """[k, d], or None."""


@dataclass(frozen=True)
class Examples:
    """The feature that the pictures in `path` show."""

    path: str = option("examples", "Folder, zip archive or file of pictures that show it", path=True)
    without: str | None = option(None, "Pictures of the same kind, from the same hands, that do not show it", path=True)
    embedder: str | None = option(None, "TorchScript, images [n, C, H, W] in [-1, 1] -> [n, d]; None: the network's discriminator", path=True)
    name: str | None = option(None, "Of the feature; None: the folder's name")
    labels: Labels | None = None
    """Classes to draw from, of a conditional network."""
    half: bool = False
    """Draw in float16 where the network does."""
    described: _Described | None = None
    """The pictures, read."""

    @property
    def feature(self) -> str:
        """Its name."""
        return self.name or slug(Path(self.path).stem)

    def prepared(self, network: Network) -> Examples:
        """With the pictures, read and described.

        Raises:
            RedactError: too few pictures, one that cannot be read, or no embedder that knows them.
        """
        G: Any = network.G_ema
        device = next(G.parameters()).device
        shape = (G.img_channels, G.img_resolution, G.img_resolution)
        if self.embedder is None and describe_by(network.D) is None:
            raise RedactError(f"{self.feature} was asked by pictures - the network's discriminator is not known here - give another :embedder=FILE")
        embed = DiscriminatorFeatures(network.D) if self.embedder is None else TorchScript(self.embedder, shape, device)
        shown, without = (None if path is None else _described(path, shape, embed, device) for path in (self.path, self.without))
        assert shown is not None
        return replace(self, described=_Described(embed, shown, without))

    def look(self, img: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """[n, d], what the embedder sees of pictures as files hold them: values outside of [-1, 1] would give the network's own away."""
        assert self.described is not None
        return self.described.embed.features(as_file(img))

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Latents scored by the probe, and the subspace that separates them.

        Args:
            network:  Its G_ema is drawn, noise "const".
            seeds:    NVIDIA's seeds to label.
            batch:    Images at a time.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: a probe that cannot tell, or can tell nothing but where pictures come from; or pictures that cannot be used.
        """
        source = self if self.described is not None else self.prepared(network)
        assert source.described is not None
        seen, latents = look_at(network, seeds, source.look, self.labels, batch=batch, half=self.half, progress=progress)
        shown, without = source.described.shown, source.described.without
        if without is None:
            score, told = against_generated(self.feature, shown.cpu(), seen.cpu())
        else:
            score, told = against_without(self.feature, shown.cpu(), without.cpu(), seen.cpu())
        return feature_of(self.feature, replace(latents, score=score.float().to(latents.w.device)), {FIGURE: told}, progress)

    def hashes(self) -> Mapping[str, Any]:
        """For records: which pictures and which embedder."""
        found: dict[str, Any] = {"sha256": digest(self.path, WHAT)}
        if self.without is not None:
            found["without_sha256"] = digest(self.without, WHAT)
        return found | ({} if self.embedder is None else {"embedder_sha256": sha256_of(self.embedder)})

    def notes(self, network: Network) -> tuple[str, ...]:
        """What the probe goes by."""
        assert self.described is not None
        by = "the network's discriminator" if self.embedder is None else Path(self.embedder).name
        rest = "generated ones" if self.described.without is None else f"{len(self.described.without)} without"
        return (f"A probe on {by} is to tell {len(self.described.shown)} pictures with {self.feature} from {rest}",)


def against_without(name: str, shown: torch.Tensor, without: torch.Tensor, generated: torch.Tensor) -> tuple[torch.Tensor, Estimate]:
    """Log odds [n] that generated pictures show the feature, and the probe's cross-validated AUC on the examples.

    Both kinds of examples are centred at their common mean and generated pictures at theirs, so that what sets photographs off drops out, as far as
    it is one and the same shift. The offset that is left, since the feature is not as common here as there, is fitted to the generated scores.

    Args:
        name:      Of the feature.
        shown:     [m, d] features of pictures with it.
        without:   [k, d] of pictures without it.
        generated: [n, d].

    Raises:
        RedactError: the probe cannot tell the examples apart, or generated pictures.
    """
    examples = torch.cat([shown, without]).double()
    shows = torch.arange(len(examples)) < len(shown)
    own = torch.cat([shown.double().mean(0, keepdim=True), without.double().mean(0, keepdim=True)]).mean(0)
    white = probe.whiten(torch.cat([examples - own, generated.double() - generated.double().mean(0)]))
    rows = torch.arange(len(examples))
    held_out = probe.cross_validated(white, rows, shows)
    assert held_out is not None  # There are FEWEST of each.
    told = separation(shows, held_out)
    _refuse_weak(name, told, with_without=True)
    score = probe.fit(white, rows, shows)[len(examples) :]
    groups = two_groups(score)
    if not groups.distinct:
        raise RedactError(
            f"{name} was asked by pictures - a probe tells them apart (AUC {_text(told)}), but its scores of {len(score)} generated pictures make "
            f"one group, not two ({groups}): it cannot tell there - give an embedder that sees the feature, :embedder=FILE, or label by hand with "
            "redact.py label"
        )
    return groups.log_odds(score), told


def against_generated(name: str, shown: torch.Tensor, generated: torch.Tensor) -> tuple[torch.Tensor, Estimate]:
    """Scores [n] of generated pictures, above 0 where the feature shows, and the AUC of the probe that told the examples from them.

    All generated pictures are taken for ones without, though some are not: scores are those of probes that did not see the picture. Where examples
    and generated pictures are of one kind, few without the feature lie past the middle example; those past it are half of all that show it, hence
    twice as many show it.

    Args:
        name:      Of the feature.
        shown:     [m, d] features of pictures with it.
        generated: [n, d].

    Raises:
        RedactError: the probe cannot tell, or tells where pictures come from.

    Source: Elkan and Noto 2008 (learning from positive and unlabelled examples alone); Blanchard, Lee and Scott 2010 (the share of positives).
    """
    white = probe.whiten(torch.cat([shown, generated]))
    rows = torch.arange(len(white))
    shows = rows < len(shown)
    held_out = probe.cross_validated(white, rows, shows)
    assert held_out is not None
    told = separation(shows, held_out)
    _refuse_weak(name, told, with_without=False)
    if told.value > MOST:
        raise RedactError(
            f"{name} was asked by pictures that show it - a probe tells them from generated ones nearly always (AUC {_text(told)}, above {MOST}): "
            "it sees where pictures come from and not what they show, or the generator hardly draws the feature - give pictures of the same kind "
            "without it, :without=FOLDER, or an embedder that overlooks the difference, :embedder=FILE, or label by hand with redact.py label"
        )
    examples, score = held_out[: len(shown)], held_out[len(shown) :]
    share = min(2 * float((score > examples.median()).double().mean()), 1 - 1 / len(score))
    return score - score.quantile(1 - share), told


def _refuse_weak(name: str, told: Estimate, *, with_without: bool) -> None:
    least = LEAST[with_without]
    if told.low < least:
        rest = "those without" if with_without else "generated ones"
        raise RedactError(
            f"{name} was asked by pictures that show it - a probe hardly tells them from {rest} (AUC {_text(told)}, 0.5 is chance, surely more than "
            f"{least} is needed) - give more pictures, or an embedder that sees the feature, :embedder=FILE, or label by hand with redact.py label"
        )


def _text(told: Estimate) -> str:
    return f"{told.value:.3f}, {told.low:.3f} to {told.high:.3f}, n = {told.n}"


def _described(path: str, shape: tuple[int, int, int], embed: FeatureExtractor, device: torch.device) -> torch.Tensor:
    img = read_images(path, shape, WHAT)
    if len(img) < FEWEST:
        raise RedactError(f"{WHAT} in {path} - there are {len(img)} - give {FEWEST} or more")
    return torch.cat([embed.features(part.to(device)) for part in img.split(_AT_A_TIME)])
