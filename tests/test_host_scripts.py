# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's own scripts, unchanged, on what the command made of networks of theirs: what they draw and what they go on training from is redacted.

Without a GPU "cuda" means the CPU there (`on_cpu/`). docs/hosts.md lists what was run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from any_feature import redacted
from host import ON_CPU, checkout, commit_of, digests, dropped_into, run_in, said_in, start_in
from PIL import Image

from stylegan_redact.network import broadcast_w, generate, load_network, sample_w, save_network, synthesize
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.types import Network, RedactError

pytestmark = pytest.mark.host

ADA, SG3 = "STYLEGAN2_ADA_ROOT", "STYLEGAN3_ROOT"
EDIT = ("--kimg=0.064", "--batch=8", "--lr=0.02")
SMALL = dict(channel_base=512, channel_max=8)
TRAIN3 = ("--batch=32", "--gpus=1", "--gamma=1", "--aug=noaug", "--workers=1", "--cbase=512", "--cmax=8")
SEEDS = range(3)
# A level of 255 where rounding falls on either side, in few of the values; in more of them where the script draws in float16, as networks made by
# stylegan3's code do on a GPU.
LEVELS = 1
FEW, FEW_IN_HALF = 0.01, 0.1
# H.264 at the script's own rate, on average over blocks.
VIDEO_LEVELS = 4


@dataclass(frozen=True)
class Kind:
    """A network that NVIDIA's code makes, and where it is redacted and used."""

    maker: str
    generator: str
    discriminator: str
    img_resolution: int = 32
    dims: int = 32
    method: tuple[str, ...] = ("--method=edit", *EDIT)
    """Without any, fold is called here: the command measures no pictures of 8 pixels, and larger ones of standard size take long to train."""
    synthesis: dict[str, Any] = field(default_factory=lambda: dict(SMALL))
    mapping: dict[str, Any] = field(default_factory=lambda: dict(num_layers=2))
    D: dict[str, Any] = field(default_factory=lambda: dict(SMALL))
    torgb: float = 0.4
    """New networks draw next to nothing, or far beyond white."""
    train: tuple[str, ...] = ()
    """Options of their train.py that make networks of the same shapes."""

    @property
    def nested(self) -> bool:
        """stylegan2-ada-pytorch takes the synthesis arguments in a dict."""
        return self.maker == ADA


STYLEGAN3 = "training.networks_stylegan3.Generator"
STYLEGAN2 = "training.networks_stylegan2.Generator"
DISCRIMINATOR = "training.networks_stylegan2.Discriminator"
TWICE = dict(channel_base=1024, channel_max=16)
STANDARD = dict(channel_base=16384, channel_max=512)
KINDS = {
    "stylegan2-ada": Kind(ADA, "training.networks.Generator", "training.networks.Discriminator"),
    "stylegan2-ada, standard size": Kind(
        ADA, "training.networks.Generator", "training.networks.Discriminator",
        img_resolution=8, dims=512, method=(), synthesis=STANDARD, D=STANDARD,
        train=("--gpus=1", "--batch=4", "--aug=noaug", "--workers=1", "--fp32=1", "--cfg=auto"),
    ),
    "stylegan2": Kind(SG3, STYLEGAN2, DISCRIMINATOR, dims=512, mapping=dict(num_layers=8), train=("--cfg=stylegan2", *TRAIN3)),
    "stylegan3-t": Kind(SG3, STYLEGAN3, DISCRIMINATOR, dims=512, torgb=20, train=("--cfg=stylegan3-t", *TRAIN3)),
    "stylegan3-r": Kind(
        SG3, STYLEGAN3, DISCRIMINATOR, dims=512, torgb=20, synthesis=TWICE | dict(conv_kernel=1, use_radial_filters=True),
        train=("--cfg=stylegan3-r", *TRAIN3),
    ),
}  # fmt: skip

MAKE = """
import copy, json, pickle, sys, dnnlib, torch
path, said = sys.argv[1], json.loads(sys.argv[2])
make = dnnlib.util.construct_class_by_name
torch.manual_seed(1)
common = dict(c_dim=0, img_resolution=said['img_resolution'], img_channels=3)
synthesis = dict(synthesis_kwargs=dnnlib.EasyDict(said['synthesis'])) if said['nested'] else said['synthesis']
G = make(class_name=said['generator'], z_dim=said['dims'], w_dim=said['dims'], mapping_kwargs=dnnlib.EasyDict(said['mapping']), **common, **synthesis)
D = make(class_name=said['discriminator'], **common, **said['D'])
G, D = G.eval().requires_grad_(False), D.eval().requires_grad_(False)
for name, tensor in list(G.named_parameters()) + list(G.named_buffers()):
    if tensor.ndim == 4 and tensor.shape[0] == 3:
        tensor.mul_(said['torgb'])
    if name.endswith('noise_strength'):
        tensor.fill_(0.1)
with open(path, 'wb') as f:
    pickle.dump(dict(G=copy.deepcopy(G), D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None), f)
"""


