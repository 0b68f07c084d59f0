# SPDX-License-Identifier: Apache-2.0
"""The steps as functions, for programs that do without the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from stylegan_redact import delta as deltas
from stylegan_redact import evaluation, methods, plugins, several
from stylegan_redact.labels import Labels
from stylegan_redact.latents import LabelFile
from stylegan_redact.network import c_dim_of, copy_network, sample_w, seed_range
from stylegan_redact.types import Detector, Estimate, Feature, Network, Progress, RedactError

_SAME = 0.05
"""How far apart, of its length, w of one network may be on two machines: half precision, and more."""
_GATHER = "gather it from this network"


def label(network: Network, source: Any, n: int, *, first_seed: int = 0, batch: int = 32, progress: Progress | None = None) -> LabelFile:
    """What a source says of `n` pictures of the network: whose latents show the feature. `latents.save_labels` writes it as labels.npz.

    Its tensors are on the CPU, wherever the network is, as those of a file.

    Args:
        network:    What `load_network` gave.
        source:     An instance of a class of `features/`, such as `Attribute("beard", detector)`; one feature.
        n:          Seeds to label. A source that has its own, or leaves undecided ones out, gives others.
        first_seed: The first of them, NVIDIA's.
        batch:      Images at a time.
        progress:   Told (stage, share done, figures).

    Raises:
        RedactError: it is no source, or labels nothing; or the network shows the feature too seldom, or nearly always.
    """
    if not callable(getattr(source, "gather", None)) or isinstance(source, type):
        what = source.__name__ if isinstance(source, type) else type(source).__name__
        raise RedactError(f"{what} was to label - it is no source - give an instance of a class of features/, such as Attribute('beard', detector)")
    if n < 1:
        raise RedactError(f"{n} pictures were to be labelled - there is nothing to label - give a number above 0")
    feature = source.gather(network, seed_range(first_seed, n), batch=batch, progress=progress)
    if feature.parts:
        raise RedactError(f"{feature.name} were to be labelled at once - a file of labels is about one feature - label one after the other")
    latents = feature.latents
    if latents is None or latents.seeds is None or not 0 < int((latents.score > 0).sum()) < len(latents.score):
        raise RedactError(f"{feature.name} was to be labelled by {plugins.name_of(source)} - it labels no pictures - take another source")
    latents = replace(latents, **{name: each.cpu() for name, each in vars(latents).items() if each is not None})
    return LabelFile(feature.name, latents, (plugins.name_of(source),) * len(latents.w), network.sha256)


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
        RedactError: the feature lacks something that the method needs, or is of another network, or the method takes no more than one.
    """
    _check_network(network, "redacted")
    plugin = plugins.build(plugins.load(methods, method), {}) if isinstance(method, str) else method
    if isinstance(plugin, type) or not callable(getattr(plugin, "redact", None)):
        what = plugin.__name__ if isinstance(plugin, type) else type(plugin).__name__
        raise RedactError(f"{what} was to redact - it is no method - give the name of one, or an instance of a class of methods/, such as Edit()")
    if isinstance(keep, str):
        raise RedactError(f"keep={keep!r} was given - it is one text, and names are taken from a tuple - give ({keep!r},)")
    joint = _joint(feature)
    _check_origin(network, joint)
    several.refuse_unless_several(plugin, joint.name, len(joint.each))
    missing = [need for need in plugin.needs if any(getattr(part, need) is None for part in joint.each)]
    if missing:
        raise RedactError(
            f"{joint.name} was to be redacted by {plugins.name_of(plugin)} - its {', '.join(missing)} is missing, which the method needs - "
            "gather the feature from a source that gives it"
        )
    after: Network = plugin.redact(network, joint, keep, seed, progress)
    return replace(after, sha256="")  # It is of no file so far.


