# SPDX-License-Identifier: Apache-2.0
"""Feature extractors: the discriminator one image at a time, TorchScript by both conventions, torch-fidelity, and what users may name."""

import sys
import types
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_conditional
import torch
from tiny_run import save_torchscript

from stylegan_redact import downloads
from stylegan_redact.extractors import INCEPTION, DiscriminatorFeatures, FeatureExtractor, Inception, TorchFidelity, TorchScript, load_extractor
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.types import Network, RedactError

SHAPE = (3, 16, 16)


def discriminator(**kwargs: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Discriminator(**{"c_dim": 0, "img_resolution": 16, "img_channels": 3, "channel_base": 128, "channel_max": 8} | kwargs).eval()


def images(n: int, channels: int = 3) -> torch.Tensor:
    return torch.rand([n, channels, 16, 16], generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2


def before_the_last_layer(D: Any, img: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
    """What the network itself hands to its last linear layer."""
    caught: list[torch.Tensor] = []
    hook = D.b4.out.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0]))
    with torch.no_grad():
        D(img, c)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"architecture": "skip"}, {"architecture": "orig"}, {"epilogue_kwargs": {"mbstd_num_channels": 0}}, {"img_channels": 1}, {"c_dim": 3}],
    ids=str,
)
def test_features_are_what_the_discriminator_sees_of_an_image_alone(kwargs: dict[str, Any]) -> None:
    D, img = discriminator(**kwargs), images(5, kwargs.get("img_channels", 3))
    found = DiscriminatorFeatures(D).features(img)
    assert found.shape == (5, 8) and found.dtype == torch.float32 and not found.requires_grad
    for label in range(kwargs.get("c_dim", 1)):  # none of them matters
        c = torch.eye(3)[[label]] if "c_dim" in kwargs else None
        alone = torch.cat([before_the_last_layer(D, one, c) for one in img.split(1)])
        assert torch.allclose(found, alone, atol=1e-6) and float(alone.std(0).min()) > 1e-3


def test_features_do_not_depend_on_the_neighbours() -> None:
    """The counter-check: the discriminator's own features of a batch do."""
    D, img = discriminator(), images(8)
    extractor = DiscriminatorFeatures(D)
    together = extractor.features(img)
    order = torch.tensor([3, 0, 7, 5, 1])
    assert torch.allclose(extractor.features(img[order]), together[order], atol=1e-6)
    assert float((before_the_last_layer(D, img, None) - together).abs().max()) > 1e-2


def test_float64_images_give_float32_features() -> None:
    extractor = DiscriminatorFeatures(discriminator())
    assert torch.equal(extractor.features(images(2).double()), extractor.features(images(2)))


@pytest.mark.parametrize(("D", "told"), [(None, "the file has none"), (torch.nn.Identity(), "Identity that is not known")])
def test_a_discriminator_that_is_not_known_is_refused(D: Any, told: str) -> None:
    with pytest.raises(RedactError, match=f"{told}.*another extractor"):
        DiscriminatorFeatures(D)


