# SPDX-License-Identifier: Apache-2.0
"""The steps as functions, for programs that do without the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stylegan_redact import evaluation, methods, plugins, several
from stylegan_redact.labels import Labels
from stylegan_redact.types import Detector, Estimate, Feature, Network, Progress, RedactError


def redact(
    network: Network,
    feature: Feature | Sequence[Feature],
    method: Any = "edit",
    *,
    keep: tuple[str, ...] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Network:
    """A network of the same structure that no longer shows the feature, or any of several; the given one stays as it is.

    Args:
        network:  What `load_network` gave.
        feature:  What a source of `features/` gathered, or several of the same latents and detector, in any order.
        method:   Name of a file of `methods/`, with its default options, or an instance of its class.
        keep:     Names of attributes that shall stay: `fold`, `leace`, `mapping` and `unlearn` move nothing along their directions, `edit` holds all
                  that its detector knows anyway.
        seed:     Of all randomness; the same seed gives the same network.
        progress: Told (stage, share done, figures).

    Raises:
        RedactError: the feature lacks something that the method needs, or the method takes no more than one.
    """
    plugin = plugins.build(plugins.load(methods, method), {}) if isinstance(method, str) else method
    joint = feature if isinstance(feature, Feature) else several.together(feature)
    several.refuse_unless_several(plugin, joint.name, len(joint.each))
    missing = [need for need in plugin.needs if any(getattr(part, need) is None for part in joint.each)]
    if missing:
        raise RedactError(
            f"{joint.name} was to be redacted by {plugins.name_of(plugin)} - its {', '.join(missing)} is missing, which the method needs - "
            "gather the feature from a source that gives it"
        )
    return plugin.redact(network, joint, keep, seed, progress)


def evaluate(
    before: Network,
    after: Network,
    feature: str | Sequence[str],
    judge: Detector,
    seeds: Sequence[int],
    *,
    keep: tuple[str, ...] = (),
    batch: int = 64,
    labels: Labels | None = None,
) -> dict[str, Estimate]:
    """Every question of `evaluation/`, answered by the judge on the same seeds before and after.

    Args:
        before, after: Networks of one shape.
        feature:       What was redacted, one name or several; the judge knows it.
        judge:         Never the detector that steered.
        seeds:         NVIDIA's seeds that nothing was fitted to.
        keep:          Attributes whose largest change is asked for.
        batch:         Images at a time.
        labels:        Classes to measure, of conditional networks.
    """
    pairs = evaluation.measure_pairs(before, after, judge, seeds, batch=batch, labels=labels)
    return evaluation.ask_several(pairs, (feature,) if isinstance(feature, str) else tuple(feature), keep=keep)