class Job:
    """A network by NVIDIA's code, redacted by the command inside a copy of the checkout that made it; made when first asked for."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.kind, self.folder = name, KINDS[name], folder
        self.original, self.redacted = folder / "original.pkl", folder / "redacted.pkl"
        kind = self.kind
        said = {
            key: getattr(kind, key)
            for key in ("generator", "discriminator", "img_resolution", "dims", "synthesis", "mapping", "D", "torgb", "nested")
        }
        run_in(checkout(kind.maker), folder, MAKE, str(self.original), json.dumps(said))
        self.root = dropped_into(checkout(kind.maker), folder / "checkout")
        if kind.method:
            self.redact()
        else:
            save_network(redacted(self.before, "fold"), self.redacted, original=read_snapshot(self.original), record={"feature": "glow"})

    def redact(self) -> None:
        """By the command, in the checkout."""
        kind, folder = self.kind, self.folder
        G = self.before.G_ema
        some = torch.cat(list(generate(G, sample_w(G, range(1000, 1100)), batch=16)))
        for role, size in (("detector", kind.img_resolution // 2), ("judge", kind.img_resolution // 2 + 1)):
            bright = float(some[:, :, :size, :size].mean([1, 2, 3]).quantile(1 - tiny_run.SHARE))
            tiny_run.save_torchscript(tiny_run.BrightRegion(size, bright), folder / f"{role}.pt")
        names = [f"--network={self.original}", f"--classifier={folder / 'detector.pt'}", f"--judge={folder / 'judge.pt'}", "--feature=glow"]
        said_in(self.root, "redact.py", *names, *kind.method, "--num-latents=250", "--num-images=30", log=folder / "redact.txt")
        (result,) = (self.root / "redact-runs").glob("*/network-redacted.pkl")
        os.replace(result, self.redacted)

    @cached_property
    def before(self) -> Network:
        """As NVIDIA's code made it."""
        return load_network(self.original)

    @cached_property
    def after(self) -> Network:
        """Redacted."""
        return load_network(self.redacted)

    def place(self, variable: str) -> Path:
        """An unmodified copy of a checkout to run scripts in: ours where the network was redacted, another where it was not."""
        if variable == self.kind.maker:
            return self.root
        other = self.folder / "other"
        return other if other.exists() else dropped_into(checkout(variable), other)

    def run(self, variable: str, script: str, *args: str, rc: int = 0, **environ: str) -> str:
        """What the script says; `{network}` is the redacted pickle."""
        args = tuple(arg.format(network=self.redacted, folder=self.folder) for arg in args)
        return said_in(self.place(variable), script, *args, log=self.folder / f"{script}.txt", rc=rc, PYTHONPATH=str(ON_CPU), **environ)

    def compare(self, what: str, drawn: np.ndarray, codes: torch.Tensor, levels: int = LEVELS) -> None:
        """Pictures [n, H, W, C] against ours of the same codes: at most a level or so apart from the redacted ones, and far from the original's."""
        ours, original = (to_uint8(synthesize(net.G_ema, codes)) for net in (self.after, self.before))
        apart, changed = np.abs(drawn.astype(int) - ours), np.abs(drawn.astype(int) - original)
        print(f"{self.name}, {what}: at most {apart.max()} of 255 apart from ours, up to {changed.max()} from the original's")
        half = torch.cuda.is_available() and not self.kind.nested
        assert apart.max() <= levels and (apart > levels / 2).mean() < (FEW_IN_HALF if half else FEW)
        assert changed.max() > 10


@pytest.fixture(scope="module", autouse=True)
def versions() -> None:
    """Printed for the table in docs/hosts.md."""
    roots = {name: commit_of(Path(os.environ[name])) for name in (ADA, SG3) if name in os.environ}
    device = "the CPU" if not torch.cuda.is_available() else torch.cuda.get_device_name()
    print(f"\npython {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, on {device}; commits {roots}")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """By name of the kind, for `job`."""
    return {}


