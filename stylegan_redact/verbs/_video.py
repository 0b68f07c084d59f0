# SPDX-License-Identifier: Apache-2.0
"""A walk from seed to seed and back to the first, before and after side by side.

The walk is a smooth closed curve through the seeds' w, or through W+ codes of an .npz and then the seeds' w. Of a seed each network draws what it
makes of it; a code is fed to both as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import CubicSpline

from stylegan_redact import labels, network_files
from stylegan_redact.latents import numpy_reason
from stylegan_redact.meant import default_batch, device_of
from stylegan_redact.network import broadcast_w, generate, sample_w
from stylegan_redact.pictures import to_grid
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.precision import no_shortcuts
from stylegan_redact.run_dir import check_outdir
from stylegan_redact.types import Network, RedactError
from stylegan_redact.verbs import _film
from stylegan_redact.verbs._walk import MOST_PLACES, Walk


def film(
    before: str, after: str, out: Path, walk: Walk, *, device: str = "auto", batch_gpu: int | None = None, trust_source: Sequence[str] = ()
) -> Iterator[str]:
    """Writes the video; what to know of it comes as soon as it is known.

    Args:
        before, after: As `--network` takes them.
        out:           .mp4 or .webp; an .mp4 becomes a .webp where there is no encoder.
        walk:          Through what.
        device:        "auto", "cpu" or "cuda".
        batch_gpu:     Images at a time.
        trust_source:  sha256 of embedded sources that may be run.

    Raises:
        RedactError: networks of different shapes, nothing to walk through, files that cannot be read or written.
    """
    check_outdir(out.parent)
    if not out.parent.is_dir():
        raise RedactError(f"a video was to go to {out} - there is no such folder - make it, or give another --out")
    where = device_of(device)
    no_shortcuts(where)
    networks = [network_files.load(each, None, where, trust_source)[1] for each in (before, after)]
    check_alike(*networks)
    places = [places_of(network, walk, before) for network in networks]
    G = networks[0].G_ema
    count = len(places[0]) * walk.frames
    write, path, told = _film.writer_for(out, 2 * 3 * (G.img_resolution * walk.scale) ** 2, count)
    yield from told
    batch = batch_gpu or default_batch(where, G.img_resolution)
    write(frames_of(networks, [steps(each, walk.frames) for each in places], batch=batch, scale=walk.scale), path, walk.fps)
    yield f"Wrote {path}: {count} frames, {count / walk.fps:.1f} s, before on the left and after on the right"


def check_alike(before: Network, after: Network) -> None:
    """Raises RedactError where one network could not draw what the other one is fed, or not as large."""
    shapes = [
        {name: getattr(each.G_ema, name) for name in ("img_resolution", "img_channels", "num_ws", "w_dim", "z_dim")} for each in (before, after)
    ]
    for each, network in zip(shapes, (before, after), strict=True):
        each["c_dim"] = int(getattr(network.G_ema, "c_dim", 0))
    different = [f"{name} {shapes[0][name]} and {shapes[1][name]}" for name in shapes[0] if shapes[0][name] != shapes[1][name]]
    if different:
        raise RedactError(f"before and after were to be drawn side by side - they have {', '.join(different)} - give two of one shape")


def places_of(network: Network, walk: Walk, name: str) -> torch.Tensor:
    """ws [n, num_ws, w_dim] that this network's walk goes through: the codes, then its w of the seeds.

    Raises:
        RedactError: fewer than two places, or codes that do not fit.
    """
    G = network.G_ema
    by_class = labels.of_class(walk.classes, int(getattr(G, "c_dim", 0)), name)
    w = sample_w(G, walk.seeds, c=None if by_class is None else by_class(walk.seeds), truncation_psi=walk.trunc)
    parts = [broadcast_w(G, w).cpu()]
    if walk.codes is not None:
        parts.insert(0, codes_in(walk.codes, (G.num_ws, G.w_dim)))
    places = torch.cat(parts)
    if len(places) < 2:
        raise RedactError(
            f"a walk was asked - there are {len(walk.seeds)} seeds and {len(places) - len(walk.seeds)} codes - give two places at least"
        )
    return places


def codes_in(path: Path, shape: tuple[int, int]) -> torch.Tensor:
    """w [n, num_ws, w_dim] of an .npz.

    Raises:
        RedactError: no such file, no `w` in it, or of another shape.
    """
    asked = f"codes were expected in {path}"
    check_no_pipe(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            w = np.asarray(file["w"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise RedactError(f"{asked} - no w can be read ({numpy_reason(error)}) - give an .npz with w [n, num_ws, w_dim]") from None
    if w.ndim != 3 or w.shape[1:] != shape or not 1 <= len(w) <= MOST_PLACES or not np.isfinite(w).all():
        raise RedactError(
            f"{asked} - w has the shape {list(w.shape)} - this network takes finite [n, {shape[0]}, {shape[1]}], 1 to {MOST_PLACES} of them"
        )
    return torch.from_numpy(w)


def steps(places: torch.Tensor, frames: int) -> torch.Tensor:
    """[n * frames, ...] on a smooth closed curve through the places [n, ...]: every `frames`-th is a place, after the last comes the first."""
    closed = torch.cat([places, places[:1]]).double().numpy()
    curve = CubicSpline(np.arange(len(closed)), closed, axis=0, bc_type="periodic")
    return torch.from_numpy(curve(np.arange(len(places) * frames) / frames)).float()


def frames_of(networks: Sequence[Network], walks: Sequence[torch.Tensor], *, batch: int, scale: int) -> Iterator[NDArray[np.uint8]]:
    """[H, 2 W, 3] of each step, the first network's picture on the left."""
    device = next(networks[0].G_ema.parameters()).device
    drawn = [generate(network.G_ema, ws.to(device), batch=batch) for network, ws in zip(networks, walks, strict=True)]
    for pair in zip(*drawn, strict=True):
        for images in zip(*pair, strict=True):
            frame = to_grid(torch.stack(images), 2).convert("RGB")
            size = (frame.width * scale, frame.height * scale)
            yield np.asarray(frame if scale == 1 else frame.resize(size, Image.Resampling.BICUBIC))
