# SPDX-License-Identifier: Apache-2.0
"""What --network means: the name of a bundled network, a path, or a URL; with --decoder, weights of a VAE's decoder."""

from __future__ import annotations

import os
import re
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import decoder_files
from stylegan_redact.asking import bundled
from stylegan_redact.decoder_files import DecoderFile, Weights
from stylegan_redact.downloads import download, sha256_of
from stylegan_redact.losses.ms_ssim import scale_weights
from stylegan_redact.network import load_network, read_snapshot, save_network
from stylegan_redact.pickles import Snapshot
from stylegan_redact.types import Network, RedactError

CARRIES = "The new pickle carries objects of classes not known here, never made by us, but by whoever loads it"
"""What to tell of `Snapshot.opaque`."""

ROOM = 4
"""Times what the file's networks take: the result, its delta, two checkpoints."""


@dataclass(frozen=True)
class NetworkFile:
    """A snapshot and where it comes from."""

    name: str
    """Short, for the name of the run directory."""
    snapshot: Snapshot
    bundled: str | None
    """Name of the bundled network that it is, or was before it was redacted: its classifiers know the attributes."""


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
    origin = original_sha256(snapshot)
    same = [label for label, file in known.items() if sha256_of(file) == origin]
    return NetworkFile(_short(network), snapshot, same[0] if same else None)


def load(network: str, decoder: str | None, device: torch.device, trust_source: Sequence[str] = ()) -> tuple[NetworkFile | DecoderFile, Network]:
    """What `--network` and `--decoder` name: the file, and the network in it.

    Args:
        network:      As `find_network` takes it.
        decoder:      FILE.py:FACTORY, which is run, if the file holds weights of a decoder; None: it is a StyleGAN.
        device:       Where it goes.
        trust_source: sha256 of embedded sources that may be run.

    Raises:
        RedactError: there is no such thing, or it is not what it should be.
    """
    if decoder is None:
        file = find_network(network)
        return file, load_network(file.snapshot, device, trust_source=trust_source)
    if trust_source:
        raise RedactError("--trust-source was given with --decoder - a file of weights has no source in it, the decoder's is run - leave it out")
    path = locate(network)
    weights, loaded = decoder_files.load(path, sha256_of(path), decoder, device)
    return DecoderFile(_short(network), weights), loaded


def result_path(folder: Path, file: NetworkFile | DecoderFile) -> Path:
    """Where in a run directory the redacted file goes."""
    return folder / f"network-redacted{file.snapshot.ending if isinstance(file.snapshot, Weights) else '.pkl'}"


def save(after: Network, path: Path, file: NetworkFile | DecoderFile, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Writes the redacted file in the format of the one that was read; what was left out of it comes back."""
    if isinstance(file.snapshot, Weights):
        decoder_files.save(after, path, file.snapshot, record)
        return ()
    return save_network(after, path, original=file.snapshot, record=record)


def origin(file: NetworkFile | DecoderFile, network: Network, decoder: str | None) -> dict[str, Any]:
    """What the record of a redaction says of the file that it started from."""
    told: dict[str, Any] = {"network_sha256": file.snapshot.sha256}
    if decoder is not None:
        told["decoder_sha256"] = sha256_of(decoder.rpartition(":")[0])
    elif network.D is None:
        told["discriminator"] = "not known here, so that it did not judge how real the result is"
    return told | ({"converted_from": file.snapshot.converted_from} if file.snapshot.converted_from is not None else {})


def check_access(G: Any, accesses: Sequence[str]) -> None:
    """Raises RedactError if a way in is asked that the network does not have."""
    if G.num_ws < 2 and set(accesses) - {"z"}:
        raise RedactError(f"--access={','.join(accesses)} was asked of a decoder - z is all that goes into it - leave --access out")


def check_size(G: Any) -> None:
    """Raises RedactError if the network draws too small for what is compared of its pictures."""
    scale_weights(G.img_resolution)


def _short(network: str) -> str:
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(network).path) if "://" in network else network).stem
    return re.sub(r"[^0-9A-Za-z._-]", "_", name) or "network"


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
    if not os.path.exists(path) and path.name == network and not path.suffix:
        raise RedactError(f"the network {network!r} was asked - bundled are: {', '.join(known) or 'none'} - take one of these, a path or a URL")
    return path


def made_of(snapshot: Snapshot) -> list[str]:
    """sha256 of every file that this one says it was made of, the last first."""
    found, record = [], snapshot.redaction
    while isinstance(record, Mapping) and isinstance(record.get("network_sha256"), str):
        found.append(record["network_sha256"])
        record = record.get("earlier")
    return found


def original_sha256(snapshot: Snapshot) -> str:
    """Of the file that the first of all redactions started from; the snapshot's own if it was never redacted."""
    return [snapshot.sha256, *made_of(snapshot)][-1]


def notes(snapshot: Snapshot | Weights, network: Network) -> list[str]:
    """What of the file is not as usual: parts that are carried along unread, or a discriminator that cannot help."""
    told = [f"{CARRIES}: {', '.join(snapshot.opaque)}"] if snapshot.opaque else []
    told += snapshot.remarks
    if network.D is None and not isinstance(snapshot, Weights):
        told.append("The discriminator of this file is not known here: it stays as it is, and edit does without its word on how real a picture looks")
    return told


def scarce(network: Network, folder: Path) -> str | None:
    """What to tell if the disk of the folder has hardly room for what a run leaves of the network, or None.

    That is the result and, until the end, the checkpoint and the one that follows it, each with an optimiser's two moments of what is trained.
    """
    nets = [net for net in (network.G, network.D, network.G_ema) if net is not None]
    size = sum(tensor.numel() * tensor.element_size() for net in nets for tensor in (*net.parameters(), *net.buffers()))
    free, needed = shutil.disk_usage(folder).free, ROOM * size
    if free >= needed:
        return None
    return (
        f"Warning: {free / 2**20:.0f} MiB are free in {folder}, and result and checkpoints of this network may take {needed / 2**20:.0f} MiB: make "
        "room while it runs, or what is trained may not find a place"
    )
