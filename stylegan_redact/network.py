# SPDX-License-Identifier: Apache-2.0
"""Networks in and out of pickles, NVIDIA's seeds to latents, latents to images, and the list of style layers."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from stylegan_redact import foreign, labels, pickle_torch, pickles, rows, trusted
from stylegan_redact.networks import build, export, rosinality, tensorflow
from stylegan_redact.types import Network, RedactError


def read_snapshot(source: str | os.PathLike[str] | BinaryIO) -> pickles.Snapshot:
    """The snapshot in the file, read without executing anything of it.

    What NVIDIA's TensorFlow code wrote (StyleGAN2, StyleGAN2-ADA) and checkpoints of rosinality's stylegan2-pytorch, the latter by file name, come
    out as the snapshot of PyTorch that they are converted to, with `sha256` of the file as it is and `converted_from` saying so. Whatever takes a
    snapshot takes it.

    Args:
        source: File name, or an open binary file, read from where it stands to its end.

    Raises:
        RedactError: not a StyleGAN pickle, damaged or hostile, or of TensorFlow and without a counterpart in PyTorch.
    """
    if isinstance(source, (str, os.PathLike)) and os.path.isfile(source) and pickle_torch.is_torch_file(Path(source)):
        return _of_checkpoint(Path(source))
    found = pickles.read_pickle(source)
    if isinstance(found, pickles.Snapshot):
        return found
    nets = {
        key: tensorflow.build_network("Discriminator" if key == "D" else "Generator", net.static_kwargs, net.variables)
        for key, net in found.networks.items()
    }
    snapshot = pickles.read_snapshot(io.BytesIO(export.network_pickle(**nets)))
    return dataclasses.replace(snapshot, sha256=found.sha256, converted_from=f"{found.made_by} for TensorFlow")


def _of_checkpoint(path: Path) -> pickles.Snapshot:
    nets, told = rosinality.from_checkpoint(pickle_torch.read_torch_file(path, rosinality.PARTS))
    snapshot = pickles.read_snapshot(io.BytesIO(export.network_pickle(**nets)))
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return dataclasses.replace(snapshot, sha256=digest.hexdigest(), converted_from=rosinality.WHAT, remarks=told)


def load_network(
    source: str | os.PathLike[str] | pickles.Snapshot, device: torch.device | str = "cpu", *, trust_source: Sequence[str] = ()
) -> Network:
    """Modules of ours with the tensors of a StyleGAN pickle, read without executing anything of it but what `trust_source` names.

    Args:
        source:       Path of a pickle, or what `read_snapshot` gave.
        device:       Where the modules go.
        trust_source: sha256 of embedded sources that may be run, for networks of an architecture that is not known here.

    Returns:
        D is None where the file's discriminator is not known here.

    Raises:
        RedactError: not a StyleGAN pickle, an architecture that is not known and not trusted, or trust in what need not or cannot be run; or a
            device that torch does not have.
    """
    _check_device(device)
    snapshot = source if isinstance(source, pickles.Snapshot) else read_snapshot(source)
    maker = trusted.Maker(snapshot, trusted.checked(trust_source, snapshot))
    nets = {}
    for key in pickles.NETWORKS:
        if key not in snapshot.keys:
            raise RedactError(f"a StyleGAN snapshot was asked for - this file holds {', '.join(snapshot.keys)} and no {key} - use the full snapshot")
        net = _module(snapshot, key, maker)
        nets[key] = None if net is None else net.to(device)
    idle = [sha256 for sha256 in trust_source if sha256.lower() not in maker.ran]
    if idle:
        raise RedactError(f"the source {', '.join(idle)} was to be run - no network here needs it to be run, ours computes the same - leave it out")
    return Network(nets["G"], nets["D"], nets["G_ema"], None, snapshot.training_set_kwargs, snapshot.sha256)


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        told = str(error).strip().splitlines()[0][:120]
        raise RedactError(f"a network was to be loaded on {device} - torch says: {told} - give cpu, or cuda where torch sees a GPU") from None


def _module(snapshot: pickles.Snapshot, key: str, maker: trusted.Maker) -> Any:
    """Ours if it is known here, else what its trusted source makes; None for a discriminator that is neither."""
    record = snapshot.modules.get(key)
    ada = any(build.of_ada_layout(each.class_name, each.init_kwargs) for each in snapshot.modules.values())
    try:
        return None if record is None else build.build_module(record.class_name, record.init_args, record.init_kwargs, record.tensors, ada=ada)
    except RedactError as error:
        if type(error) is not RedactError:  # More than not known: nothing to run instead, or to do without.
            raise
        if record is not None and record.module_src and not maker.untrusted(key):
            net = maker.make(key)
            return net if key == "D" else foreign.adapt(net, key)
        if key == "D":
            return None
        raise RedactError(f"{str(error).rpartition(' - ')[0]} - {_advice(snapshot, key)}") from None


def _advice(snapshot: pickles.Snapshot, key: str) -> str:
    """What to do about a generator that is not known here."""
    layers = any(name.endswith(".affine.weight") for name in snapshot.modules[key].tensors)
    fold = "`redact.py fold` moves all w along a direction of yours without drawing" if layers else ""
    if not snapshot.modules[key].module_src:
        nothing = "and it has no layers named affine, through which a StyleGAN reads w: there is nothing to redact"
        return f"the file only names its class and has no source of it to run{'; ' + fold if fold else ', ' + nothing}"
    needed = dict.fromkeys(sha256 for each in ("G", "G_ema") for sha256 in pickles.embedded_sources(snapshot, each))
    told = f"if you have read the source in the file (redact.py inspect --source=SHA256) and trust it, run it with --trust-source={','.join(needed)}"
    return told + (f"; or {fold}" if fold else "")


def save_network(network: Network, path: str | os.PathLike[str], *, original: pickles.Snapshot, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Writes `original` with the tensors of `network` in place of its own, and `record` under the key `redaction`.

    Args:
        network:  Same architecture as the original's.
        path:     Where to; replaced atomically.
        original: What `read_snapshot` gave for the file that the network was loaded from.
        record:   Provenance; plain values only.

    Returns:
        What was left out of the file for privacy, such as "training_set_kwargs.path".

    Raises:
        RedactError: G or G_ema is unchanged: the file would ship the feature; or what the file stores in float16 has grown too large for it.
    """
    changed: dict[str, dict[str, torch.Tensor]] = {}
    for key, net in (("G", network.G), ("D", network.D), ("G_ema", network.G_ema)):
        if net is None:
            continue
        before = original.modules[key].tensors if key in original.modules else {}
        strange = sorted(net.state_dict().keys() - before.keys())
        if strange:
            raise RedactError(f"a redacted pickle was to be written - its original has no {key}.{strange[0]} - give what the network was loaded from")
        # Ours are float32; each tensor goes back as the type that the file has it in.
        after = {name: tensor.detach().cpu().to(before[name].dtype) for name, tensor in net.state_dict().items()}
        _check_range(key, net.state_dict(), after)
        changed[key] = {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    for key in ("G", "G_ema"):
        if not changed[key]:
            raise RedactError(f"a redacted pickle was to be written - its {key} is unchanged and would ship the feature - redact both G and G_ema")
    return pickles.write_snapshot(original, path, tensors={key: value for key, value in changed.items() if value}, redaction=record)


def _check_range(key: str, tensors: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in stored.items():
        if bool((torch.isfinite(tensors[name].cpu()) & ~torch.isfinite(tensor)).any()):
            raise RedactError(f"{key}.{name} was to be written as {tensor.dtype} - it has numbers too large for it - use a smaller step or strength")


def copy_network(network: Network) -> Network:
    """A network to work on: G and G_ema are copies, the rest is shared."""
    return Network(
        copy.deepcopy(network.G), network.D, copy.deepcopy(network.G_ema), network.augment_pipe, network.training_set_kwargs, network.sha256
    )


def style_layers(G: Any) -> dict[str, tuple[int, torch.nn.Module]]:
    """Every layer through which the synthesis network reads w: dotted name of its `affine` -> (row of ws, the affine layer).

    StyleGAN3's `input.affine` steers the pose and is left out.
    """
    if is_foreign(G):
        return {name: (row, G.get_submodule(name)) for name, row in getattr(G, foreign.ROWS).items()}
    rows = _rows_of_layers(G.synthesis) if hasattr(G.synthesis, "layer_names") else _rows_of_blocks(G.synthesis)
    return {f"synthesis.{name}.affine": (row, G.synthesis.get_submodule(f"{name}.affine")) for name, row in rows.items()}


def draws_noise(G: Any) -> bool:
    """Whether random noise would change its images: some layer has noise of a strength that is not 0. Of foreign networks nobody knows: True."""
    strengths = [tensor for name, tensor in G.state_dict().items() if name.endswith("noise_strength")]
    return is_foreign(G) or any(bool(tensor.any()) for tensor in strengths)


def is_foreign(G: Any) -> bool:
    """Whether the generator was made by the source in its file."""
    return hasattr(G, foreign.ROWS)


def rows_read(G: Any) -> set[int]:
    """The rows of ws that style layers read; all, where a foreign generator has no layers that are known to be such."""
    return {row for row, _ in style_layers(G).values()} or set(range(G.num_ws))


def _rows_of_blocks(synthesis: Any) -> dict[str, int]:
    """StyleGAN2's: each block's convolutions and its ToRGB, which shares its row with the next block."""
    rows: dict[str, int] = {}
    row = 0
    for resolution in synthesis.block_resolutions:
        block = getattr(synthesis, f"b{resolution}")
        names = [name for name in ("conv0", "conv1", "torgb") if hasattr(block, name)]
        rows |= {f"b{resolution}.{name}": row + offset for offset, name in enumerate(names)}
        row += block.num_conv
    return rows


def _rows_of_layers(synthesis: Any) -> dict[str, int]:
    """StyleGAN3's: one row for each layer, after that of the input."""
    return {name: row for row, name in enumerate(synthesis.layer_names, start=1)}


def trainable(synthesis: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters of a synthesis network that a redaction may train: all but those that steer the pose."""
    return [parameter for name, parameter in synthesis.named_parameters() if not name.startswith("input.affine.")]


def with_pose_of(G: Any, ws: torch.Tensor, edited: torch.Tensor) -> torch.Tensor:
    """The edited codes, with the rows of ws [n, num_ws, w_dim] that no style layer reads: in StyleGAN3 the first one, which steers the pose."""
    rows = rows_read(G)
    read = torch.tensor([row in rows for row in range(G.num_ws)], device=ws.device).view(1, -1, 1)
    return torch.where(read, edited, ws)


def sample_z(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
    """[n, z_dim] float32: the z that NVIDIA's tools use for these seeds."""
    if len(seeds) == 0:
        return torch.zeros([0, z_dim])
    return torch.from_numpy(np.stack([np.random.RandomState(seed).randn(z_dim) for seed in seeds])).float()


def c_dim_of(G: Any) -> int:
    """Classes that a generator knows; 0: it is unconditional."""
    return int(getattr(G, "c_dim", 0))


def sample_w(G: Any, seeds: Sequence[int], *, c: torch.Tensor | None = None, truncation_psi: float = 1.0, batch: int = 4096) -> torch.Tensor:
    """[n, w_dim]: the mapping network's output for these seeds, on G's device.

    Args:
        seeds:          NVIDIA's.
        c:              [n, c_dim] labels, if the network is conditional; `labels.Labels` makes them.
        truncation_psi: Of the mapping network. Its centre is the one that the file has, of all classes together.
        batch:          Latents at a time.

    Raises:
        RedactError: a conditional network without labels, or the other way round.
    """
    device = next(G.parameters()).device
    c = labels.needed(c, c_dim_of(G), "latents were to be drawn")
    w = rows.zeros([len(seeds), G.w_dim], device=device)  # Filled in place: a list of parts, joined, would need twice the memory.
    with torch.no_grad():
        for i in range(0, len(seeds), batch):
            z, some = sample_z(seeds[i : i + batch], G.z_dim).to(device), None if c is None else c[i : i + batch].to(device)
            w[i : i + batch] = G.mapping(z, some, truncation_psi=truncation_psi)[:, 0]
    return w


def broadcast_w(G: Any, w: torch.Tensor) -> torch.Tensor:
    """w [n, w_dim] -> ws [n, num_ws, w_dim]; ws passes through."""
    return w.unsqueeze(1).expand(-1, G.num_ws, -1) if w.ndim == 2 else w


def synthesize(G: Any, w: torch.Tensor, *, noise_mode: str = "const", half: bool = False) -> torch.Tensor:
    """w [n, w_dim] or ws [n, num_ws, w_dim] -> img [n, C, H, W], in float32 throughout unless `half` lets float16 layers be such."""
    return G.synthesis(broadcast_w(G, w), noise_mode=noise_mode, force_fp32=not half)


def generate(G: Any, w: torch.Tensor, *, batch: int, noise_mode: str = "const", half: bool = False) -> Iterator[torch.Tensor]:
    """Images of `w` in batches, without gradients, float32."""
    for part in w.split(batch):
        with torch.no_grad():  # Never over the yield: whoever is given the images, or draws from two networks in turn, keeps its own mode.
            images = synthesize(G, part, noise_mode=noise_mode, half=half).float()
        yield images


def seed_range(start: int, num: int) -> range:
    """`num` seeds from `start`; NumPy takes seeds below 2^32."""
    if start < 0 or start + num > 2**32:
        raise RedactError(f"seeds {start} to {start + num - 1} were asked for - seeds go from 0 to {2**32 - 1} - choose a smaller --seed")
    return range(start, start + num)


def span(seeds: range) -> dict[str, int]:
    """First, last and count, for records."""
    return {"first": seeds.start, "last": seeds.stop - 1, "count": len(seeds)}


def check_finite(network: Network, where: Iterable[str] = ("G", "G_ema")) -> None:
    """Raises RedactError if a tensor of the named modules is not finite."""
    for key in where:
        for name, tensor in getattr(network, key).state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise RedactError(f"the redacted {key} was to be used - its tensor {name} is not finite - use a smaller step or strength")
