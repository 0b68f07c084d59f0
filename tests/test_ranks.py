# SPDX-License-Identifier: Apache-2.0
"""Several processes at one run: what comes out is what one process gives, and one that dies ends the run with a reason."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import tiny
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import cli, keeping, launching, ranks
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.evaluation import PairedImages, measure_pairs
from stylegan_redact.following import Together
from stylegan_redact.network import load_network
from stylegan_redact.proof.pair_store import PairStore
from stylegan_redact.ranks import OutOfMemory, World
from stylegan_redact.training.portions import descend
from stylegan_redact.types import RedactError

TESTS = Path(__file__).parent
SHORT = ["--num-latents=200", "--num-images=40", "--batch=8", "--kimg=0.08", "--batch-gpu=4", "--checkpoint-every=0", "--device=cpu"]


def in_child(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """What the child says, and the output of its processes."""
    options = tiny_run.write_all(folder)
    paths = {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", str(TESTS / "ranks_child.py"), str(folder / "runs"), *words, *options, *SHORT]
    (folder / "runs").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | paths)
    output = (folder / "runs" / "output.txt").read_text()
    assert done.returncode == 0, done.stderr + output
    found: dict[str, Any] = json.loads(done.stdout)
    return found, output


def test_two_ranks_give_the_bytes_of_one_and_a_killed_one_ends_the_run(tmp_path: Path) -> None:
    """Pickle, pictures, labels and every figure, bit for bit; a run that lost a rank is finished by one alone, with the same bytes."""
    found, output = in_child(tmp_path)
    assert found["two"] == [0, 0] and found["one"] == found["resumed"] == 0, output
    assert found["unequal"] == [] and {"labels.npz", "network-redacted.pkl", "redaction.json"} <= set(found["files"])
    assert found["killed"] == [2, -9] and found["finished"] == []
    assert "another one has died or does not answer" in output and "with as many ranks as you like" in output


def test_a_rank_that_hangs_ends_the_run_in_time(tmp_path: Path) -> None:
    """Stopped in the middle of a training: the other one waits as long as it was told, says so, and exits with 2."""
    found, output = in_child(tmp_path, "hang")
    assert found["codes"] == [2, -9] and found["seconds"] < 30, output
    assert "another one has died or does not answer" in output and "with as many ranks as you like" in output
    assert not list((tmp_path / "runs").glob("*/*/redaction.json"))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [("0.5", "2 ranks were to meet at 127.0.0.1 - .* - start them all"), ("0", "more than 0"), ("soon", "'soon' was asked"), ("1e20", "at most")],
)
def test_a_rank_that_never_comes_is_not_waited_for_longer_than_was_said(seconds: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launching._free_port())}
    for name, value in (shared | {ranks.TIMEOUT: seconds}).items():
        monkeypatch.setenv(name, value)
    begin = time.monotonic()
    with pytest.raises(RedactError, match=told), ranks.joined(cuda=False):
        pass
    assert time.monotonic() - begin < 20


def test_torchs_threads_get_time_to_let_go_before_ranks_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, two ranks with torch 2.4 that part right after an exchange may hang."""
    done: list[object] = []
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks.distributed, "init_process_group", lambda *_args, **_options: None)
    monkeypatch.setattr(ranks.distributed, "destroy_process_group", lambda: done.append("parted"))
    monkeypatch.setattr(ranks.time, "sleep", done.append)
    with ranks.joined(cuda=False):
        assert not done
    assert done == [ranks.PAUSE, "parted"]


def test_ranks_that_hang_are_ended_after_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "GRACE", 0.5)
    begin = time.monotonic()
    text = "import os, sys, time; os.environ['RANK'] == '1' and sys.exit(2); time.sleep(600)"
    assert launching.launch(2, [sys.executable, "-S", "-c", text]) in (2, 128 + 9) and time.monotonic() - begin < 60


@pytest.mark.slow
def test_two_ranks_evaluate_as_one_and_the_first_attacks_alone(tmp_path: Path) -> None:
    found, output = in_child(tmp_path, "evaluate")
    assert found["evaluated"] == [0, 0, 0] and found["evaluated_alike"] == [True, True] and found["attacked"], output


