# SPDX-License-Identifier: Apache-2.0
"""What --feature means: a bare name is an attribute, SOURCE:VALUE says who knows it, SOURCE:VALUE:OPTION=VALUE with options of that source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stylegan_redact import plugins
from stylegan_redact.types import RedactError

ATTRIBUTE, CLASS, DIRECTION, IMAGES = "attribute", "class", "direction", "images"
LABELS, PERSON, SEFA, TEXT, VALIDITY = "labels", "person", "sefa", "text", "validity"
SOURCES: Mapping[str, str] = {
    ATTRIBUTE: "attribute:NAME, or NAME alone: what a classifier knows",
    CLASS: "class:N: a whole class of a conditional network",
    DIRECTION: "direction:FILE: a direction of W",
    IMAGES: "images:PICTURES: what these show",
    LABELS: "labels:FILE.npz: what somebody labelled",
    PERSON: "person:PHOTOS: one person",
    SEFA: "sefa:N: one of the directions that the weights amplify most",
    TEXT: "text:SENTENCE: what CLIP finds it to go with",
    VALIDITY: "validity:FILE.py:FUNCTION: pictures that it calls invalid",
}
"""Name -> how it is written."""
LABELLING = (IMAGES, TEXT, VALIDITY)
"""Sources that look at the network's pictures and label them."""
_WITH_OPTIONS = (DIRECTION, LABELS, SEFA, *LABELLING)
_PREFIX = re.compile(r"([a-z_]+):(.*)", re.DOTALL)
_OPTION = re.compile(r":([a-z_]+)=([^:]*)$")


@dataclass(frozen=True)
class Asked:
    """A feature as the command line names it."""

    text: str
    source: str
    """Of SOURCES."""
    value: str
    options: Mapping[str, Any]


def asked(feature: str) -> Asked:
    """What `--feature` names.

    Raises:
        RedactError: a source that there is not.
    """
    found = _PREFIX.fullmatch(feature)
    if found is None:
        return Asked(feature, ATTRIBUTE, feature, {})
    source, value = found.groups()
    if source not in SOURCES:
        raise RedactError(
            f"--feature={feature} was asked - there is no source {source!r}; there are {'; '.join(SOURCES.values())} - name one of these"
        )
    if not value.strip():
        raise RedactError(f"--feature={feature} was asked - nothing stands behind {source}: - write {SOURCES[source]}")
    options: dict[str, Any] = {}
    while source in _WITH_OPTIONS and (last := _OPTION.search(value)) is not None:
        options |= plugins.with_options(f"_:{last.group(1)}={last.group(2)}")[1]
        value = value[: last.start()]
    return Asked(feature, source, value, options)


def source_of(feature: str) -> str:
    """Of SOURCES; whether or not it has such a feature."""
    return asked(feature).source


def refuse_misfit(is_its: bool, takes_it: bool, given: Mapping[str, Any], *, feature: str, method: str, options: str) -> None:
    """Raises RedactError where of a source and the methods for it only one was asked, or with options that such features have no use for.

    Args:
        is_its:   The feature is of the source.
        takes_it: The method is for features of the source, and for no others.
        given:    Option -> value, of options that only other features have a use for.
        feature:  What to say where the feature is of another source.
        method:   What to say where the method is for others.
        options:  What to say of superfluous options, {} in it being their names.
    """
    if takes_it and not is_its:
        raise RedactError(feature)
    if is_its and not takes_it:
        raise RedactError(method)
    superfluous = [name for name, value in given.items() if value]
    if is_its and superfluous:
        raise RedactError(options.replace("{}", ", ".join(superfluous)))
