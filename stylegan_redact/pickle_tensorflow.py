# SPDX-License-Identifier: Apache-2.0
"""The checked graph of a TensorFlow-era pickle as plain values: what each network was built with, and its variables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_redact import pickle_tree
from stylegan_redact.pickle_stream import TRUSTED, Object, Refused, Untrusted
from stylegan_redact.pickle_values import PROGAN_NETWORK, TF_NETWORKS, Reader

KEYS = ("G", "D", "G_ema")
"""What the three networks of the pickle become; TensorFlow code called the last one Gs."""
FORMATS = {4: "StyleGAN2", 5: "StyleGAN2-ADA"}
"""Version in the pickled state -> whose TensorFlow code writes it (stylegan-compat.md 4)."""
_MOST_VARIABLES = 10_000
_MOST_COMPONENTS = 100
"""A generator has two. Sharing could make a small file stand for 10^12 of them."""
_DEEPEST = 4


@dataclass(frozen=True)
class TensorFlowNetwork:
    """A network as the pickle describes it; nothing of its source was run."""

    format: int
    """A key of FORMATS."""
    static_kwargs: dict[str, Any]
    """What it was built with; values that are not plain are pickle_tree.Opaque."""
    variables: dict[str, np.ndarray]
    """By path, such as `synthesis/4x4/Const/const`; the network's own and those of its components."""


@dataclass(frozen=True)
class TensorFlowPickle:
    """What a pickle of NVIDIA's TensorFlow code holds."""

    sha256: str
    """Of the file."""
    networks: dict[str, TensorFlowNetwork]
    """By KEYS."""

    @property
    def made_by(self) -> str:
        """Whose code wrote it."""
        return FORMATS[self.networks["G"].format]


def holds_networks(root: Any) -> bool:
    """Whether the root of a pickle is a TensorFlow network, or several of them."""
    members = root if isinstance(root, (tuple, list)) else (root,)
    return bool(members) and all(_is_network(member) for member in members)


def _is_network(node: Any) -> bool:
    return isinstance(node, Object) and node.func in TF_NETWORKS


def read_networks(root: Any, reader: Reader) -> dict[str, TensorFlowNetwork]:
    """The three networks by KEYS.

    Raises:
        Refused: of an older StyleGAN, not three of them, or their state is not what TensorFlow code pickles.
    """
    members = list(root) if isinstance(root, (tuple, list)) else [root]
    for member in members:
        _check_format(member)
    if len(members) != len(KEYS):
        raise Refused(f"it holds {len(members)} TensorFlow network(s), where StyleGAN pickles hold G, D and Gs - ask its author for the full pickle")
    return {key: network_of(member, reader) for key, member in zip(KEYS, members, strict=True)}


def _check_format(member: Object) -> None:
    version = member.state.get("version")
    if type(version) is not int or version not in FORMATS:
        if member.func == PROGAN_NETWORK or version == 2:
            what = "a ProGAN, which has no styles that could be redacted"
        elif version == 3:
            what = "a StyleGAN of 2019 (StyleGAN1), whose layers StyleGAN2 does not have"
        else:
            known = ", ".join(f"{number} ({name})" for number, name in FORMATS.items())
            what = f"a TensorFlow network of format {ascii(version)[:20]}, and known are {known}"
        raise Refused(f"it is {what} - give a network of StyleGAN2, StyleGAN2-ADA or StyleGAN3 of the same subject")


def network_of(member: Object, reader: Reader) -> TensorFlowNetwork:
    """One network, of whatever version.

    Raises:
        Refused: its state is not what TensorFlow code pickles.
    """
    static_kwargs = pickle_tree.plain(member.state.get("static_kwargs"), reader)
    if not isinstance(static_kwargs, dict) or not all(isinstance(name, str) for name in static_kwargs):
        raise Refused(f"it does not say what a network in it was built with - {TRUSTED}")
    variables: dict[str, np.ndarray] = {}
    for path, values in _variables(member, reader, [0]):
        if path in variables or len(variables) >= _MOST_VARIABLES:
            raise Untrusted(f"a network in it has too many variables, or two of one name - {TRUSTED}")
        variables[path] = values
    return TensorFlowNetwork(member.state.get("version", 0), static_kwargs, variables)


def _variables(member: Object, reader: Reader, visits: list[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    own, components = member.state.get("variables"), pickle_tree.items_of(member.state.get("components", {}))
    named = isinstance(own, list) and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in own)
    if not named or components is None or depth > _DEEPEST:
        raise Refused(f"a network in it has no list of variables - {TRUSTED}")
    visits[0] += 1
    if visits[0] > _MOST_COMPONENTS:
        raise Untrusted(f"a network in it has more than {_MOST_COMPONENTS} components - {TRUSTED}")
    for name, value in own:
        # TensorFlow hands out variables without dimensions as NumPy's numbers, which the reader made Python's.
        values = np.asarray(value, np.float64) if type(value) in (int, float) else reader.arrays.get(id(value))
        if values is None or values.dtype.kind not in "iuf":
            raise Refused(f"its variable {ascii(prefix + name)[:100]} is no array of numbers - {TRUSTED}")
        yield prefix + name, values
    for name, component in components:
        if not (isinstance(name, str) and _is_network(component)):
            raise Refused(f"a network in it has a component that is none - {TRUSTED}")
        yield from _variables(component, reader, visits, f"{prefix}{name}/", depth + 1)
