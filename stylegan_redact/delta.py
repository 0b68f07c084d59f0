# SPDX-License-Identifier: Apache-2.0
"""A redaction apart from its network: redaction.safetensors holds the tensors of G and G_ema that it changed, as they are after it.

As they are, and not their differences: whoever has the base gets the redacted network to the bit, and at any strength; whoever has the redacted
network does not get the base back. Tensors that G and G_ema share are there once.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from stylegan_redact.pickles import Snapshot
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.run_dir import DELTA, strict, whole_file
from stylegan_redact.types import Estimate, Network, RedactError

FIGURES = ("residual_rate/rate_before", "residual_rate/rate_after", "residual_rate/removed")
"""Main ones, as far as they were measured."""
GENERATORS = ("G", "G_ema")
STRONGEST = 4.0
_METADATA = "stylegan-redact-delta"
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Delta:
    """What the file holds."""

    name: str
    """Of the file, for messages."""
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    """By G or G_ema and dotted name."""
    told: Mapping[str, Any]
    """`base`, the sha256 of the network; `redaction`, its record; `figures`; `shared`."""

    @property
    def base(self) -> str:
        """sha256 of the file that it is of."""
        return str(self.told["base"])


def write(after: Network, original: Snapshot, path: str | os.PathLike[str], record: Mapping[str, Any], estimates: Mapping[str, Estimate]) -> None:
    """Writes the delta of `after` to the file that it was made from.

    Args:
        after:     Redacted.
        original:  The base.
        path:      Replaced atomically.
        record:    Provenance: feature, method, version and more.
        estimates: Figures of it.
    """
    changed: dict[str, torch.Tensor] = {}
    shared: list[str] = []
    for key in reversed(GENERATORS):
        before = original.modules[key].tensors
        for name, tensor in getattr(after, key).state_dict().items():
            stored = tensor.detach().cpu().to(before[name].dtype).contiguous()
            if torch.equal(stored, before[name]):
                continue
            twin = changed.get(f"G_ema.{name}")
            if key == "G" and twin is not None and torch.equal(stored, twin):
                shared.append(name)
            else:
                changed[f"{key}.{name}"] = stored.clone()
    figures = {key: [each.value, each.low, each.high, each.n, each.unit] for key in FIGURES if (each := estimates.get(key)) is not None}
    told = {"base": original.sha256, "redaction": record, "figures": figures, "shared": shared}
    with whole_file(Path(path)) as temporary:
        # Not save_file, whose files nobody else may read.
        temporary.write_bytes(safetensors.torch.save(changed, metadata={_METADATA: json.dumps(strict(told), allow_nan=False)}))


def read(path: str | os.PathLike[str]) -> Delta:
    """What `write` wrote.

    Raises:
        RedactError: missing, damaged, or something else.
    """
    asked = f"the delta {os.fspath(path)} was to be read"
    tensors: dict[str, dict[str, torch.Tensor]] = {key: {} for key in GENERATORS}
    check_no_pipe(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA, "null")
            told: Any = json.loads(text) if len(text) <= _LONGEST else None
            names = [full.partition(".") for full in file.keys()]
            for key, _, name in names:
                tensors.setdefault(key, {})[name] = file.get_tensor(f"{key}.{name}")
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise RedactError(f"{asked} - it is missing or no whole safetensors file ({str(error)[:120]}) - check the name, or get it again") from None
    if not _is_description(told) or set(tensors) != set(GENERATORS) or not set(told["shared"]) <= set(tensors["G_ema"]):
        raise RedactError(f"{asked} - it does not say which network it is of - give a {DELTA} of a run")
    tensors["G"] |= {name: tensors["G_ema"][name] for name in told["shared"]}
    return Delta(os.fspath(path), tensors, told)


def checked_strengths(values: Sequence[float], count: int, asked: str) -> list[float]:
    """One strength for each delta.

    Args:
        values: One of all, or one for each.
        count:  Deltas.
        asked:  What was asked, for the message.

    Raises:
        RedactError: neither one nor as many, or out of range.
    """
    if len(values) not in (1, count):
        raise RedactError(f"{asked} - there are {count} deltas - give one strength, or one for each")
    if not all(0 < value <= STRONGEST for value in values):
        raise RedactError(f"{asked} - it goes from above 0 to {STRONGEST:g} - give such numbers")
    return list(values) if len(values) == count else list(values) * count


def applied(
    sha256: str, base: Mapping[str, Mapping[str, torch.Tensor]], deltas: Sequence[Delta], strengths: Sequence[float]
) -> dict[str, dict[str, torch.Tensor]]:
    """By G or G_ema and dotted name: base + sum of strength (after - base), computed in float64. One delta at strength 1 gives its very tensors.

    Args:
        sha256:    Of the base's file.
        base:      Its tensors, by G or G_ema and dotted name.
        deltas:    What to put on it.
        strengths: One for each.

    Raises:
        RedactError: a delta of another network, or given twice, or with tensors that the base does not have, or numbers not finite in the end.
    """
    for delta in deltas:
        if delta.base != sha256:
            raise RedactError(
                f"{delta.name} was to be applied - it is of the network with the sha256 {delta.base}, this one has {sha256} - "
                "give the one that it is of"
            )
    for one, other in itertools.combinations(deltas, 2):
        if _alike(one, other):
            raise RedactError(
                f"{one.name} and {other.name} were to be applied - they are one and the same - give it once, with a --strength if it is to go further"
            )
    new: dict[str, dict[str, torch.Tensor]] = {}
    for key in GENERATORS:
        before = base[key]
        steps: dict[str, list[tuple[float, torch.Tensor]]] = {}
        for delta, strength in zip(deltas, strengths, strict=True):
            for name, tensor in delta.tensors[key].items():
                if name not in before or before[name].shape != tensor.shape or before[name].is_floating_point() != tensor.is_floating_point():
                    raise RedactError(f"{delta.name} was to be applied - its {key}.{name} does not fit the network's - get the delta again")
                steps.setdefault(name, []).append((strength, tensor))
        new[key] = {name: _sum(before[name], each) for name, each in steps.items()}
        broken = [name for name, tensor in new[key].items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            raise RedactError(f"deltas were to be applied - {key}.{broken[0]} would have numbers that are not finite - use a smaller --strength")
    return new


def _sum(before: torch.Tensor, steps: Sequence[tuple[float, torch.Tensor]]) -> torch.Tensor:
    if len(steps) == 1 and steps[0][0] == 1:
        return steps[0][1].to(before)  # Modules are float32, whatever their file has.
    total = before.double()
    for strength, after in steps:
        total = total + strength * (after.to(before.device).double() - before.double())
    return total.to(before.dtype)


def _alike(one: Delta, other: Delta) -> bool:
    if any(one.tensors[key].keys() != other.tensors[key].keys() for key in GENERATORS):
        return False
    return all(torch.equal(tensor, other.tensors[key][name]) for key in GENERATORS for name, tensor in one.tensors[key].items())


def _is_description(told: Any) -> bool:
    kinds = {"base": str, "redaction": dict, "figures": dict, "shared": list}
    fits = isinstance(told, dict) and set(told) == set(kinds) and all(isinstance(told[key], kind) for key, kind in kinds.items())
    return fits and all(isinstance(name, str) for name in told["shared"])
