# SPDX-License-Identifier: Apache-2.0
"""Which features a command names, which detector steers their redaction, and which judge measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact import detectors, evaluation, feature_requests, names
from stylegan_redact.backends import find
from stylegan_redact.decoder_files import DecoderFile
from stylegan_redact.features import _clip
from stylegan_redact.network_files import NetworkFile
from stylegan_redact.several import SEPARATOR
from stylegan_redact.types import Detector, Network, RedactError


def features_asked(feature: str) -> tuple[str, ...]:
    """beard,hat -> ("beard", "hat"), as written, each once; what is of another source than a classifier is one.

    Raises:
        RedactError: none is named, or a source that there is not.
    """
    asked = feature_requests.asked(feature)
    if asked.source != feature_requests.ATTRIBUTE:
        return (feature,)
    found = tuple(dict.fromkeys(entry.strip() for entry in asked.value.split(SEPARATOR) if entry.strip()))
    if not found:
        raise RedactError(f"--feature={feature} was asked - it names nothing - name a feature, or several with commas between them")
    return found


def attribute_name(asked: str, known: tuple[str, ...], what: str, whose: str, *, either: bool = False) -> str:
    """`asked` as the classifier spells it: `grey-hair` is grey_hair, `glasses` eyeglasses.

    Args:
        asked:  As somebody wrote it.
        known:  The classifier's attributes.
        what:   It is, for the message.
        whose:  Attributes these are, for the message.
        either: An attribute whose absence is meant will do as well: what is kept is kept either way.

    Raises:
        RedactError: the classifier does not know it; lists what it knows.
    """
    if not known:
        raise RedactError(f"the {what} {asked!r} was asked - there is nothing known to {whose} - leave it out, or give classifiers that know it")
    match = names.find(asked, known)
    if match is not None and (match.present or either):
        return match.attribute
    hint = f"{asked} is the absence of {match.attribute}" if match is not None else names.advice(asked, known)
    raise RedactError(f"the {what} {asked!r} was asked - {whose} knows: {', '.join(known)} - {hint}")


def known_names(request: Any, asked: Sequence[str], detector: Detector, judge: Detector, file: NetworkFile | DecoderFile) -> tuple[str, ...]:
    """The features as detector and judge call them, sorted, each once.

    Raises:
        RedactError: one that either does not know: with what it knows, all that was tried, and what to do next.
    """
    found = set()
    for name in asked:
        try:
            found.add(attribute_name(name, detector.attributes, "feature", "this network's detector"))
        except RedactError as error:
            tried = "; ".join(map(str, ways(request, file)))
            told = str(error)
            raise RedactError(f"{told}; tried: {tried}" + (f"; or {next_best(request)}" if "did you mean" not in told else "")) from None
    for name in found:
        attribute_name(name, judge.attributes, "feature", "the judge")
    return tuple(sorted(found))


@dataclass(frozen=True)
class Way:
    """One way to find a bare name, and what came of it."""

    name: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome}"


def ways(request: Any, file: NetworkFile | DecoderFile) -> tuple[Way, ...]:
    """What there is to find an attribute with, in the order in which it is tried, and what each says; the request's fields are the options.

    Args:
        request: Has `classifier`, `judge` and `labels`.
        file:    Where the network comes from.
    """
    theirs = "not asked, since --classifier is given" if request.classifier is not None else f"those of {file.bundled}"
    return (
        Way("bundled classifiers", "none, this is no bundled network" if file.bundled is None else theirs),
        *(Way(f"--{name}", "not given" if getattr(request, name) is None else "given") for name in ("classifier", "labels")),
        *(() if request.classifier is not None or file.bundled is not None else (Way(find.CELEBAHQ, _celebahq(request)),)),
    )


def _celebahq(request: Any) -> str:
    """What NVIDIA's classifiers say to the name: they are asked if the one file is there already, since it is large and was not asked for."""
    asked = features_asked(request.feature)
    found = find.of_celebahq(asked[0]) if len(asked) == 1 else None
    if found is None:
        return "knows one attribute of CelebA at a time, and this is none"
    if not found[1]:
        return f"{found[0]} is not in the cache, and a bare name downloads nothing"
    return f"{found[0]} is in the cache" + (", but --judge is not given" if request.judge is None else "")


def next_best(request: Any) -> str:
    """The exact command to try where nothing that was tried knows the feature."""
    start = f"--network={request.network} --feature={request.feature}"
    with_files = f"python redact.py {start} --classifier=FILE --judge=FILE, TorchScript: images [n, C, H, W] in [-1, 1] -> one logit each"
    return "; or ".join(
        [
            f"label pictures: python redact.py label {start} --out=labels.npz, then python redact.py {start} --labels=labels.npz",
            with_files,
            *_instead(request),
        ]
    )


