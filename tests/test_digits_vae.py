# SPDX-License-Identifier: Apache-2.0
"""docs/examples/digits_vae.py: that its decoder fits --decoder, and that loops are counted as one would by eye. It is run as a whole by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stylegan_redact import decoders

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "digits_vae.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_vae", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_loop_is_ground_that_ink_encloses(example: ModuleType) -> None:
    img = torch.full([5, 1, 16, 16], -1.0)
    img[0, 0, 3:12, 3:12] = 1
    img[0, 0, 6:9, 6:9] = -1  # A ring.
    img[1] = img[0]
    img[1, 0, 7, 3:7] = -1  # The ring, cut open.
    img[2, 0, :, 0:16:15] = img[2, 0, 0:16:15, :] = 1  # A frame along the border encloses ground too.
    img[3, 0, 3:12, 3:12] = 1
    img[3, 0, 6, 6] = -1  # One pixel is a speck.
    assert example.has_loop(img).tolist() == [True, False, True, False, False]  # The last is blank.


def test_the_vae_holds_the_decoder_that_the_command_asks_for(example: ModuleType) -> None:
    vae = example.Vae()
    made = decoders.from_factory(f"{EXAMPLE}:decoder")
    assert decoders.place_of(made, vae.state_dict()) == "decoder."
    network, told = decoders.as_network(made, vae.decoder.state_dict())
    assert (network.G_ema.z_dim, network.G_ema.img_channels, network.G_ema.img_resolution) == (8, 1, 16) and "z has 8 numbers" in told
    img = torch.rand([4, 1, 16, 16], generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert bool(vae.loss(img, torch.Generator().manual_seed(0)).isfinite())
    assert example.Steering()(img).shape == example.Judge()(img).shape == (4,)


def test_percent_has_its_interval(example: ModuleType) -> None:
    assert example.percent(torch.tensor([True] * 3 + [False] * 7)) == "30.00 % (6.67 to 65.25)"
