# SPDX-License-Identifier: Apache-2.0
"""Runs command lines of redact.py, each group in a process of its own with little memory and time: `python hostile_child.py IN.json OUT.json`.

IN: a list of groups, each a list of command lines. OUT: for each group its peak of memory above what the process started with, and for each
command line exit code, output and seconds of CPU. A group that dies says nothing of the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import cli, verbs
from stylegan_redact.networks import build, fit, stylegan2

MEMORY = 1 << 30
SECONDS = 10


def run(args: list[str]) -> dict[str, Any]:
    """Exit code, output and seconds of one command line; 1 and the traceback for what nobody caught."""
    out = io.StringIO()
    began = time.process_time()
    code: Any = 1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        chosen, verb = cli.choose(args)
        try:
            chosen(args=args[1:] if verb else args, prog_name="redact.py")
        except SystemExit as error:
            code = error.code
        except BaseException:  # What would be a traceback on the user's terminal.
            traceback.print_exc()
    return {"code": code, "output": out.getvalue(), "seconds": time.process_time() - began}


def now(word: str) -> int:
    """Bytes that /proc says of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{word}:"))
    return int(line.split()[1]) << 10


def group(commands: list[list[str]]) -> dict[str, Any]:
    """In the child: under limits, all that it can say."""
    start, limit = now("VmRSS"), now("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS * len(commands), SECONDS * len(commands)))
    results = [run(command) for command in commands]
    return {"results": results, "peak": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - start}


def forked(commands: list[list[str]]) -> dict[str, Any]:
    """What the child says, or how it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(group(commands), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(said) if said else {"died": status, "results": []}


def main() -> None:
    torch.set_num_threads(1)
    for found in pkgutil.iter_modules(verbs.__path__):
        importlib.import_module(f"stylegan_redact.verbs.{found.name}")
    build.architectures()
    fit.without_memory(lambda: stylegan2.FullyConnectedLayer(1, 1))  # torch imports much at the first tensor without memory.
    groups = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([forked(commands) for commands in groups]))


if __name__ == "__main__":
    main()
