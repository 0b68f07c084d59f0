# SPDX-License-Identifier: Apache-2.0
"""A request for one person: what it may ask, its photographs, and what is measured and shown of it: no classifier steers, and no feature is rated."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import detectors, evaluation, photos, pictures
from stylegan_redact.decoder_files import DecoderFile
from stylegan_redact.downloads import download
from stylegan_redact.extractors import DiscriminatorFeatures, FeatureExtractor, TorchScript, describe_by
from stylegan_redact.feature_requests import PERSON, refuse_misfit, source_of
from stylegan_redact.inversion import Search
from stylegan_redact.measuring import Measurement
from stylegan_redact.network import generate, sample_w
from stylegan_redact.network_files import NetworkFile, sha256_of
from stylegan_redact.photos import Photos
from stylegan_redact.run_dir import whole_file
from stylegan_redact.types import Detector, Estimate, Feature, Network, Progress, RedactError

PREFIX = "person:"
METHOD = "identity"
"""Of a feature that is a person, where none is named."""
SEARCH = Search()
"""Of codes, for the redaction and for measuring: one budget."""
SHOWN = 24
"""Pictures of the person and its neighbours, and of others, at most."""


@dataclass(frozen=True)
class Sitting:
    """The photographs, and who says whether two pictures are alike."""

    photos: Photos
    embed: FeatureExtractor

    def record(self) -> dict[str, Any]:
        """For the run directory. The pickle gets none of this: what is handed on must not tell who was redacted."""
        counts = {"known": len(self.photos.known), "held_out": len(self.photos.held_out)}
        return {"photos": counts | {"sha256": self.photos.sha256}, "similarity_by": self.embed.name}


def is_person(feature: str) -> bool:
    """True for person:photos/ and its like, whether or not there is such a folder."""
    return source_of(feature) == PERSON


def check(feature: str, method_name: str, method: Any, given: Mapping[str, Any]) -> None:
    """Raises RedactError if the method is not for such a feature, or a person was asked with options that it has no use for.

    Args:
        feature:     As asked.
        method_name: As asked.
        method:      Its instance.
        given:       Option -> value, of options that only other features have a use for.
    """
    asked = f"--feature={PREFIX}... was asked with"
    refuse_misfit(
        is_person(feature),
        "codes" in method.needs,
        given,
        feature=f"--method={method_name} was asked for {feature!r} - it redacts a person - give --feature={PREFIX}PHOTOS",
        method=f"{asked} --method={method_name} - it needs a classifier - use --method={METHOD}",
        options=f"{asked} {{}} - nothing but photographs steers - leave it out",
    )


def check_snap(feature: str, snap: int | None) -> None:
    """Raises RedactError if snapshots of a person's training were asked: their pictures are of labelled latents."""
    if snap is not None and is_person(feature):
        raise RedactError(f"--snap={snap} was asked for {PREFIX}... - snapshots draw labelled latents, and nobody labels a person - leave out --snap")


def embedder_file(judge: str) -> tuple[Path, str]:
    """The file that `--judge` names, downloaded if it has to be, and a name for it."""
    if "://" in judge:
        return download(judge, "embedder"), Path(urllib.parse.unquote(urllib.parse.urlparse(judge).path)).stem
    return Path(judge), ""


def sitting_of(feature: str, judge: str | None, network: Network, device: torch.device) -> Sitting:
    """The photographs that the feature names, and the embedder that `--judge` names, or else the network's own discriminator.

    Raises:
        RedactError: no photographs, or an embedder that there is not, does not take such images, or is missing where the discriminator is not known.
    """
    G: Any = network.G_ema
    shape = (G.img_channels, G.img_resolution, G.img_resolution)
    found = photos.of_person(feature.removeprefix(PREFIX), shape)
    if judge is None and network.D is None:
        raise RedactError(f"{feature} was to be measured - the file's discriminator is not known here - give an embedder of faces with --judge=FILE")
    if judge is None:
        return Sitting(found, DiscriminatorFeatures(network.D))
    file, name = embedder_file(judge)
    return Sitting(found, TorchScript(file, shape, device, name=name))


