# SPDX-License-Identifier: Apache-2.0
"""What a run costs as it grows: what labelling and measuring leave behind, and the benchmarks that say so."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import tiny
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import growth, memory, whole_run
from stylegan_redact import cli, keeping
from stylegan_redact.features import _labelling
from stylegan_redact.network import sample_w
from stylegan_redact.networks.stylegan2 import Generator
from stylegan_redact.run_dir import read_json

pytestmark = pytest.mark.usefixtures("one_thread")


class Kept:
    """A store that keeps the sizes of states."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def begin(self, stage: str) -> tuple[str, None]:
        return stage, None

    def keep(self, moment: keeping.Moment) -> None:
        self.sizes.append(moment.state()["logits"].untyped_storage().nbytes())

    def check(self) -> None:
        return

    def tell(self, text: str) -> None:
        return


def test_labelling_holds_the_logits_once_and_keeps_no_more_than_there_are() -> None:
    G = tiny.generator(0)
    w, store, told = sample_w(G, range(96)), Kept(), list[torch.Tensor]()
    detector = memory.Rows(3)
    with keeping.kept_by(store):  # type: ignore[arg-type]
        logits = _labelling.logits_of(G, w, detector, batch=32, half=False, tell=told.append)
    assert store.sizes == [4 * 3 * 32, 4 * 3 * 64, 4 * 3 * 96] and [len(each) for each in told] == [32, 64, 96]
    assert len({each.untyped_storage().data_ptr() for each in (*told, logits)}) == 1
    with torch.no_grad():
        assert torch.equal(logits[32:64], detector.logits(tiny.synthesize(G, w[32:64])))


def test_latents_are_drawn_in_place() -> None:
    G = tiny.generator(0)
    assert torch.equal(sample_w(G, range(50), batch=16), torch.cat([sample_w(G, range(start, min(start + 16, 50))) for start in range(0, 50, 16)]))


def test_a_point_of_growth_is_measured_and_plotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    growth.point("resolution", 16)
    growth.point("seeds", 200)
    lines = [[float(word) for word in line.split()] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 and all(seconds >= 0 and peak > 50 for seconds, peak in lines)
    growth.plot({"seeds": {100: [[1.0, 2.0], [1.2, 2.5]], 1000: [[3.0, 20.0], [3.0, 21.0]]}}, tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as found:
        assert found.size == (400, 650)


def test_a_whole_run_on_a_network_of_random_weights_comes_to_its_end(tmp_path: Path) -> None:
    options = dict(channel_base=128, channel_max=8, mapping_kwargs={"num_layers": 2})
    words = whole_run.written(tmp_path, Generator, 16, options, dict(z_dim=8, c_dim=0, w_dim=8))
    result = CliRunner().invoke(cli.command(), words)
    assert result.exit_code == 0, result.output
    (record,) = (tmp_path / "runs").glob("*/redaction.json")
    estimates = read_json(record)["estimates"]
    assert max(each["n"] for each in estimates.values()) == whole_run.MEASURED
    assert f"n = {whole_run.LABELLED}" in result.output and "prevalence: 75 %" in result.output


def test_memory_of_its_own_is_watched() -> None:
    with memory.Watch() as idle:
        pass
    with memory.Watch() as busy:
        # New memory of the system's; what the allocator hands out may have been there before.
        held = torch.frombuffer(mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8).fill_(1)
    assert 32 < busy.most - idle.most < 128 and int(held[0]) == 1