@pytest.mark.usefixtures("one_thread")
def test_pairs_are_measured_alike_by_any_number_of_ranks(tmp_path: Path) -> None:
    """Through the store, too, where the first rank alone has a portion already."""
    before, after = tiny.network(), tiny.network()
    after.G_ema.synthesis.b16.torgb.bias.data -= 0.1
    how: dict[str, Any] = dict(before=before, after=after, judge=tiny.Corners(before.G_ema), batch=8)

    def work(world: World) -> list[PairedImages]:
        store = PairStore(tmp_path / f"{world.size}" / "pairs" if world.rank == 0 else Path(), lambda text: None)
        return [measure_pairs(seeds=range(50), **how), *(store.measure(range(20), "z", None, 0, lambda *_: None, **how) for _ in range(2))]

    (alone,) = on_all(1, work)
    for mine in on_all(3, work):
        for pairs, expected in zip(mine, alone, strict=True):
            assert all(torch.equal(getattr(pairs, name), getattr(expected, name)) for name in ("logits_before", "logits_after", "l1", "seeds"))


class Wire:
    """Several worlds in one process, a thread each, that hand each other tensors instead of sending them."""

    def __init__(self, size: int) -> None:
        self.barrier, self.sent = Barrier(size, timeout=60), [torch.empty(0)] * size

    def world(self, rank: int) -> World:
        world = World(rank, len(self.sent))

        def all_of(mine: torch.Tensor) -> list[torch.Tensor]:
            self.sent[rank] = mine.clone()
            self.barrier.wait()
            found = [each.clone() for each in self.sent]
            self.barrier.wait()
            return found

        world._all = all_of  # type: ignore[method-assign]
        world._from_first = lambda content: all_of(content)[0]  # type: ignore[method-assign]
        return world


@contextmanager
def within(world: World) -> Iterator[None]:
    token = ranks._WORLD.set(world)
    try:
        yield
    finally:
        ranks._WORLD.reset(token)


def on_all(size: int, work: Callable[[World], Any]) -> list[Any]:
    """What each rank gives, or the error that it ends with."""
    wire, found = Wire(size), [None] * size

    def run(rank: int) -> None:
        world = wire.world(rank)
        with within(world):
            try:
                found[rank] = work(world)
            except Exception as error:
                found[rank] = error

    threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_portions_come_back_in_their_order_and_each_is_done_once(size: int) -> None:
    done: list[int] = []

    def work(portion: int) -> dict[str, Any]:
        done.append(portion)
        return {"square": torch.full([portion], float(portion)), "none": None}

    found = on_all(size, lambda world: [each["square"].tolist() for each in world.spread(work, [3, 1, 4, 2])])
    assert found == [[[3.0] * 3, [1.0], [4.0] * 4, [2.0] * 2]] * size and sorted(done) == [1, 2, 3, 4]


