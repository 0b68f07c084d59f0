# SPDX-License-Identifier: Apache-2.0
"""Which detector steers a redaction, which judge measures it, and what they call the features."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import detectors, network_files
from stylegan_redact.network_files import DecoderFile, NetworkFile
from stylegan_redact.types import Detector, Network, RedactError


def attribute_name(asked: str, known: tuple[str, ...], what: str, whose: str) -> str:
    """`asked` as the classifier spells it: `grey-hair` is grey_hair.

    Raises:
        RedactError: the classifier does not know it; lists what it knows.
    """
    name = asked.strip().lower().replace("-", "_").replace(" ", "_")
    for candidate in (asked, name):
        if candidate in known:
            return candidate
    close = difflib.get_close_matches(name, known)
    advice = f"did you mean {' or '.join(close)}?" if close else "take one of these"
    raise RedactError(f"the {what} {asked!r} was asked - {whose} knows: {', '.join(known)} - {advice}")


def classifiers(
    feature: str, classifier: str | None, judge: str | None, *, file: NetworkFile | DecoderFile, network: Network, device: torch.device
) -> tuple[Detector, Detector, dict[str, Any]]:
    """The detector that steers, the judge that measures, and what the records say of them.

    Args:
        feature:    As asked.
        classifier: TorchScript file that steers; None, as for the judge: those that come with a bundled network.
        judge:      TorchScript file that measures.
        file:       Where the network comes from.
        network:    Whose images they take.
        device:     Where they go.

    Raises:
        RedactError: there are none, or only one of the two, or both are the same.
    """
    loaded: list[Any]
    if classifier is None and judge is None:
        if file.bundled is None:
            raise RedactError(
                f"{feature!r} was to be found in {file.name} - classifiers come only with: {', '.join(network_files.bundled()) or 'none'} - "
                "give --classifier=FILE and --judge=FILE, TorchScript: images [n, C, H, W] in [-1, 1] -> one logit each"
            )
        told = {role: {"bundled": file.bundled, "role": role} for role in ("detector", "judge")}
        loaded = [detectors.load_bundled(role, device) for role in told]
        return loaded[0], loaded[1], told
    if classifier is None or judge is None:
        given, other = ("--judge", "--classifier") if classifier is None else ("--classifier", "--judge")
        raise RedactError(f"{given} was given without {other} - what steers a redaction must not be what measures it - give both")
    paths = {"detector": Path(classifier), "judge": Path(judge)}
    sha256 = {role: network_files.sha256_of(path) for role, path in paths.items()}
    if sha256["detector"] == sha256["judge"]:
        raise RedactError("--classifier and --judge are the same file - what steers must not be what measures - train a second one on other data")
    G: Any = network.G_ema
    shape = (G.img_channels, G.img_resolution, G.img_resolution)
    loaded = [detectors.load_torchscript(path, feature, shape, device) for path in paths.values()]
    return loaded[0], loaded[1], {role: {"torchscript_sha256": digest} for role, digest in sha256.items()}
