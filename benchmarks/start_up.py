# SPDX-License-Identifier: Apache-2.0
"""How long a user waits for an answer: seconds to the end of --help, of each verb too, and to the first progress line of the main job.

python -m benchmarks.start_up
python -m benchmarks.start_up --rounds=5 --network=portraits64 --feature=beard

By the clock, in processes of their own, which take turns: medians and ranges. The main job is ended once it has said how far it is. A round is left
out before the others, in which files come into the system's cache and operations are compiled.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from stylegan_redact import verbs

REDACT = Path(__file__).parents[1] / "redact.py"
PROGRESS = re.compile(r"\w+ +[\d.]+% +time ")
"""A progress line: stage, share, time."""


def seconds_to(words: Sequence[str], line: re.Pattern[str] | None, folder: str) -> float:
    """Seconds from the start of redact.py to the first line of that form, or to its end.

    Raises:
        click.ClickException: There was no such line, or it failed.
    """
    start = time.perf_counter()
    command = [sys.executable, "-u", str(REDACT), *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        told = []
        for text in child.stdout:
            told.append(text)
            if line and line.match(text):
                found = time.perf_counter() - start
                child.kill()
                return found
        if child.wait() or line:
            raise click.ClickException(f"{' '.join(words)} gave exit code {child.returncode}, and no such line:\n{''.join(told[-5:])}")
    return time.perf_counter() - start


@click.command()
@click.option("--network", default="portraits64", show_default=True)
@click.option("--feature", default="beard", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(network: str, feature: str, rounds: int) -> None:
    """Prints a line for each command: median and range."""
    asked: dict[str, tuple[list[str], re.Pattern[str] | None]] = {"--help": (["--help"], None)}
    asked |= {f"{verb} --help": ([verb, "--help"], None) for verb in verbs.names()}
    with tempfile.TemporaryDirectory() as folder:
        job = [f"--network={network}", f"--feature={feature}", f"--outdir={folder}"]
        asked["first progress line"] = (job, PROGRESS)
        taken: dict[str, list[float]] = {name: [] for name in asked}
        for turn in range(rounds + 1):
            for name, (words, line) in asked.items():
                found = seconds_to(words, line, folder)
                if turn:
                    taken[name].append(found)
    for name, found in taken.items():
        click.echo(f"{name:<22} {statistics.median(found):6.2f} s ({min(found):.2f} to {max(found):.2f}), n = {rounds}")


if __name__ == "__main__":
    main()
