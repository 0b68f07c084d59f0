# SPDX-License-Identifier: Apache-2.0
"""CLIP by the package open_clip, which is an extra: pictures and sentences -> vectors whose cosine says how well they go together."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image

from stylegan_redact.downloads import refuse_offline
from stylegan_redact.extractors import to_uint8
from stylegan_redact.types import RedactError

INSTALL = "pip install 'stylegan-redact[text]'"


class Clip:
    """A CLIP with its own preprocessing and its own words.

    Source: Radford et al. 2021, arXiv 2103.00020; loaded by open_clip.create_model_and_transforms and get_tokenizer, as its README documents them.
    """

    def __init__(self, model: str, weights: str, device: torch.device | str = "cpu") -> None:
        """Loads it.

        Args:
            model:   As open_clip names its architectures, such as ViT-B-32.
            weights: A file that is there, or one of open_clip's tags for this model, which it downloads once.
            device:  Where it goes.

        Raises:
            RedactError: the package is not installed or does not load, no such model or weights, or they would have to be downloaded and must not.
        """
        asked = f"the CLIP {model} with the weights {weights} was asked"
        package = _package(asked)
        _check(package, asked, model, weights)
        try:
            net, _, self._preprocess = package.create_model_and_transforms(model, pretrained=weights, device=device)
            self._tokens = package.get_tokenizer(model)
        except Exception as error:  # noqa: BLE001 - torch, the hub and the package raise whatever they stumble over
            reason = ascii(str(error).strip().partition("\n")[0])[1:-1][:200]
            raise RedactError(f"{asked} - it cannot be had ({reason}) - check the connection, or whether the file is of this model") from error
        self._net: Any = net.eval().requires_grad_(False)
        self._device = device

    def of_images(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] in [-1, 1] -> [n, d] float32 of length 1, after the package's own preprocessing of pictures."""
        pixels = to_uint8(img).permute(0, 2, 3, 1).cpu().numpy()
        ready = torch.stack([self._preprocess(Image.fromarray(one)) for one in pixels]).to(self._device)
        with torch.no_grad():
            found: torch.Tensor = self._net.encode_image(ready)
        return torch.nn.functional.normalize(found.float(), dim=1)

    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """[k, d] float32 of length 1."""
        with torch.no_grad():
            found: torch.Tensor = self._net.encode_text(self._tokens(list(texts)).to(self._device))
        return torch.nn.functional.normalize(found.float(), dim=1)


def installed() -> bool:
    """Whether the package is there; nothing is imported."""
    return importlib.util.find_spec("open_clip") is not None


def _package(asked: str) -> ModuleType:
    try:
        return importlib.import_module("open_clip")
    except ModuleNotFoundError as error:
        missing = error.name or "open_clip"
        raise RedactError(f"{asked} - {missing.partition('.')[0]} is not installed - {INSTALL}") from None
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # A torchvision of another torch raises such.
        reason = str(error).strip().partition("\n")[0][:200]
        raise RedactError(f"{asked} - open_clip cannot be imported ({reason}) - take torch and torchvision of one index, then {INSTALL}") from error


def _check(package: ModuleType, asked: str, model: str, weights: str) -> None:
    models = list(package.list_models())
    if model not in models:
        close = difflib.get_close_matches(model, models)
        hint = f"did you mean {' or '.join(close)}?" if close else f"such as {', '.join(models[:5])}"
        raise RedactError(f"{asked} - open_clip has {len(models)} models, and not this one - {hint}")
    words = (package.get_model_config(model) or {}).get("text_cfg", {})
    if any(words.get(key) for key in ("hf_model_name", "hf_tokenizer_name")):
        refuse_offline(asked, "its tokenizer, too: take a model with open_clip's own, such as ViT-B-32")
    if Path(weights).is_file():
        return
    tags = list(package.list_pretrained_tags_by_model(model))
    if weights not in tags:
        raise RedactError(f"{asked} - there is no such file, and open_clip has {', '.join(tags) or 'no weights'} - give one of these, or a file")
    refuse_offline(asked, "give a file, :weights=FILE, or run it once without --offline and give the file that it left")
