# SPDX-License-Identifier: Apache-2.0
"""Features that the user brings along: labels in a file, a direction, or both, or something else that labels. A classifier may steer, none has to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylegan_redact import feature_requests, learned, names, plugins, run_dir
from stylegan_redact.asking import SEEDS_PER_RUN
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.features.labels import LabelsFile
from stylegan_redact.labels import Labels
from stylegan_redact.latents import LabelFile, load_labels, save_labels
from stylegan_redact.network import sample_w
from stylegan_redact.network_files import sha256_of
from stylegan_redact.training.guide import BARELY
from stylegan_redact.types import Detector, Feature, Network, Progress, RedactError

METHOD = "fold"
"""Of a direction, where no method is named and no classifier given: it follows it."""
DIRECTED = (feature_requests.DIRECTION, feature_requests.SEFA)
"""Sources that are a direction."""
_CHECKED, _TOLERANCE = 8, 1e-3
"""Latents of a file that are made again from their seeds, and how far they may be off, as a share of their length."""
LEARNED = "learned detector, on labels kept aside (balanced accuracy)"
"""Name of the figure."""
HARDLY_TELLS = 0.6
"""Balanced accuracy; below, a direction and its labels have little to do with each other."""


@dataclass(frozen=True)
class Given:
    """What was brought along."""

    name: str
    """Of the feature."""
    source: Any
    """Of `features/`, made from a direction, or one that labels; None: labels alone."""
    labelled: Feature | None
    """What the file of labels says."""
    file: LabelFile | None
    """That file."""
    record: Mapping[str, Any]
    """For records: hashes, and no names of folders."""
    notes: tuple[str, ...]
    """To be told."""
    labels_by: str | None = None
    """The source, if it looks at pictures and labels them."""
    learns: bool = False
    """A detector is to be learned from the labels."""
    mirror: bool = True
    """It is to take left and right alike."""

    def gather(
        self, network: Network, seeds: range, detector: Detector, labels: Labels | None, *, batch: int, half: bool, progress: Progress | None
    ) -> Feature:
        """The feature: labels by the file or the source, else by the detector if it knows the feature, else by the direction's quantile.

        Args:
            network:  As loaded.
            seeds:    To draw or to label, where no file of labels is there.
            detector: May know nothing; the feature then has none, or one that is learned from the labels.
            labels:   Classes, of a conditional network.
            batch:    Images at a time.
            half:     Draw in float16 where the network does.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: too few labels, or a file that does not fit.
        """
        knows = self.name in detector.attributes and not self.learns
        by_detector = Attribute(self.name, detector, labels, half)
        known = self.labelled
        if self.labels_by is not None:
            known = replace(self.source, labels=labels, half=half).gather(network, seeds, batch=batch, progress=progress)
        elif known is None and knows:
            known = by_detector.gather(network, seeds, batch=batch, progress=progress)
        feature = known
        if self.source is not None and self.labels_by is None:
            source = replace(self.source, known=known, labels=labels)
            feature = source.gather(network, seeds, batch=batch, progress=progress)
        assert feature is not None
        steers, figures = detector if knows else None, feature.figures
        if self.learns and feature.latents is not None:
            how: dict[str, Any] = dict(batch=batch, seed=seeds.start // SEEDS_PER_RUN, mirror=self.mirror, progress=progress)
            steers, accuracy = learned.learn(network, self.name, feature.latents, **how)
            figures = {**figures, LEARNED: accuracy}
        latents = feature.latents
        if steers is not None and latents is not None and (self.learns or bool((latents.score > BARELY).all())):
            # Methods tell by the score what nearly shows the feature; by one that is no log odds, such as 0 and 1, everything would.
            feature = replace(feature, latents=replace(latents, score=learned.log_odds(latents.score)))
        around = seeds if feature.latents is None or feature.latents.seeds is None else feature.latents.seeds.tolist()
        return replace(feature, name=self.name, detector=steers, figures=figures, bystanders=by_detector.bystanders(network, around))


def given_by(feature: str, labels: str | None, network: Network) -> Given | None:
    """What `--feature` and `--labels` bring along; None: nothing, a classifier is to find the feature.

    Args:
        feature: As asked.
        labels:  The file of labels.
        network: That they are to be of.

    Raises:
        RedactError: a file that cannot be read, is of another network, or is about something else.
    """
    asked = feature_requests.asked(feature)
    if asked.source in (feature_requests.CLASS, feature_requests.PERSON):
        if labels is not None:
            raise RedactError(f"--feature={feature} was asked with --labels - it needs none - leave it out")
        return None
    if asked.source == feature_requests.LABELS:
        if labels is not None or asked.options:
            raise RedactError(f"--feature={feature} was asked with --labels or options - the feature names its file - leave them out")
        labels = asked.value
    name, source, record, notes = asked.value, None, {}, ()
    if asked.source in DIRECTED:
        source = _source(asked)
        name, notes = source.feature, source.notes(network)
        by = {"file_sha256": sha256_of(asked.value)} if asked.source == feature_requests.DIRECTION else {}
        told = {option.name: plugins.record(source)[option.name] for option in plugins.options(type(source)) if option.help}
        record = {"direction": {"source": asked.source, **told, **by}}
    elif asked.source in feature_requests.LABELLING:
        return _labelling(asked, labels, network)
    elif labels is None:
        return None
    labelled, file = None, None
    if labels is not None:
        labelled, file = _labelled(labels, network)
        name = file.feature if asked.source == feature_requests.LABELS else name
        if names.find(name, [file.feature]) != names.Match(file.feature, True):
            raise RedactError(f"{name!r} was asked with --labels={labels} - the file is about {file.feature!r} - ask for that, or label this one")
        record["labels"] = {"sha256": sha256_of(labels), "n": len(file.source), "by": sorted(set(file.source))}
    return Given(name, source, labelled, file, record, notes)


Roles = tuple[Detector, Detector, dict[str, Any]]
"""Detector, judge, and what the records say of them."""


def steered(given: Given, method_name: str, method: Any, roles: Roles, network: Network) -> tuple[Given, Roles]:
    """Both with a detector that is still to be learned, where the method needs one, nobody brought one, and there will be labels.

    Raises:
        RedactError: there is nobody who recognises the feature in a picture, and nothing to learn it from.
    """
    detector, judge, told = roles
    labelled = given.labelled is not None or given.labels_by is not None
    if given.name in detector.attributes:
        return given, roles
    if "detector" not in method.needs:
        note = f"Nobody recognises {given.name} in a picture: {method_name} follows the labels' direction; --method=edit learns a detector from them"
        return (replace(given, notes=(*given.notes, note)) if labelled else given), roles
    if not labelled:
        raise RedactError(
            f"{given.name} was to be redacted by {method_name} - it needs a detector, and none knows it - give --classifier=FILE, or --labels=FILE "
            f"to learn one from, or a method that follows a direction, such as --method={METHOD}"
        )
    if given.labelled is not None and given.labelled.latents is not None:  # Else it would be found out when all of them are drawn.
        learned.split(given.name, (given.labelled.latents.score > 0).cpu())
    by = given.labels_by or feature_requests.LABELS
    notes = [*given.notes, f"Nobody brought a classifier of {given.name}: {method_name} is steered by one that is learned from the labels"]
    judges = {str(value) for value in (told.get("judge") or {}).values()}
    if given.file is not None and any(source.rpartition(" ")[2] in judges for source in set(given.file.source)):
        notes.append(f"Warning: the judge made these labels, too: what it measures of {given.name} is what it taught. Let another one measure")
    known = {**told, "detector": {"learned_from": by}}
    mirror = getattr(method, "mirror", None) is not False  # As the views that will steer the edit.
    return replace(given, learns=True, mirror=mirror, notes=tuple(notes)), (learned.blank(network, given.name), judge, known)


def check_classes(given: Given, labels: Labels | None) -> None:
    """Raises RedactError if pictures of other classes were labelled than the feature is redacted in."""
    c = None if given.labelled is None or given.labelled.latents is None else given.labelled.latents.c
    strangers = [] if c is None or labels is None else sorted({*c.argmax(dim=1).tolist()} - {*labels.classes})
    if strangers and labels is not None:
        asked = f"{given.name} was to be redacted in class {', '.join(map(str, labels.classes))}"
        raise RedactError(
            f"{asked} - the labels are of class {', '.join(map(str, strangers))} too - label pictures of that class, or give --class=all"
        )


def check_seeds(given: Given | None, measured: range) -> None:
    """Raises RedactError if pictures that were labelled would be measured on."""
    if given is None or given.labelled is None or given.labelled.latents is None or given.labelled.latents.seeds is None:
        return
    both = [seed for seed in given.labelled.latents.seeds.tolist() if seed in measured]
    if both:
        raise RedactError(
            f"seed {both[0]} was labelled and was to be measured on - what is learned from must not be measured - choose another --seed"
        )


def doubts(feature: Feature) -> tuple[str, ...]:
    """What to tell of a direction that its labels do not bear out."""
    subspace = feature.subspace
    if subspace is None or not subspace.accuracy < HARDLY_TELLS or feature.latents is None:
        return ()
    told = f"{subspace.accuracy:.2f} balanced accuracy on {len(feature.latents.w)} labelled latents, 0.5 is chance"
    return (f"the direction of {feature.name} hardly tells who shows it ({told}): methods that follow it will change other things",)


def _source(asked: feature_requests.Asked) -> Any:
    kind = plugins.load("stylegan_redact.features", asked.source)
    if asked.source == feature_requests.SEFA and not asked.value.isdecimal():
        raise RedactError(f"--feature={asked.text} was asked - a direction of the weights has a number - give sefa:0 for the most amplified one")
    value = int(asked.value) if asked.source == feature_requests.SEFA else asked.value
    return plugins.build(kind, {plugins.options(kind)[0].name: value, **asked.options})


def _labelling(asked: feature_requests.Asked, labels: str | None, network: Network) -> Given:
    """A source that labels pictures of the network, with all that it needs: loaded, and checked."""
    if labels is not None:
        raise RedactError(f"--feature={asked.text} was asked with --labels - it labels by itself - leave out one of the two")
    bare = _source(asked)
    told = {option.name: plugins.record(bare)[option.name] for option in plugins.options(type(bare)) if option.help}
    source = bare.prepared(network)
    record = {"labelled_by": {"source": asked.source, **told, **source.hashes()}}
    return Given(source.feature, source, None, None, record, source.notes(network), asked.source)


def _labelled(path: str, network: Network) -> tuple[Feature, LabelFile]:
    file = load_labels(path)
    _check_latents(Path(path), file, network)
    return LabelsFile(path).gather(network, ()), file


def _check_latents(path: Path, file: LabelFile, network: Network) -> None:
    """Raises RedactError if the network makes other latents of these seeds: a hash may be missing, or be that of a copy."""
    latents = file.latents
    G: Any = network.G_ema
    asked = f"the labels in {path} were to be used"
    if latents.w.shape[1] != G.w_dim or latents.seeds is None:
        return  # The source says so in its own words.
    if (latents.c is None) != (getattr(G, "c_dim", 0) == 0):
        raise RedactError(f"{asked} - they have {'no ' if latents.c is None else ''}classes, unlike the network - label pictures of this network")
    some = slice(_CHECKED)
    w = sample_w(G, latents.seeds[some].tolist(), c=None if latents.c is None else latents.c[some]).cpu()
    if bool(((w - latents.w[some]).norm(dim=1) > _TOLERANCE * w.norm(dim=1)).any()):
        raise RedactError(f"{asked} - this network makes other latents of the same seeds - label pictures of this network")


def save_label_files(feature: Feature, given: Given | None, classifiers: Mapping[str, Any], network_sha256: str, folder: Path) -> None:
    """Leaves `labels.npz`, or one file for each of several features; what every way of labelling ends in, and `--labels` takes.

    Args:
        feature:        As gathered.
        given:          What the user brought along.
        classifiers:    What the records say of the detector.
        network_sha256: Of the file that the latents are of.
        folder:         The run directory.
    """
    taken: list[str] = []
    for part in feature.each:
        latents = part.latents
        if latents is None or latents.seeds is None:
            continue
        source = (_who(part, given, classifiers.get("detector")),) * len(latents.w) if given is None or given.file is None else given.file.source
        taken.append(run_dir.safe_name(part.name))
        again = f"-{taken.count(taken[-1])}" if taken.count(taken[-1]) > 1 else ""  # Of names that differ in what no file's name may have.
        name = "labels.npz" if not feature.parts else f"labels-{taken[-1]}{again}.npz"
        save_labels(folder / name, LabelFile(part.name, latents, source, network_sha256))


def _who(feature: Feature, given: Given | None, detector: Any) -> str:
    if feature.label is not None:
        return "class"
    if given is not None and given.labels_by is not None:
        return given.labels_by
    if given is not None and feature.detector is None:
        return plugins.name_of(given.source)
    told = detector if isinstance(detector, Mapping) else {}
    return f"{told['bundled']} {told['role']}" if "bundled" in told else f"classifier {next(iter(told.values()), '')}".strip()