def judge_of(judge: str | None, file: NetworkFile | DecoderFile, device: torch.device) -> tuple[Detector, Detector, dict[str, Any]]:
    """No detector, who knows other people's attributes (the bundled judge, of the bundled network), and what the records say."""
    nobody = evaluation.NoClassifier()
    told: dict[str, Any] = {
        "embedder": {"torchscript_sha256": sha256_of(embedder_file(judge)[0])} if judge is not None else "the network's discriminator"
    }
    if file.bundled is None:
        return nobody, nobody, {"detector": None, "judge": told}
    told["attributes"] = {"bundled": file.bundled, "role": "judge"}
    return nobody, detectors.load_bundled("judge", device), {"detector": None, "judge": told}


def measure(measurement: Measurement, feature: Feature, sitting: Sitting, progress: Progress) -> tuple[dict[str, Estimate], evaluation.PairedImages]:
    """What became of the person, and of everybody else by each way in; and everybody else, drawn from z.

    Args:
        measurement: The networks, and which other people are drawn.
        feature:     As gathered.
        sitting:     Photographs and embedder.
        progress:    Told (stage, share done, figures).
    """
    before, labels = measurement.before, measurement.labels
    seeds = measurement.seeds[: evaluation.STRANGERS]
    strangers = sample_w(before.G_ema, seeds, c=None if labels is None else labels(seeds))
    sitter = _sitter(feature, sitting.photos.held_out, before.D)
    answers = evaluation.person(before, measurement.after, sitter, sitting.embed, strangers, batch=measurement.batch, progress=progress)
    drawn = []
    for access in measurement.accesses:
        prefix = "" if access == "z" else f"{access}_"
        drawn.append(pairs := measurement.draw(access, labels, measurement.seeds, "measure", progress, sitting.embed))
        answers |= {f"{prefix}{key}": value for key, value in evaluation.everybody_else(pairs).items()}
    return answers, drawn[0]


def told(estimates: Mapping[str, Estimate]) -> str:
    """One sentence: is what the network draws in the person's place still the person, and did others change."""
    still, changed = estimates["person/strangers_nearer_after"], estimates["others/visibly_changed"]
    anew = estimates.get("held_out/strangers_nearer_after", estimates["refound/strangers_nearer_after"])
    return (
        f"Of strangers, {evaluation.format_estimate(still)} are more like the person than what the kept codes draw now, "
        f"{evaluation.format_estimate(anew)} more than what a search finds anew (0 %: the person, 50 %: anybody); "
        f"{evaluation.format_estimate(changed)} of other people changed visibly. Whoever has the original file still has the person."
    )


def save_pictures(networks: tuple[Network, Network], feature: Feature, batch: int, folder: Path) -> dict[str, Any]:
    """before.png, after.png, diff.png: the person's codes and codes near them above, other people below; photos.png: what the redaction knew.

    Returns:
        What stands where.
    """
    sitter, latents, G = _sitter(feature, None, None), feature.latents, networks[0].G_ema
    assert latents is not None and latents.seeds is not None
    columns = min(12, max(4, 2048 // G.img_resolution), len(latents.w))
    num = max(columns, SHOWN // columns * columns)
    mine = evaluation.neighbours(sitter)[:num]
    ws = torch.cat([mine, latents.w[:num, None].expand(-1, G.num_ws, -1)])
    ws = ws[: len(ws) // columns * columns]
    drawn = [torch.cat([img.cpu() for img in generate(net.G_ema, ws, batch=batch)]) for net in networks]
    pictures.save(drawn[0], drawn[1], columns, folder)
    photographs = sitter.photos[:columns]
    with whole_file(folder / "photos.png") as temporary:
        pictures.to_grid(photographs, len(photographs)).save(temporary, format="png")
    return {"columns": columns, "person_and_neighbours": len(mine), "others": latents.seeds[: len(ws) - len(mine)].tolist()}


def _sitter(feature: Feature, held_out: torch.Tensor | None, D: Any) -> evaluation.Sitter:
    assert feature.examples is not None and feature.codes is not None and feature.latents is not None
    rest = feature.examples[:0] if held_out is None else held_out.to(feature.examples)
    return evaluation.Sitter(feature.examples, feature.codes, rest, feature.latents.w, SEARCH, describe_by(D))
