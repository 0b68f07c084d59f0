# SPDX-License-Identifier: Apache-2.0
"""A pickle of one network of NVIDIA's TensorFlow code, of whatever version, as plain values: classifiers come so. Nothing in it is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_redact import pickle_file, pickle_tensorflow
from stylegan_redact.pickle_stream import Refused
from stylegan_redact.pickle_values import Reader

_WHAT = "a classifier of NVIDIA's TensorFlow code"


@dataclass(frozen=True)
class SingleNetwork:
    """What the file says of its network."""

    sha256: str
    """Of the file."""
    static_kwargs: dict[str, Any]
    """What it was built with."""
    source: str
    """Of the code that built it, as text."""
    variables: dict[str, np.ndarray]
    """By path, such as `4x4/Conv/weight`."""


def read_single_network(path: Path) -> SingleNetwork:
    """The network in the file.

    Raises:
        UntrustedFile: it has imports that no such pickle needs, or wants more memory or time.
        RedactError:   missing, damaged, or something else.
    """
    found: SingleNetwork = pickle_file.read_path(path, _WHAT, _interpret)
    return found


def _interpret(root: Any, reader: Reader, sha256: str) -> SingleNetwork:
    if isinstance(root, (tuple, list)) or not pickle_tensorflow.holds_networks(root):
        raise Refused("it does not hold one network of TensorFlow - give one of their celebahq-classifier-NN-ATTRIBUTE.pkl")
    found = pickle_tensorflow.network_of(root, reader)
    source = root.state.get("build_module_src")
    return SingleNetwork(sha256, found.static_kwargs, source if isinstance(source, str) else "", found.variables)
