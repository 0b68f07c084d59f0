# SPDX-License-Identifier: Apache-2.0
"""The training of the bundled network: deterministic, and a run that was stopped goes on as if nothing had happened."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_redact.network import load_network
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.portraits import train_gan
from stylegan_redact.portraits.train_gan import PORTRAITS, Schedule, Task, portraits

BATCH = 4


def tensors(outdir: Path) -> dict[str, torch.Tensor]:
    return read_snapshot(outdir / "portraits64.pkl").modules["G_ema"].tensors


def run(outdir: Path, num_steps: int, pickle: Path | None = None, pickle_kimg: int = 0) -> dict[str, torch.Tensor]:
    task = Task("portraits64", PORTRAITS, functools.partial(portraits, 16, 0))
    train_gan.run(task, Schedule(outdir, num_steps * BATCH / 1000, BATCH, snap=1, pickle=pickle, pickle_kimg=pickle_kimg))
    return tensors(outdir)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 4)
    stopped = run(tmp_path / "stopped", 2)
    assert any(not torch.equal(whole[name], stopped[name]) for name in whole)
    resumed = run(tmp_path / "stopped", 4)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def grey(seen: list[torch.Tensor], outdir: Path) -> train_gan.Pick:
    """Pictures of one channel and of one shade each, written down as they are picked."""

    def pick(picks: np.random.Generator, n: int) -> torch.Tensor:
        seen.append(torch.from_numpy(picks.uniform(-1, 1, [n, 1, 1, 1])).float().expand(n, 1, 8, 8))
        return seen[-1].clone()

    return pick


def test_the_pictures_are_an_argument(tmp_path: Path) -> None:
    shape = dict(train_gan.LEAN, img_resolution=8, img_channels=1, channel_base=64, channel_max=8)
    seen: list[torch.Tensor] = []
    task = Task("grey8", shape, functools.partial(grey, seen), dict(train_gan.LATENT, z_dim=8, w_dim=8))
    train_gan.run(task, Schedule(tmp_path / "run", 3 * BATCH / 1000, BATCH))
    G = load_network(tmp_path / "run" / "grey8.pkl").G_ema
    assert (G.img_resolution, G.img_channels, G.w_dim) == (8, 1, 8)
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])
    assert len(list((tmp_path / "run").glob("fakes*.png"))) == 1
    other: list[torch.Tensor] = []
    train_gan.run(Task("grey8", shape, functools.partial(grey, other), task.latent), Schedule(tmp_path / "again", 3 * BATCH / 1000, BATCH))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(seen, other, strict=True))


def test_a_pickle_can_be_where_a_run_starts(tmp_path: Path) -> None:
    first = run(tmp_path / "first", 2)
    again = run(tmp_path / "again", 0, tmp_path / "first" / "portraits64.pkl")
    assert all(torch.equal(first[name], again[name]) for name in first)