def apply(
    network: Network,
    delta: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    strength: float | Sequence[float] = 1.0,
) -> Network:
    """The network with a redaction on it that was kept apart from it, or several, as `redact.py apply` puts it; the given one stays as it is.

    Args:
        network:  What `load_network` gave for the file that the delta is of.
        delta:    A `redaction.safetensors` of a run, or several, which add up.
        strength: Of all, or one for each; 1: the redacted network itself. Above 0, at most 4.

    Raises:
        RedactError: files that are missing, damaged, or of another network; or strengths out of range.
    """
    _check_network(network, "redacted")
    if not isinstance(delta, str | os.PathLike | Iterable) or isinstance(strength, str) or not isinstance(strength, int | float | Iterable):
        asked = f"the delta {delta!r:.80} was to be applied at {strength!r:.80}"
        raise RedactError(f"{asked} - these are no file and number - give one of each, or several")
    paths = [delta] if isinstance(delta, str | os.PathLike) else list(delta)
    if not paths:
        raise RedactError("a redaction was to be applied - no delta was named - give one file or several")
    given = [float(strength)] if isinstance(strength, int | float) else [float(each) for each in strength]
    strengths = deltas.checked_strengths(given, len(paths), f"the strength {', '.join(f'{each:g}' for each in given)} was asked")
    if not network.sha256:
        raise RedactError("a delta was to be applied - the network was made in memory, and a delta is of a file - load it with load_network")
    before = {key: getattr(network, key).state_dict() for key in deltas.GENERATORS}
    new = deltas.applied(network.sha256, before, [deltas.read(path) for path in paths], strengths)
    after = replace(copy_network(network), sha256="")
    for key, tensors in new.items():
        getattr(after, key).load_state_dict({**before[key], **tensors})
    return after


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

    Raises:
        RedactError: the networks differ in shape, the judge does not know the feature, or gives no logits of some image; or no seeds of NVIDIA's.
    """
    for network in (before, after):
        _check_network(network, "measured")
    if not callable(getattr(judge, "logits", None)):
        raise RedactError(f"{type(judge).__name__} was to judge - it gives no logits - load it first, with detectors.load_torchscript(path, ...)")
    pairs = evaluation.measure_pairs(before, after, judge, seeds, batch=batch, labels=labels)
    return evaluation.ask_several(pairs, (feature,) if isinstance(feature, str) else tuple(feature), keep=keep)


def _joint(feature: Feature | Sequence[Feature]) -> Feature:
    if isinstance(feature, Feature):
        return feature
    parts: list[Any] = list(feature) if isinstance(feature, Iterable) and not isinstance(feature, str) else [feature]
    for part in parts:
        if not isinstance(part, Feature):
            told = f"{part!r:.80} was to be redacted"
            raise RedactError(f"{told} - it is no Feature - give what a source gathers, such as Attribute('beard', detector).gather(network, seeds)")
    return several.together(parts)


def _check_network(network: Network, what: str) -> None:
    if not isinstance(network, Network):
        raise RedactError(f"{type(network).__name__} was to be {what} - it is no Network - give what load_network made of the file")


def _check_origin(network: Network, feature: Feature) -> None:
    """Raises RedactError if what the feature says of a seed is not what this network makes of it: its direction is a stranger's."""
    latents = feature.latents
    if latents is None or latents.seeds is None or len(latents.w) == 0:
        return
    G: Any = network.G_ema
    seed, known = [int(latents.seeds[0])], latents.w[:1]
    if known.shape[1] != G.w_dim:
        raise RedactError(f"{feature.name} was to be redacted - its latents have {known.shape[1]} numbers, w of this network {G.w_dim} - {_GATHER}")
    if c_dim_of(G) != (0 if latents.c is None else latents.c.shape[1]):
        raise RedactError(f"{feature.name} was to be redacted - it was gathered for other classes than this network has - {_GATHER}")
    with torch.no_grad():
        made = sample_w(G, seed, c=None if latents.c is None else latents.c[:1])
    if not float((made - known.to(made)).norm()) <= _SAME * float(made.norm()):
        raise RedactError(f"{feature.name} was to be redacted - this network makes another w of seed {seed[0]} than its latents have - {_GATHER}")
