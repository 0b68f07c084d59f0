# SPDX-License-Identifier: Apache-2.0
"""Who knows the feature that a request names, who steers and who judges: by attribute, whole class, photographs, or what the user brought along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact import class_requests, given, person_requests, several, steering
from stylegan_redact.decoder_files import DecoderFile
from stylegan_redact.features import person
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.features.whole_class import WholeClass
from stylegan_redact.labels import Labels, class_feature, of_class
from stylegan_redact.network_files import NetworkFile
from stylegan_redact.types import Detector, Feature, Network, Progress, RedactError


@dataclass(frozen=True)
class Cast:
    """The roles, filled."""

    features: tuple[str, ...]
    """One by one, sorted."""
    detector: Detector
    judge: Detector
    classifiers: Mapping[str, Any]
    """Which detector and which judge, for the records."""
    labels: Labels | None
    """Which classes are labelled and measured; None: the network is unconditional, or the feature is a whole class."""
    class_index: int | None = None
    """The class that is the feature, where it is a whole class."""
    sitting: person_requests.Sitting | None = None
    """Photographs, where the feature is a person."""
    brought: given.Given | None = None
    """Labels or a direction, where the user has them."""
    tried: tuple[str, ...] = ()
    """Of a bare name: every way to find it, and what came of it."""

    def gather(self, network: Network, seeds: range, *, batch: int, half: bool, progress: Progress | None) -> Feature:
        """The feature, from its source; arguments as of `Attribute.gather`, `half`: draw in float16 where the network does."""
        if self.brought is not None:
            return self.brought.gather(network, seeds, self.detector, self.labels, batch=batch, half=half, progress=progress)
        source: Any = Attribute(self.features, self.detector, self.labels, half)
        if self.class_index is not None:
            source = WholeClass(self.class_index)
        elif self.sitting is not None:
            source = person.Person(self.sitting.photos.known, self.labels, person_requests.SEARCH)
        feature: Feature = source.gather(network, seeds, batch=batch, progress=progress)
        return feature


def cast(request: Any, method: Any, file: NetworkFile | DecoderFile, network: Network, device: torch.device) -> Cast:
    """The cast of a request.

    Args:
        request: Of the main job.
        method:  Its method, an instance.
        file:    Where the network comes from.
        network: As loaded.
        device:  Where classifiers go.

    Raises:
        RedactError: nobody knows the feature, files that cannot be used, or a method that is not for such features.
    """
    class_index = class_feature(request.feature, network.G_ema.c_dim, file.name)
    superfluous = {"--keep": request.keep, "--classifier": request.classifier}
    class_requests.check(request.feature, request.method, method, {"--class": request.classes, **superfluous})
    person_requests.check(request.feature, request.method, method, superfluous)
    person_requests.check_snap(request.feature, request.snap)
    labels = of_class(request.classes, network.G_ema.c_dim, file.name) if class_index is None else None
    asked = steering.features_asked(request.feature)
    several.refuse_unless_several(method, request.feature, len(asked))
    brought = given.given_by(request.feature, request.labels, network)
    if person_requests.is_person(request.feature):
        sitting = person_requests.sitting_of(request.feature, request.judge, network, device)
        return Cast((person.NAME,), *person_requests.judge_of(request.judge, file, device), labels, sitting=sitting)
    if class_index is not None:
        return Cast(asked, *class_requests.judge_of(request.judge, request.feature, network.G_ema, device), labels, class_index)
    if brought is not None:
        given.check_classes(brought, labels)
        roles = steering.those_given(brought.name, request.classifier, request.judge, file=file, network=network, device=device)
        brought, roles = given.steered(brought, request.method, method, roles, network)
        return Cast((brought.name,), *roles, labels, brought=brought)
    detector, judge, classifiers = steering.classifiers(request, file=file, network=network, device=device)
    features = steering.known_names(request, asked, detector, judge, file)
    _refuse_without_gradients(method, request, detector)
    return Cast(features, detector, judge, classifiers, labels, tried=tuple(map(str, steering.ways(request, file))))


def _refuse_without_gradients(method: Any, request: Any, detector: Detector) -> None:
    """Refuses before anything is labelled what the method would refuse after that."""
    if getattr(method, "gradients", False) and not detector.differentiable:
        raise RedactError(
            f"{request.feature} was to be redacted by {request.method} - its detector gives no gradients - use --method=unlearn, mapping or fold"
        )
