# SPDX-License-Identifier: Apache-2.0
"""`redact.py video --before=A.pkl --after=B.pkl --out=walk.mp4`: a walk from seed to seed and back to the first, before and after side by side.

The walk is a smooth closed curve through the seeds' w, or through W+ codes of an .npz and then the seeds' w. Of a seed each network draws what it
makes of it; a code is fed to both as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import CubicSpline

from stylegan_redact import labels, network_files
from stylegan_redact.cli import CommaList, context, echo, failure, offline_option
from stylegan_redact.meant import default_batch, device_of
from stylegan_redact.network import broadcast_w, generate, sample_w
from stylegan_redact.pictures import to_grid
from stylegan_redact.precision import no_shortcuts
from stylegan_redact.run_dir import check_outdir
from stylegan_redact.types import Network, RedactError
from stylegan_redact.verbs import _film

MOST_PLACES = 1000


@dataclass(frozen=True)
class Walk:
    """What is walked through, and how."""

    seeds: tuple[int, ...] = tuple(range(8))
    codes: Path | None = None
    """An .npz with `w` [n, num_ws, w_dim], as NVIDIA's projector writes it: these come first."""
    classes: str | None = None
    """As --class says."""
    trunc: float = 1.0
    """Truncation psi of the seeds."""
    frames: int = 30
    """From one place to the next."""
    fps: int = 30
    scale: int = 1
    """How many times as large as the network draws."""


def command() -> click.Command:
    """The verb."""
    default = Walk()
    params: list[click.Parameter] = [
        click.Option(["--before"], required=True, metavar="NAME|PATH|URL", help="Network pickle as it was; on the left"),
        click.Option(["--after"], required=True, metavar="NAME|PATH|URL", help="The redacted one; on the right"),
        click.Option(["--out"], required=True, metavar="FILE", type=click.Path(path_type=Path), help="Of the video, .mp4 or .webp"),
        click.Option(
            ["--seeds"], default="0-7", metavar="N,N-N,...", help="To walk through, in this order and back to the first; none: only --codes"
        ),
        click.Option(["--codes"], metavar="FILE.npz", type=click.Path(path_type=Path), help="Walk through these first: w [n, num_ws, w_dim]"),
        click.Option(["--frames"], type=click.IntRange(1, 10_000), default=default.frames, help="From one place to the next"),
        click.Option(["--fps"], type=click.IntRange(1, 120), default=default.fps, help="Frames a second"),
        click.Option(["--scale"], type=click.IntRange(1, 16), default=default.scale, help="How many times as large as the network draws"),
        click.Option(["--trunc"], type=click.FloatRange(0, 2), default=default.trunc, help="Truncation psi of the seeds"),
        click.Option(["--class", "classes"], metavar="N|all", help="Class of a conditional network, or all: of each seed's own"),
        click.Option(["--batch-gpu"], type=click.IntRange(1), show_default="by resolution", help="Images at a time; less memory if smaller"),
        click.Option(["--device"], type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute"),
        click.Option(["--trust-source"], type=CommaList(), default=(), show_default=False, metavar="SHA256,...", help="As in the main command"),
        offline_option(),
    ]
    doc = "Make a video of a walk through seeds or codes, before and after side by side: .mp4 where there is an encoder, else an animated WebP."
    return click.Command("video", callback=_video, params=params, help=doc, context_settings=context())


def _video(before: str, after: str, out: Path, seeds: str, **values: Any) -> None:
    try:
        machine = {name: values.pop(name) for name in ("device", "batch_gpu", "trust_source")}
        for line in film(before, after, out, Walk(seeds_of(seeds), **values), **machine):
            echo(line)
    except RedactError as error:
        raise failure(error) from None


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


def seeds_of(text: str) -> tuple[int, ...]:
    """What `0-3,12` means, in its order.

    Raises:
        RedactError: no such list, or too long a one.
    """
    found: list[int] = []
    for part in [] if text.strip().lower() == "none" else text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if first > last or last >= 2**32 or last - first >= MOST_PLACES:
            raise RedactError(
                f"--seeds={text} was asked - {part.strip()!r} is no seed and no range of at most {MOST_PLACES} - give for example 0-7,12"
            )
        found += range(first, last + 1)
    if len(found) > MOST_PLACES:
        raise RedactError(f"--seeds={text} was asked - these are {len(found)} - give {MOST_PLACES} at most")
    return tuple(found)


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
    try:
        with np.load(path, allow_pickle=False) as file:
            w = np.asarray(file["w"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise RedactError(f"{asked} - no w can be read ({str(error)[:120]}) - give an .npz with w [n, num_ws, w_dim]") from None
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
