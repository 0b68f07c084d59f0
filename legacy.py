# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `legacy` interface on the reader that runs nothing of a pickle: `python legacy.py --source=old.pkl --dest=new.pkl`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import dnnlib
from stylegan_redact.network import load_network, read_snapshot
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.pickle_tree import without_paths
from stylegan_redact.pickles import NETWORKS, ModuleRecord
from stylegan_redact.types import RedactError

FP16: Mapping[str, Any] = dict(num_fp16_res=4, conv_clamp=256)
"""What `force_fp16` sets: float16 in the four highest resolutions, on GPUs."""


def load_network_pkl(f: str | os.PathLike[str] | BinaryIO, force_fp16: bool = False) -> dict[str, Any]:
    """G, D, G_ema, training_set_kwargs and augment_pipe of a StyleGAN pickle, and `redaction` where the file has one.

    Unlike NVIDIA's function, this one executes nothing of the file: the networks are instances of our classes with the file's tensors. An
    augmentation pipe, which only training needs, cannot be had that way: augment_pipe is always None, with a UserWarning if the file has one.
    Pickles of StyleGAN2 and StyleGAN2-ADA for TensorFlow are converted on the way; TensorFlow is not needed.

    Args:
        f:          Open binary file, or a file name.
        force_fp16: Rebuild the networks so that they use float16 on GPUs, whatever the file says.

    Returns:
        Networks in eval mode, without gradients, on the CPU; training_set_kwargs is a dict, or None where the file has none.

    Raises:
        RedactError: not a StyleGAN pickle, or an architecture that is not known.
    """
    snapshot = read_snapshot(f)
    if "augment_pipe" in snapshot.modules:
        warnings.warn("the augment_pipe of this pickle is not loaded; only training needs it", stacklevel=2)
    if force_fp16:
        changed = {name: with_fp16(record) if name in NETWORKS else record for name, record in snapshot.modules.items()}
        snapshot = dataclasses.replace(snapshot, modules=changed)
    network = load_network(snapshot)
    if network.D is None:
        raise RedactError("G, D and G_ema were asked for - the D of this file is of no architecture known here - load it with the fork's own code")
    data: dict[str, Any] = {"G": network.G, "D": network.D, "G_ema": network.G_ema}
    data |= {"training_set_kwargs": snapshot.training_set_kwargs, "augment_pipe": None}
    return data if snapshot.redaction is None else data | {"redaction": snapshot.redaction}


def with_fp16(record: ModuleRecord) -> ModuleRecord:
    """The network's description with FP16 among its constructor arguments, where its generation of StyleGAN expects them."""
    kwargs = dict(record.init_kwargs)
    if "synthesis_kwargs" in kwargs:  # stylegan2-ada-pytorch's generator
        kwargs["synthesis_kwargs"] = {**(kwargs["synthesis_kwargs"] or {}), **FP16}
    else:
        kwargs.update(FP16)
    return dataclasses.replace(record, init_kwargs=kwargs)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads a pickle and writes it anew, with the source of our networks in it. Ends the process with code 2 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="legacy.py", description="Convert a StyleGAN pickle without executing it.", allow_abbrev=False)
    parser.add_argument("--source", required=True, metavar="PATH|URL", help="Pickle to read")
    parser.add_argument("--dest", required=True, metavar="PATH", help="Pickle to write")
    parser.add_argument("--force-fp16", nargs="?", const=True, default=False, type=_yes_or_no, metavar="BOOL", help="Use float16 on GPUs")
    args = parser.parse_args(argv)
    try:
        _tell(f'Loading "{args.source}"...')
        with dnnlib.util.open_url(args.source) as file:
            data = load_network_pkl(file, args.force_fp16)
        published, dropped = without_paths(data)
        _tell(f'Saving "{args.dest}"...')
        write_network_pickle(args.dest, **published)
    except (RedactError, OSError) as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
    for name in dropped:
        _tell(f"Left out, a private path: {name}")
    _tell("Done.")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _yes_or_no(text: str) -> bool:
    answers = {**dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True), **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False)}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return answers[text.lower()]


if __name__ == "__main__":
    main()