class NvidiaLike(torch.nn.Module):
    """Their convention: uint8 in, one of several outputs by an argument. The first numbers are the pixels as they came."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.dtype == torch.uint8 and img.shape[1] == 3
        flat = img.flatten(1).double()
        return flat.repeat([1, self.width // flat.shape[1] + 1])[:, : self.width] if return_features else flat[:, :10]


class Plain(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([2, 3])


class Misshapen(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img


class NotFinite(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([2, 3]) / 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"inception": NvidiaLike(2048), "vgg16": NvidiaLike(4096), "plain": Plain(), "D": Plain(), "map": Misshapen(), "nan": NotFinite()}
    for name, module in files.items():
        save_torchscript(module, tmp_path / f"{name}.pt")
    (tmp_path / "text.pt").write_text("not TorchScript")
    (tmp_path / "inception.pkl").write_bytes(b"\x80\x04N.")
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_is_shown_what_nvidias_tools_would_write(folder: Path, channels: int) -> None:
    img = torch.cat([images(2, channels), torch.full([1, channels, 16, 16], 1.0)])
    extractor = Inception(folder / "inception.pt", (channels, 16, 16))
    assert isinstance(extractor, FeatureExtractor)
    found = extractor.features(img)
    levels = np.floor(np.clip(img.numpy() * np.float32(127.5) + np.float32(128), 0, 255))
    flat = np.tile(levels, [1, 3 // channels, 1, 1]).reshape(3, -1)
    assert found.shape == (3, 2048) and found.dtype == torch.float32 and extractor.name == INCEPTION
    np.testing.assert_array_equal(found[:, :768].numpy(), flat)
    assert set(found[2].tolist()) == {255.0} and 0.0 in found and 255.0 in found[:2]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("absent.pt", "no such file"),
        ("text.pt", "another kind"),
        ("inception.pkl", r"would have to be run.*inception-2015-12-05\.pt"),
        ("plain.pt", "has no argument return_features"),
        ("vgg16.pt", "gives 4096 numbers"),
    ],
)
def test_what_is_no_inception_is_refused(folder: Path, file: str, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        Inception(folder / file, SHAPE)


def test_other_torchscript_sees_the_images_as_they_are(folder: Path) -> None:
    extractor = TorchScript(folder / "plain.pt", SHAPE)
    assert torch.equal(extractor.features(images(4)), images(4).mean([2, 3])) and extractor.name == "plain"


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("map.pt", r"two images of shape \[n, 3, 16, 16\] gave shape \[2, 3, 16, 16\]"),
        ("nan.pt", "finite numbers"),
        ("D.pt", "pass for the discriminator's - rename"),
    ],
)
def test_what_gives_no_features_is_refused(folder: Path, file: str, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        TorchScript(folder / file, SHAPE)


def test_what_a_user_may_name(folder: Path) -> None:
    network = tiny.network()
    names = {text: load_extractor(text, network).name for text in ("D", *(str(folder / f"{name}.pt") for name in ("inception", "vgg16", "plain")))}
    assert list(names.values()) == ["D", INCEPTION, "vgg16", "plain"]
    own = load_extractor("D", network)
    assert torch.equal(own.features(images(2)), DiscriminatorFeatures(network.D).features(images(2)))
    assert load_extractor("D", tiny_conditional.network()).features(images(2)).shape == (2, 8)
    with pytest.raises(RedactError, match="none that is known here"):
        load_extractor("D", Network(network.G, None, network.G_ema))


def test_a_file_that_does_not_take_the_networks_images_is_refused(tmp_path: Path) -> None:
    save_torchscript(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)), tmp_path / "small.pt")
    with pytest.raises(RedactError, match=r"does not take images of shape \[n, 3, 16, 16\]"):
        load_extractor(str(tmp_path / "small.pt"), tiny.network())


def test_urls_are_downloaded_into_the_cache_and_named_by_their_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(url: str, what: str) -> Path:
        asked.append((url, what))
        return folder / "plain.pt"  # the cache's name for it

    monkeypatch.setattr("stylegan_redact.extractors.download", download)
    assert load_extractor("https://example.org/nets/some%20net.pt?download=1", tiny.network()).name == "some_net"
    assert asked == [("https://example.org/nets/some%20net.pt?download=1", "extractor")]
    monkeypatch.undo()
    with pytest.raises(RedactError, match="check its spelling"):
        load_extractor("htps://example.org/net.pt", tiny.network())


def test_a_pickle_behind_a_url_is_refused_like_one_in_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylegan_redact.extractors.download", lambda *_: folder / "inception.pkl")
    with pytest.raises(RedactError, match="would have to be run"):
        load_extractor("https://example.org/inception-v3.pkl", tiny.network())


class Theirs(torch.nn.Module):
    """What torch-fidelity asks of its extractors: uint8 images in, a tuple of the layers asked for out."""

    def __init__(self, name: str, layers: list[str]) -> None:
        super().__init__()
        if name == "far-away":
            raise urllib.error.URLError("no route")
        self.layers = layers
        self.weight = torch.nn.Parameter(torch.ones([]))

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return f"layer of {metric}"

    def forward(self, img: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert img.dtype == torch.uint8 and img.shape[1] == 3 and self.layers == ["layer of fid"] and not self.training
        return (img.double().mean([2, 3]) * self.weight,)


@pytest.fixture
def torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = types.ModuleType("torch_fidelity.registry")
    registry.FEATURE_EXTRACTORS_REGISTRY = {"inception-v3-compat": Theirs, "far-away": Theirs}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.registry", registry)


@pytest.mark.usefixtures("torch_fidelity")
def test_extractors_of_torch_fidelity_by_name() -> None:
    extractor = load_extractor("torch-fidelity:inception-v3-compat", tiny.network())
    found = extractor.features(torch.zeros(2, 1, 16, 16))
    assert torch.equal(found, torch.full([2, 3], 128.0)) and found.dtype == torch.float32 and not found.requires_grad
    assert extractor.name == "inception-v3-compat"  # not a FID by name
    with pytest.raises(RedactError, match="has far-away, inception-v3-compat"):
        TorchFidelity("inception")
    with pytest.raises(RedactError, match="weights cannot be had .*no route"):
        TorchFidelity("far-away")
    with downloads.offline(), pytest.raises(RedactError, match="with --offline - it would have to be downloaded"):
        TorchFidelity("inception-v3-compat")


def test_without_torch_fidelity_the_user_is_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.registry", raising=False)
    with pytest.raises(RedactError, match=r"torch_fidelity is not installed - pip install 'stylegan-redact\[metrics\]'"):
        load_extractor("torch-fidelity:vgg16", tiny.network())


def test_the_real_torch_fidelity() -> None:
    pytest.importorskip("torch_fidelity")
    try:
        extractor = TorchFidelity("inception-v3-compat")
    except RedactError as error:
        pytest.skip(str(error))
    found = extractor.features(images(2))
    assert found.shape == (2, 2048) and float((found[0] - found[1]).abs().max()) > 0