@pytest.fixture
def job(request: pytest.FixtureRequest, jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Job:
    name = request.param
    checkout(KINDS[name].maker)
    if name not in jobs:
        jobs[name] = Job(name, tmp_path_factory.mktemp(name.replace(", ", "-").replace(" ", "-")))
    return jobs[name]


def kinds(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("job", names, indirect=True)


def to_uint8(img: torch.Tensor) -> np.ndarray:
    """[n, H, W, C] as integers that can be subtracted. Source: README of NVIDIA's: img * 127.5 + 128, clamped, cut down."""
    return (img * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy().astype(int)


def pictures(folder: Path, names: list[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names])


@kinds("stylegan2-ada", "stylegan2", "stylegan3-t", "stylegan3-r")
def test_gen_images_of_stylegan3(job: Job) -> None:
    job.run(SG3, "gen_images.py", "--network={network}", "--seeds=0-2", "--trunc=0.7", "--outdir={folder}/gen_images")
    drawn = pictures(job.folder / "gen_images", [f"seed{seed:04d}" for seed in SEEDS])
    job.compare("stylegan3's gen_images.py", drawn, sample_w(job.after.G_ema, SEEDS, truncation_psi=0.7))


@kinds("stylegan2-ada", "stylegan2", "stylegan2-ada, standard size")
def test_generate_of_stylegan2_ada(job: Job) -> None:
    job.run(ADA, "generate.py", "--network={network}", "--seeds=0-2", "--outdir={folder}/generate")
    drawn = pictures(job.folder / "generate", [f"seed{seed:04d}" for seed in SEEDS])
    job.compare("stylegan2-ada-pytorch's generate.py", drawn, sample_w(job.after.G_ema, SEEDS))


@kinds("stylegan2-ada", "stylegan2")
def test_style_mixing_of_stylegan2_ada(job: Job) -> None:
    args = ("--network={network}", "--rows=0,1", "--cols=2", "--styles=0-3", "--outdir={folder}/style_mixing")
    job.run(ADA, "style_mixing.py", *args)
    ws = broadcast_w(job.after.G_ema, sample_w(job.after.G_ema, SEEDS))
    mixed = torch.cat([ws[2:, :4].expand(2, -1, -1), ws[:2, 4:]], dim=1)  # The column's styles go into rows 0-3 of the code.
    job.compare("stylegan2-ada-pytorch's style_mixing.py", pictures(job.folder / "style_mixing", ["0-2", "1-2"]), mixed)


class Feature(torch.nn.Module):
    """Stands in for the VGG16 that the projector would download: any features of pictures do to make it run."""

    def forward(self, img: torch.Tensor, resize_images: bool = False, return_lpips: bool = False) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(img / 255, 4).flatten(1)


@kinds("stylegan2-ada")
def test_projector_of_stylegan2_ada(job: Job) -> None:
    """With a stand-in for the features, which it would download."""
    url = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt"
    cache = job.folder / "cache" / "downloads"
    cache.mkdir(parents=True)
    tiny_run.save_torchscript(Feature(), cache / f"{hashlib.md5(url.encode()).hexdigest()}_vgg16.pt")
    target = job.folder / "target.png"
    after, before = (synthesize(net.G_ema, sample_w(net.G_ema, range(16))) for net in (job.after, job.before))
    most = int((after - before).abs().mean([1, 2, 3]).argmax())  # A picture that had the feature.
    Image.fromarray(to_uint8(before)[most].astype(np.uint8)).save(target)
    args = (f"--target={target}", "--network={network}", "--num-steps=10", "--save-video=0", "--outdir={folder}/projector")
    job.run(ADA, "projector.py", *args, DNNLIB_CACHE_DIR=str(job.folder / "cache"))
    with np.load(job.folder / "projector" / "projected_w.npz") as file:
        code = torch.from_numpy(file["w"]).reshape(1, -1, job.kind.dims)
    assert pictures(job.folder / "projector", ["proj"]).std() > 10  # With noise that it has optimised, too: no picture of ours.
    job.run(ADA, "generate.py", "--network={network}", "--projected-w={folder}/projector/projected_w.npz", "--outdir={folder}/projected")
    job.compare("stylegan2-ada-pytorch's generate.py --projected-w", pictures(job.folder / "projected", ["proj00"]), code)


@kinds("stylegan2", "stylegan3-t", "stylegan3-r")
def test_gen_video_of_stylegan3(job: Job) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="gen_video.py needs imageio and imageio-ffmpeg: pip install -e '.[host]'")
    job.run(SG3, "gen_video.py", "--network={network}", "--seeds=0-1", "--w-frames=2", "--output={folder}/lerp.mp4")
    command = [ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(job.folder / "lerp.mp4"), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    side = job.kind.img_resolution
    frames = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8).reshape(-1, side, side, 3).astype(int)
    ours, original = (to_uint8(synthesize(net.G_ema, sample_w(net.G_ema, [0])))[0] for net in (job.after, job.before))
    apart, changed = (np.abs(blocks(frames[0] - picture)).mean() for picture in (ours, original))
    print(f"{job.name}, stylegan3's gen_video.py: frame 0 is {apart:.1f} of 255 from ours on average, {changed:.1f} from the original's (H.264)")
    assert len(frames) == 4 and apart < VIDEO_LEVELS and apart < changed / 2


def blocks(img: np.ndarray) -> np.ndarray:
    """[H, W, C] averaged over 4 x 4 pixels, for which H.264 is about right in the colours of pictures as noisy as these."""
    return img.reshape(img.shape[0] // 4, 4, img.shape[1] // 4, 4, -1).mean((1, 3))


@kinds(*(name for name, kind in KINDS.items() if kind.train))
def test_resumed_training_starts_from_the_redaction(job: Job) -> None:
    """train.py copies by name into networks of its own; with Adam's step at 0 its first snapshot shows what it started from."""
    data = write_dataset(job.folder / "data.zip", job.kind.img_resolution)
    args = (
        *job.kind.train,
        f"--data={data}",
        f"--outdir={job.folder / 'training'}",
        f"--resume={job.redacted}",
        "--kimg=1",
        "--snap=1",
        "--metrics=none",
    )
    args += ("--tick=1",) if job.kind.maker == SG3 else ()
    log = job.folder / "train.txt"
    process = start_in(job.place(job.kind.maker), "train.py", *args, log=log, PYTHONPATH=str(ON_CPU), ON_CPU_LEARNING_RATE="0")
    try:
        resumed = first_snapshot(process, job.folder / "training", log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # Its own session: the loaders of its data set, too.
        process.wait()
    told = log.read_text()
    assert f'Resuming from "{job.redacted}"' in told
    for key in ("G", "G_ema"):
        ours, theirs, before = (net.modules[key] for net in (read_snapshot(job.redacted), resumed, read_snapshot(job.original)))
        changed = [name for name in ours.parameter_names if not torch.equal(ours.tensors[name], before.tensors[name])]
        assert changed
        for name in ours.parameter_names:
            torch.testing.assert_close(theirs.tensors[name], ours.tensors[name], rtol=1e-6, atol=1e-7)
    after = load_network(resumed)
    w = sample_w(job.after.G_ema, SEEDS)
    what = f"train.py --resume after one batch, {len(changed)} redacted tensors"
    job.compare(what, to_uint8(synthesize(after.G_ema, w)), w, levels=2)  # StyleGAN3's running magnitudes have moved by a batch.


def first_snapshot(process: subprocess.Popen[str], folder: Path, log: Path) -> Any:
    """What a training writes after its first batch, which takes no more than it has to."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        for path in folder.glob("*/network-snapshot-000000.pkl"):
            try:
                return read_snapshot(path)
            except RedactError:
                break  # It is being written.
        assert process.poll() is None, log.read_text()[-4000:]
        time.sleep(0.5)
    raise AssertionError(f"no snapshot within a quarter of an hour:\n{log.read_text()[-4000:]}")


def write_dataset(path: Path, resolution: int) -> Path:
    """Sixteen of our drawings, as their dataset_tool.py would lay them out."""
    drawings = draw_portraits(0, 16)[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for number, drawing in enumerate(drawings):
            png = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(drawing)).resize((resolution, resolution), Image.Resampling.BOX).save(png, format="png")
            file.writestr(f"00000/img{number:08d}.png", png.getvalue())
    return path


@kinds("stylegan2-ada", "stylegan3-t")
def test_calc_metrics_gets_as_far_as_its_download(job: Job) -> None:
    """The network and the data are read and measured next; the Inception network would be downloaded, which a proxy that is not there prevents."""
    data = write_dataset(job.folder / "metrics.zip", job.kind.img_resolution)
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    nowhere |= {"no_proxy": "", "NO_PROXY": "", "DNNLIB_CACHE_DIR": str(job.folder / "no-cache")}
    said = job.run(job.kind.maker, "calc_metrics.py", "--network={network}", f"--data={data}", "--metrics=fid50k_full", "--mirror=0", rc=1, **nowhere)
    assert "Calculating fid50k_full" in said and "ProxyError" in said and "inception" in said
    print(f"{job.name}, calc_metrics.py: reads network and data, stops at the download")


@pytest.fixture(scope="module", autouse=True)
def checkouts_stay(jobs: dict[str, Job]) -> Iterator[None]:
    """No script and no redaction changes a file of the checkout."""
    yield
    for job in jobs.values():
        now = digests(job.root)
        changed = [name for name, digest in digests(checkout(job.kind.maker)).items() if not name.startswith(".git/") and now.get(name) != digest]
        assert not changed, f"{job.name}: {changed}"
