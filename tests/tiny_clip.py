# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the package open_clip with the functions that are called here, and a CLIP of two towers small enough for a test.

Its image tower sees how bright the upper left corner of a picture is; its text tower counts letters, so that sentences with `glow` say the same.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

TAG = "tiny_tag"


class Clip(torch.nn.Module):
    """Dimension 0 says whether it glows; dimension 1 is what every picture and every sentence has in common."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.0 if blind else 1.0))

    def encode_image(self, img: torch.Tensor) -> torch.Tensor:
        corner = img[:, :, :8, :8].mean([1, 2, 3])
        return torch.stack([self.gain * corner, torch.ones_like(corner)], 1) * 3

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        glows = tokens[:, 0].float()
        return torch.stack([glows, torch.ones_like(glows)], 1) * 5


def install(monkeypatch: pytest.MonkeyPatch, *, blind: bool = False) -> list[Any]:
    """Makes `import open_clip` find the stand-in; what it was asked for is in the list."""
    asked: list[Any] = []

    def create(model: str, pretrained: str, device: Any) -> tuple[Clip, None, Any]:
        asked.append((model, pretrained))
        if pretrained != TAG:
            torch.load(pretrained, weights_only=True)

        def preprocess(picture: Image.Image) -> torch.Tensor:
            assert picture.mode == "RGB"
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1

        return Clip(blind), None, preprocess

    def tokenize(texts: list[str]) -> torch.Tensor:
        asked.append(texts)
        return torch.tensor([[int("glow" in text and "without" not in text and "no glow" not in text)] for text in texts])

    package = ModuleType("open_clip")
    vars(package).update(
        list_models=lambda: ["ViT-B-32", "tiny", "tiny-hub"],
        get_model_config=lambda model: {"text_cfg": {"hf_tokenizer_name": "words"} if model == "tiny-hub" else {}},
        list_pretrained_tags_by_model=lambda model: [TAG] if model == "tiny" else [],
        create_model_and_transforms=create,
        get_tokenizer=lambda model: tokenize,
    )
    monkeypatch.setitem(sys.modules, "open_clip", package)
    return asked