def _instead(request: Any) -> list[str]:
    """What there is to give in place of the bare name."""
    asked = features_asked(request.feature)
    if len(asked) > 1:
        return []
    (name,) = asked
    known = find.of_celebahq(name)
    clip = "" if _clip.installed() else f" (open_clip is not installed: {_clip.INSTALL})"
    return [
        *([] if known is None else [f"a face network's by --classifier={find.CELEBAHQ} --judge=FILE, which downloads {known[0]}"]),
        f"pictures of your own by --feature=images:FOLDER:without=FOLDER:name={name}",
        f"a sentence by --feature='text:{name}|no {name}:name={name}'{clip}",
        f"a function by --feature=validity:FILE.py:FUNCTION:name={name}",
    ]


def classifiers(
    request: Any, *, file: NetworkFile | DecoderFile, network: Network, device: torch.device
) -> tuple[Detector, Detector, dict[str, Any]]:
    """The detector that steers, the judge that measures, and what the records say of them.

    Args:
        request: Its `classifier` is TorchScript that steers, its `judge` what measures; None: those of a bundled network. With a judge alone,
                 NVIDIA's classifier steers if it was downloaded before.
        file:    Where the network comes from.
        network: Whose images they take.
        device:  Where they go.

    Raises:
        RedactError: there are none, or only one of the two, or both are the same.
    """
    feature, classifier, judge = request.feature, request.classifier, request.judge
    if classifier is None and judge is not None and file.bundled is None and len(features_asked(feature)) == 1:
        found = find.of_celebahq(features_asked(feature)[0])
        classifier = find.CELEBAHQ if found is not None and found[1] else None
    if classifier is None and judge is None:
        if file.bundled is None:
            tried = "; ".join(map(str, ways(request, file)))
            raise RedactError(f"{feature!r} was to be found in {file.name} - tried: {tried} - {next_best(request)}")
        return _bundled(file, device)
    if classifier is None or judge is None:
        given, other = ("--judge", "--classifier") if classifier is None else ("--classifier", "--judge")
        raise RedactError(f"{given} was given without {other} - what steers a redaction must not be what measures it - give both")
    return _files(feature, {"detector": classifier, "judge": judge}, network, device)


def those_given(
    name: str, classifier: str | None, judge: str | None, *, file: NetworkFile | DecoderFile, network: Network, device: torch.device
) -> tuple[Detector, Detector, dict[str, Any]]:
    """Detector and judge of a feature that the user brought along: each may be missing, and knows nothing then.

    Args:
        name:       Of the feature.
        classifier: TorchScript file that steers, or None.
        judge:      TorchScript file that measures, or None.
        file:       Where the network comes from; the classifiers of a bundled one are taken if none are given and they know the feature.
        network:    Whose images they take.
        device:     Where they go.

    Raises:
        RedactError: a file that cannot be used, or both are the same.
    """
    nobody = evaluation.NoClassifier()
    if classifier is None and judge is None and file.bundled is not None:
        steers, measures, told = _bundled(file, device)
        steers, measures = (_as_asked(each, (name,)) for each in (steers, measures))
        return (steers, measures, told) if name in steers.attributes else (nobody, measures, {**told, "detector": None})
    paths = {role: path for role, path in (("detector", classifier), ("judge", judge)) if path is not None}
    detector, judged, told = _files(name, paths, network, device)
    return detector, judged, {"detector": None, "judge": None} | told


def _bundled(file: NetworkFile | DecoderFile, device: torch.device) -> tuple[detectors.Classifier, detectors.Classifier, dict[str, Any]]:
    told = {role: {"bundled": file.bundled, "role": role} for role in ("detector", "judge")}
    return detectors.load_bundled("detector", device), detectors.load_bundled("judge", device), told


def _as_asked(classifier: detectors.Classifier, asked: Sequence[str]) -> detectors.Classifier:
    """The classifier with those of its attributes that were asked for under the names asked: detector and judge then call them the same."""
    for name in asked:
        if names.find(name, classifier.attributes) is not None:
            classifier = detectors.as_asked(classifier, name)
    return classifier


def _files(feature: str, paths: Mapping[str, str], network: Network, device: torch.device) -> tuple[Detector, Detector, dict[str, Any]]:
    """What is in the files; in a role without one, a detector that knows nothing."""
    names_asked = features_asked(feature)  # Only a file that names its logits knows more than the first; who asks for them checks that.
    files = {role: find.find(text, names_asked[0]) for role, text in paths.items()}
    if len({each.sha256 for each in files.values()}) < len(files):
        raise RedactError("--classifier and --judge are the same file - what steers must not be what measures - train a second one on other data")
    G: Any = network.G_ema
    shape = (G.img_channels, G.img_resolution, G.img_resolution)
    loaded: dict[str, Detector] = {role: _as_asked(each.load(shape, device), names_asked) for role, each in files.items()}
    nobody = evaluation.NoClassifier()
    return loaded.get("detector", nobody), loaded.get("judge", nobody), {role: each.record for role, each in files.items()}
