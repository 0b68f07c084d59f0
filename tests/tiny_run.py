# SPDX-License-Identifier: Apache-2.0
"""A small StyleGAN2 in a pickle, and TorchScript classifiers that call a bright corner a feature: all that the command needs."""

import hashlib
import warnings
from pathlib import Path

import torch

from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator

RESOLUTION = 16
SHARE = 0.25
"""Of the images that show the feature."""


class BrightRegion(torch.nn.Module):
    """One logit: how far the mean of a square of the image is above a threshold."""

    def __init__(self, size: int, threshold: float) -> None:
        super().__init__()
        self.size, self.threshold = size, threshold

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return 20 * (img[:, :, : self.size, : self.size].mean([1, 2, 3]) - self.threshold)


def generator(seed: int = 0, c_dim: int = 0) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = Generator(
            z_dim=8,
            c_dim=c_dim,
            w_dim=8,
            img_resolution=RESOLUTION,
            img_channels=3,
            channel_base=128,
            channel_max=8,
            mapping_kwargs={"num_layers": 2},
        )
        for name, parameter in G.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.05)
    return G.eval().requires_grad_(False)


def write_network(path: Path, seed: int = 0, c_dim: int = 0) -> Generator:
    """The network written to `path`; G and G_ema differ, as after training."""
    G_ema = generator(seed, c_dim)
    G = generator(seed, c_dim)
    G.synthesis.b4.const += 0.01
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        D = Discriminator(c_dim=c_dim, img_resolution=RESOLUTION, img_channels=3, channel_base=128, channel_max=8)
    write_network_pickle(path, G=G, D=D, G_ema=G_ema)
    return G_ema


def write_classifier(path: Path, G_ema: Generator, size: int, share: float = SHARE) -> None:
    """TorchScript whose logit is above 0 for `share` of the network's images."""
    with torch.no_grad():
        img = synthesize(G_ema, sample_w(G_ema, range(1000, 1400)))
    bright = img[:, :, :size, :size].mean([1, 2, 3])
    save_torchscript(BrightRegion(size, float(bright.quantile(1 - share))), path)


def save_torchscript(module: torch.nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 deprecates TorchScript, which is what users have.
        torch.jit.save(torch.jit.script(module), str(path))


def write_all(folder: Path) -> list[str]:
    """A network and two classifiers, and the options that name them."""
    G_ema = write_network(folder / "tiny.pkl")
    write_classifier(folder / "detector.pt", G_ema, 8)
    write_classifier(folder / "judge.pt", G_ema, 9)
    return [f"--network={folder / 'tiny.pkl'}", "--feature=glow", f"--classifier={folder / 'detector.pt'}", f"--judge={folder / 'judge.pt'}"]


def load_torchscript(path: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
