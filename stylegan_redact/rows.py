# SPDX-License-Identifier: Apache-2.0
"""Room for what is known of each seed: in memory while that is little, else in a file, so that a million seeds take no more memory than some.

The file has no name: it is gone with the tensor, or with the process, however that ends. The system keeps as much of it in memory as it has to spare.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from stylegan_redact.types import RedactError

LARGE = 32 << 20
"""Bytes; what is larger lies in a file."""


def zeros(shape: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> torch.Tensor:
    """Zeros of that shape; on a CPU, if they are large, in a file in the folder for temporary files (TMPDIR).

    Raises:
        RedactError: that folder has no room for them.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= LARGE or torch.device(device).type != "cpu":
        return torch.zeros(list(shape), dtype=dtype, device=device)
    try:
        with tempfile.TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # Else a disk that is full would be found out when a number is written, by a signal that kills.
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        where = tempfile.gettempdir()
        raise RedactError(
            f"{shape[0]} rows, {size >> 20} MiB in all, were to be kept in a file - {where} has no room for it ({error.strerror}) - "
            "set TMPDIR to a folder of another disk, or ask for fewer seeds"
        ) from None
    return torch.frombuffer(mapped, dtype=dtype).view(*shape)


def numbers(seeds: Sequence[int]) -> torch.Tensor:
    """[n] int64, the seeds."""
    return torch.from_numpy(np.fromiter(seeds, np.int64, len(seeds)))


def filled(parts: Iterable[Sequence[torch.Tensor]], count: int) -> list[torch.Tensor]:
    """Columns [count, ...], on the CPU: the rows of the parts, one part after the other, each of which has some rows of all columns."""
    columns: list[torch.Tensor] = []
    done = 0
    for part in parts:
        columns = columns or [zeros([count, *rows.shape[1:]], dtype=rows.dtype) for rows in part]
        for column, rows in zip(columns, part, strict=True):
            column[done : done + len(rows)] = rows
        done += len(part[0])
    assert done == count, (done, count)
    return columns
