# SPDX-License-Identifier: Apache-2.0
"""Where the time goes: each moment belongs to one part, and traces stay small."""

import gzip
import json
from pathlib import Path

import tiny_run
from click.testing import CliRunner

from stylegan_redact import cli, profiling
from stylegan_redact.keeping import Moment
from stylegan_redact.profiling import EVALUATION, IO, LABELLING, OTHER, SUBSPACE, TRAINING, Profile


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Store:
    """Takes two seconds to keep a state."""

    def __init__(self, clock: Hand) -> None:
        self.clock, self.kept = clock, 0

    def begin(self, stage: str) -> tuple[str, None]:
        return stage, None

    def keep(self, moment: Moment) -> None:
        self.clock.now += 2
        self.kept += 1

    def check(self) -> None: ...

    def tell(self, text: str) -> None: ...


def seconds(text: str) -> dict[str, float]:
    """Part -> seconds of the clock, of a table."""
    lines = text.split("\n\n")[0].splitlines()[1:]
    return {line[:12].strip(): float(line[12:23]) for line in lines}


def test_every_moment_belongs_to_one_part(tmp_path: Path) -> None:
    wall, processor = Hand(), Hand()
    profile, store = Profile(tmp_path, clocks=(wall, processor)), Store(wall)
    watched = profile.watching(store)
    wall.now = 1
    with profile.part(LABELLING):
        for share in (0.5, 1.0):
            wall.now += 10
            watched.keep(Moment("label", dict, share))
        wall.now += 3
    with profile.part(TRAINING):
        wall.now += 100
        processor.now += 70
        watched.keep(Moment("edit", dict, 1.0))
        wall.now += 1
    profile.write()
    text = (tmp_path / profiling.TABLE).read_text()
    told = {LABELLING: 20, SUBSPACE: 3, TRAINING: 101, IO: 6, OTHER: 1, EVALUATION: 0, "all": 131}
    assert seconds(text) | told == seconds(text) and store.kept == 3
    assert next(line for line in text.splitlines() if line.startswith(TRAINING)).split() == [TRAINING, "101.00", "70.00", "77.1"]


def test_without_it_nothing_is_written_or_wrapped(tmp_path: Path) -> None:
    profile, store = Profile(None), Store(Hand())
    assert profile.watching(store) is store
    with profile.part(TRAINING):
        for _ in range(5):
            profile.step()
    profile.write()
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_a_table_and_short_traces(tmp_path: Path) -> None:
    options = [*tiny_run.write_all(tmp_path), f"--outdir={tmp_path / 'runs'}", "--num-latents=200", "--num-images=200", "--batch-gpu=40"]
    result = CliRunner().invoke(cli.command(), [*options, "--method=unlearn", "--kimg=0.1", "--batch=10", "--profile"])
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").iterdir()
    text = (folder / profiling.TABLE).read_text()
    spent = seconds(text)
    assert all(spent[part] > 0 for part in (LABELLING, TRAINING, EVALUATION, IO)) and abs(sum(spent.values()) - 2 * spent["all"]) < 0.1
    for part in (LABELLING, TRAINING, EVALUATION):
        events = json.loads(gzip.decompress((folder / profiling.trace_name(part)).read_bytes()))["traceEvents"]
        convolutions = sum(event.get("name") == "aten::convolution" for event in events)
        assert 0 < convolutions < 400, part
        assert f"{part}: {profiling.RECORDED} steps" in text
    assert "aten::" in text and "--profile" not in (folder / "README.md").read_text()
