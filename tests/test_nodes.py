# SPDX-License-Identifier: Apache-2.0
"""Several machines at one run, as network namespaces of this one: `python -m pytest -m slow tests/test_nodes.py`, as root on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_run

from stylegan_redact.run_dir import read_json

ROOT = Path(__file__).parents[1]
SHORT = ["--num-latents=200", "--num-images=50", "--batch=8", "--kimg=0.08", "--batch-gpu=2", "--method=edit", "--device=cpu"]
NET = "10.213.77"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs iproute2 and root"),
]


def ip(*words: object) -> None:
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


@contextmanager
def nodes(count: int) -> Iterator[list[str]]:
    """Namespaces on one bridge, each with an address of its own: NET.1 and so on."""
    prefix = f"sgr{os.getpid() % 10000}"
    names = [f"{prefix}n{index}" for index in range(count)]
    try:
        ip("link", "add", f"{prefix}b", "type", "bridge")
        ip("link", "set", f"{prefix}b", "up")
        for index, name in enumerate(names):
            inside, outside = f"{prefix}i{index}", f"{prefix}o{index}"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", inside)
            ip("link", "set", outside, "master", f"{prefix}b", "up")
            ip("link", "set", inside, "netns", name)
            ip("netns", "exec", name, "ip", "addr", "add", f"{NET}.{index + 1}/24", "dev", inside)
            for device in ("lo", inside):
                ip("netns", "exec", name, "ip", "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{prefix}b"], capture_output=True)


@pytest.mark.parametrize("count", [2, 4])
def test_nodes_give_the_bytes_of_one_machine(count: int, tmp_path: Path) -> None:
    options = [str(ROOT / "redact.py"), *tiny_run.write_all(tmp_path), *SHORT]
    alone = subprocess.run([sys.executable, *options, f"--outdir={tmp_path / 'alone'}"], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    with nodes(count) as names:
        processes = []
        for index, name in enumerate(names):
            torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={count}", f"--node-rank={index}", "--nproc-per-node=1"]
            command = ["ip", "netns", "exec", name, *torchrun, f"--master-addr={NET}.1", "--master-port=29411", *options]
            # Each node has a folder of its own: only the first one's is written to.
            command.append(f"--outdir={tmp_path / name}")
            environ = os.environ | {"GLOO_SOCKET_IFNAME": f"{name.rpartition('n')[0]}i{index}", "OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        outputs = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * count, "\n".join(outputs)
    (one,), (several,) = (list((tmp_path / folder).iterdir()) for folder in ("alone", names[0]))
    assert not any((tmp_path / name).exists() for name in names[1:])
    for file in ("network-redacted.pkl", "labels.npz", "after.png"):
        assert (one / file).read_bytes() == (several / file).read_bytes()
    figures = [read_json(folder / "redaction.json")["estimates"] for folder in (one, several)]
    assert figures[0] == figures[1]
