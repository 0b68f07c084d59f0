# SPDX-License-Identifier: Apache-2.0
"""A command that several processes work at; --gpus=N: the same command line started N times here, with the variables that torchrun sets.

Not through torchrun itself: it would answer SIGTERM and Ctrl-C with a failure, where a run keeps what it has and says 0 or 130 (docs/runs.md).
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
import torch

from stylegan_redact import meant, ranks
from stylegan_redact.failures import Failure, failure
from stylegan_redact.progress import Progress
from stylegan_redact.types import RedactError

GRACE = 20.0
"""Seconds that the others get to end by themselves after one has failed."""
_LOOK = 0.1


@contextmanager
def on_ranks(gpus: int | None, device: str) -> Iterator[Progress]:
    """Within the block this process is the rank that it was started as, if it was; with --gpus it starts them, and ends as they do.

    Args:
        gpus:   --gpus.
        device: --device.

    Returns:
        What the rank is to tell its progress to; all but the first are silent.
    """
    try:
        if wanted(gpus, device):
            sys.exit(launch(gpus or 1))
        with ranks.joined(meant.device_of(device).type == "cuda") as world:
            yield Progress(click.echo) if world.rank == 0 else Progress(lambda text: None, out=io.StringIO())
    except ranks.ToldElsewhere:
        sys.exit(Failure.exit_code)
    except RedactError as error:
        raise failure(error) from None


def wanted(gpus: int | None, device: str) -> bool:
    """Whether this process is to start others instead of working itself.

    Args:
        gpus:   --gpus, if it was given.
        device: --device.

    Raises:
        RedactError: more than there are, or the processes were started already and are another number.
    """
    there = ranks.asked(os.environ)
    if gpus is None or there == gpus:
        return False
    if there > 1:
        raise RedactError(f"--gpus={gpus} was asked - torchrun started {there} ranks - leave out --gpus")
    if device != "cpu" and gpus > torch.cuda.device_count():
        raise RedactError(
            f"--gpus={gpus} was asked - torch sees {torch.cuda.device_count()} here - give fewer, or --device=cpu for as many processes on the CPU"
        )
    return gpus > 1


def launch(count: int, command: Sequence[str] | None = None) -> int:
    """Starts `count` ranks and waits for them.

    Args:
        count:   Of ranks.
        command: Program and arguments; None: those of this process.

    Returns:
        The exit code: rank 0's, or, if that is 0, the first of the others that is not.
    """
    command = [sys.executable, *sys.orig_argv[1:]] if command is None else list(command)
    threads = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // count, 1)))
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": threads}
    children = [subprocess.Popen(command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]

    def hand_on(number: int, frame: FrameType | None) -> None:
        # What Ctrl-C sends goes to all processes of a terminal by itself; two of them would end the run at once.
        if number == signal.SIGTERM or not os.isatty(0):
            for child in children:
                child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _ended(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(children: list[subprocess.Popen[bytes]]) -> int:
    deadline: float | None = None
    while None in [child.poll() for child in children]:  # A list: all are looked at, those after one that hangs, too.
        if deadline is None and any(child.returncode for child in children):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(_LOOK)
    codes = [child.returncode for child in children]
    first = next((code for code in codes if code), 0)
    return first if first >= 0 else 128 - first


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
