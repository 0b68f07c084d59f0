# SPDX-License-Identifier: Apache-2.0
"""Room for what is known of each seed: in memory while that is little, else in a file, so that a million seeds take no more memory than some.

The file has no name: it is gone with the tensor, or with the process, however that ends. The system keeps as much of it in memory as it has to spare.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
import torch

from stylegan_redact.types import RedactError

LARGE = 32 << 20
"""Bytes; what is larger lies in a file."""
_AT_A_TIME = 1 << 20
_UNKNOWN_THERE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def zeros(shape: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> torch.Tensor:
    """Zeros of that shape; on a CPU, if they are large, in a file in the folder for temporary files (TMPDIR).

    Raises:
        RedactError: that folder has no room for them, or there is none that may be written.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= LARGE or torch.device(device).type != "cpu":
        return torch.zeros(list(shape), dtype=dtype, device=device)
    try:
        with tempfile.TemporaryFile() as file:
            _fill(file, size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        reason = "has no room for it" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "does not take it"
        # None: none was found that may be written.
        told = f"{os.fsdecode(tempfile.tempdir)} {reason}" if tempfile.tempdir is not None else "there is no folder for it"
        raise RedactError(
            f"{shape[0]} rows, {size >> 20} MiB in all, were to be kept in a file - {told} ({error.strerror or error}) - "
            "set TMPDIR to a folder of another disk, or ask for fewer seeds"
        ) from None
    return torch.frombuffer(mapped, dtype=dtype).view(*shape)


def _fill(file: IO[bytes], size: int) -> None:
    """Zeros, that many bytes of them, that have their place on the disk: where they had none, a disk that is full would be found out when a number
    is written, by a signal that kills."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # macOS and Windows have no such call, some file systems do not know it.
        if isinstance(error, OSError) and error.errno not in _UNKNOWN_THERE:
            raise
        zero = bytes(min(size, _AT_A_TIME))
        for start in range(0, size, _AT_A_TIME):
            file.write(zero[: size - start])
        file.flush()


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
