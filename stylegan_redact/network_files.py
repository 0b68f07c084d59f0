# SPDX-License-Identifier: Apache-2.0
"""What --network means: the name of a bundled network, a path, or a URL."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stylegan_redact.downloads import download, sha256_of
from stylegan_redact.network import read_snapshot
from stylegan_redact.pickles import Snapshot
from stylegan_redact.types import Network, RedactError

CARRIES = "The new pickle carries objects of classes not known here, never made by us, but by whoever loads it"
"""What to tell of `Snapshot.opaque`."""
_BUNDLED_DIR = Path(__file__).parent / "portraits"


@dataclass(frozen=True)
class NetworkFile:
    """A snapshot and where it comes from."""

    name: str
    """Short, for the name of the run directory."""
    snapshot: Snapshot
    bundled: str | None
    """Name of the bundled network that it is, or was before it was redacted: its classifiers know the attributes."""


def bundled() -> dict[str, Path]:
    """Name -> file of every network that comes with the package."""
    return {path.stem: path for path in sorted(_BUNDLED_DIR.glob("*.pkl"))}


def find_network(network: str) -> NetworkFile:
    """The snapshot that `--network` names, read without executing anything of it.

    Args:
        network: Name of a bundled network, path, or http(s)/ftp/file URL; downloads go to dnnlib's cache.

    Raises:
        RedactError: there is no such thing, or it is no StyleGAN snapshot.
    """
    known = bundled()
    snapshot = read_snapshot(locate(network))
    if network in known:
        return NetworkFile(network, snapshot, network)
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(network).path) if "://" in network else network).stem
    origin = original_sha256(snapshot)
    same = [label for label, file in known.items() if sha256_of(file) == origin]
    return NetworkFile(re.sub(r"[^0-9A-Za-z._-]", "_", name) or "network", snapshot, same[0] if same else None)


def locate(network: str) -> Path:
    """The file that `--network` names; URLs are downloaded.

    Raises:
        RedactError: there is no such thing. A path is not looked at.
    """
    known = bundled()
    if network in known:
        return known[network]
    if "://" in network:
        return download(network, "network")
    path = Path(network)
    if not path.exists() and path.name == network and not path.suffix:
        raise RedactError(f"the network {network!r} was asked - bundled are: {', '.join(known) or 'none'} - take one of these, a path or a URL")
    return path


def original_sha256(snapshot: Snapshot) -> str:
    """Of the file that the first of all redactions started from; the snapshot's own if it was never redacted."""
    sha256, record = snapshot.sha256, snapshot.redaction
    while isinstance(record, Mapping) and isinstance(record.get("network_sha256"), str):
        sha256, record = record["network_sha256"], record.get("earlier")
    return sha256


def notes(snapshot: Snapshot, network: Network) -> list[str]:
    """What of the file is not as usual: parts that are carried along unread, or a discriminator that cannot help."""
    told = [f"{CARRIES}: {', '.join(snapshot.opaque)}"] if snapshot.opaque else []
    told += snapshot.remarks
    if network.D is None:
        told.append("The discriminator of this file is not known here: it stays as it is, and edit does without its word on how real a picture looks")
    return told