def gradients(world: World, portions: int, seed: int = 0) -> tuple[list[Any], dict[str, float]]:
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    idle, random = torch.nn.Parameter(torch.zeros(3)), torch.Generator().manual_seed(seed)
    with torch.no_grad():  # The ranks here are threads, which share torch's own generator.
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    x = torch.randn([12, 7], generator=torch.Generator().manual_seed(1))
    parameters = [*model.parameters(), idle]

    def work(some: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = model(some).square().mean()
        return loss, {"loss": loss}

    split = x.split(-(-len(x) // portions))
    figures = descend(parameters, [(some, len(some) / len(x)) for some in split], work)
    return [None if each.grad is None else each.grad.tolist() for each in parameters], figures


@pytest.mark.parametrize(("size", "portions"), [(2, 2), (2, 5), (3, 3), (4, 3)])
def test_gradients_are_those_of_one_rank_to_the_bit(size: int, portions: int) -> None:
    (alone,) = on_all(1, lambda world: gradients(world, portions))
    assert on_all(size, lambda world: gradients(world, portions)) == [alone] * size and alone[0][-1] is None
    whole, _ = gradients(World(), 1)
    assert torch.allclose(torch.tensor(alone[0][0]), torch.tensor(whole[0]), rtol=1e-5)


def test_want_of_memory_of_one_rank_is_known_to_all() -> None:
    def work(world: World) -> str:
        def portion(index: int) -> int:
            if index == 1:
                raise MemoryError
            return index

        with pytest.raises(OutOfMemory):
            list(world.spread(portion, [0, 1]))
        with pytest.raises(OutOfMemory):
            world.settle(failed=world.rank == 0)
        world.settle(failed=False)
        return "in step"

    assert on_all(2, work) == ["in step"] * 2


def test_a_rank_that_ends_with_an_error_tells_the_others() -> None:
    def work(world: World) -> Any:
        if world.rank == 1:
            return world.part_ways()
        return world.any(False)

    first, second = on_all(2, work)
    assert isinstance(first, RedactError) and "rank 1 ended with an error" in str(first) and second is False
    assert on_all(2, lambda world: world.part_ways()) == [True, True]  # Rank 0 tells it, the other keeps silent.


def test_all_stop_at_the_step_at_which_one_was_asked_to(tmp_path: Path) -> None:
    def work(world: World) -> tuple[list[int], list[str]]:
        store = Together(world, Checkpoints(tmp_path / "checkpoint", 3600, lambda text: None) if world.rank == 0 else None)
        done: list[int] = []
        name, state = store.begin("edit")
        with pytest.raises(keeping.Stopped):
            for step in range(5):
                store.stop = world.rank == 1 and step == 3
                done.append(step)
                store.keep(keeping.Moment(name, functools.partial(dict, step=step), step / 10))
        return done, [name, str(state)]

    assert on_all(2, work) == [([0, 1, 2, 3], ["edit", "None"])] * 2
    kept = on_all(2, lambda world: Together(world, Checkpoints(tmp_path / "checkpoint", 0, print) if world.rank == 0 else None).begin("edit"))
    assert kept == [("edit", {"step": 3})] * 2


def test_ranks_that_do_not_do_the_same_are_found_out() -> None:
    found = on_all(2, lambda world: world.check_alike("options", {"a": torch.tensor(1.0), "seed": world.rank}))
    assert all(isinstance(each, RedactError) and "options of rank 1 differ from those of rank 0: seed - " in str(each) for each in found)
    assert on_all(3, lambda world: world.check_alike("options", {"a": torch.tensor(1.0)})) == [None] * 3


def test_more_gpus_than_there_are_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    done = CliRunner().invoke(cli.command(), ["--network=portraits64", "--feature=beard", "--gpus=2", f"--outdir={tmp_path}"])
    assert done.exit_code == 2 and "torch sees 1 here" in done.output and "--device=cpu" in done.output
    assert launching.wanted(2, "cpu") and not launching.wanted(1, "auto") and not launching.wanted(None, "auto")


@pytest.mark.parametrize(("codes", "expected"), [([0, 0], 0), ([3, 0], 3), ([0, 5], 5)])
def test_the_exit_code_of_a_launch_is_that_of_what_failed(codes: list[int], expected: int) -> None:
    text = f"import os, sys; sys.exit({codes}[int(os.environ['RANK'])])"
    assert launching.launch(2, [sys.executable, "-S", "-c", text]) == expected


def test_what_one_process_does_is_refused_on_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["redact.py", "doctor"])
    with pytest.raises(SystemExit, match="started on several ranks"):
        cli.main()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_that_talk_by_nccl_give_what_one_gives(tmp_path: Path) -> None:
    """Labels alike, and weights but for what sums in another order change."""
    options = [*tiny_run.write_all(tmp_path), *(word for word in SHORT if not word.startswith("--device")), "--device=cuda"]
    weights = []
    for gpus in (1, 2):
        outdir = tmp_path / f"of-{gpus}"
        command = [sys.executable, str(TESTS.parent / "redact.py"), *options, f"--gpus={gpus}", f"--outdir={outdir}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (result,) = outdir.glob("*/network-redacted.pkl")
        weights.append(load_network(result).G_ema.state_dict())
    for name, of_one in weights[0].items():
        assert torch.allclose(of_one, weights[1][name], rtol=1e-3, atol=1e-4), name
