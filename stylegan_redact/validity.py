# SPDX-License-Identifier: Apache-2.0
"""A function of the user's that says which pictures are valid: file.py:function, uint8 [H, W, C] -> True for a valid one, False for what is to go.

To name the file is to agree that it is run, with all rights of the user.
"""

from __future__ import annotations

import importlib.util
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact.types import RedactError


@dataclass(frozen=True)
class Validity:
    """Says which pictures are valid: a function of the user's on pixels, uint8 [H, W, C], True for valid ones."""

    function: Callable[[np.ndarray], Any]
    name: str

    def __call__(self, img: torch.Tensor, seeds: list[int] | None = None) -> torch.Tensor:
        """[n] bool of img [n, C, H, W] in [-1, 1]; seeds of the pictures are for messages.

        Raises:
            RedactError: the function fails, or gives no bool; names the seed that it was about.
        """
        pixels = (img.detach() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # [-1, 1] => uint8
        said = []
        for row, picture in enumerate(pixels):
            about = "a picture of the data" if seeds is None else f"the picture of seed {seeds[row]}"
            try:
                valid = self.function(picture.copy())
            except Exception as error:  # Whatever the user's code raises, and which picture did it.
                raise RedactError(f"{self.name} was asked about {about} - it raised {error!r} - mend it") from error
            if not isinstance(valid, bool | np.bool_ | numbers.Real) or valid not in (0, 1):
                raise RedactError(f"{self.name} was asked about {about} - it gave {valid!r} - return True for a valid picture, else False")
            said.append(bool(valid))
        return torch.tensor(said, dtype=torch.bool)


def check_validity(text: str) -> tuple[Path, str]:
    """File and function that file.py:function names.

    Raises:
        RedactError: it is not of this form, or there is no such file.
    """
    file, _, function = text.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise RedactError(f"validity={text!r} was asked - it is no file.py:function - name a Python file and a function in it")
    if not Path(file).is_file():
        raise RedactError(f"validity={text!r} was asked - there is no file {file} - name a Python file and a function in it")
    return Path(file), function


def load_validity(text: str) -> Validity:
    """The user's function that file.py:function names. Its file is run, with all rights of the user.

    Raises:
        RedactError: there is none, or its file cannot be run.
    """
    path, name = check_validity(text)
    spec = importlib.util.spec_from_file_location("validity_of_user", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # Whatever the user's code raises.
        raise RedactError(f"validity={text!r} was asked - {path} cannot be run: {error!r} - mend it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise RedactError(f"validity={text!r} was asked - {path} defines no function {name} - name one that it does")
    return Validity(function, text)
