# SPDX-License-Identifier: Apache-2.0
"""What the estimate counts, with every image costing a known time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
import tiny_run
import torch
from test_ranks import on_all

from stylegan_redact import given, job, learned, ranks, time_estimate
from stylegan_redact.methods.edit import Edit
from stylegan_redact.methods.redact_data import RedactData
from stylegan_redact.methods.unlearn import Unlearn
from stylegan_redact.types import Feature, LabelledLatents


@pytest.fixture
def plan(tmp_path: Path, request: pytest.FixtureRequest) -> job.Plan:
    named = dict(option.removeprefix("--").split("=") for option in tiny_run.write_all(tmp_path))
    known = {name: named[name] for name in ("network", "feature", "classifier", "judge")}
    return job.prepare(job.Request(**known, method=request.param, method_options={"kimg": 2.0}, num_latents=300, num_images=50))


@pytest.mark.parametrize(("plan", "method"), [("edit", Edit), ("unlearn", Unlearn)], indirect=["plan"])
def test_a_method_costs_all_that_it_looks_at(plan: job.Plan, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one second for whatever is done to an image: two passes to label; of training what the method says; five to measure a pair."""
    monkeypatch.setattr(time_estimate, "_timed", lambda work, device: work() is None or float(plan.batch))
    found = time_estimate.estimate_seconds(plan)
    assert found == {"labelling": 300 * 2, "redacting": 2000 * sum(method.passes.values()), "measuring": 50 * 5}


@pytest.mark.parametrize("plan", ["edit"], indirect=True)
def test_ranks_share_the_pictures_that_a_detector_learns_from(plan: job.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300, 64 at a time, the first of three ranks draws 128; what is learned from them is not shared out, and is three passes of the detector."""
    monkeypatch.setattr(time_estimate, "_timed", lambda work, device: work() is None or float(plan.batch))
    monkeypatch.setattr(time_estimate, "_exchanging", lambda plan, images, rounds: float(rounds))
    latents = LabelledLatents(torch.zeros(300, 8), torch.zeros(300))
    brought = given.Given("glow", None, Feature("glow", latents), None, {}, (), learns=True)
    for size, drawn, rounds in ((1, 300, 5 + 1), (3, 128, 2 + 1)):
        monkeypatch.setattr(ranks, "world", lambda size=size: ranks.World(0, size))
        found = time_estimate.estimate_seconds(replace(plan, brought=brought))
        assert found["learning"] == drawn + learned.STEPS * learned.BATCH * 3 and found["exchanging"] == rounds


@pytest.mark.parametrize(("plan", "shared"), [("edit", True), ("redact_data", False)], indirect=["plan"])
def test_ranks_share_the_work_and_send_each_other_what_came_of_it(plan: job.Plan, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture costs a second, whatever is sent ten. Three ranks, 64 pictures at a time: of 300 labelled pictures the first rank draws 64 and 64, in
    two rounds, of 50 measured ones all, in one; of edit's steps of 20 it has 7, and each is one round and an agreement at its end."""
    sent: list[tuple[int, str]] = []

    def mine() -> list[str]:
        return [name for thread, name in sent if thread == get_ident()]

    def timed(work: Any, device: torch.device) -> float:
        before = mine()
        work()
        return 10.0 if mine() != before else float(plan.batch)

    for name in ("gathered", "added"):
        real = getattr(ranks.World, name)
        monkeypatch.setattr(ranks.World, name, lambda *args, name=name, real=real: sent.append((get_ident(), name)) or real(*args))
    monkeypatch.setattr(time_estimate, "_timed", timed)
    assert plan.batch == 64 and plan.method.batch == (20 if shared else 16)
    found, *others = on_all(3, lambda world: (time_estimate.estimate_seconds(plan), time_estimate.describe({"labelling": 60.0}, "cpu")))
    per_image = sum((Edit if shared else RedactData).passes.values())
    exchanged = 2000 / 20 * (10 + 10 + 10) if shared else 2000 / 16 * 10
    expected = {"labelling": 128 * 2, "redacting": 2000 * per_image * (7 / 20 if shared else 1), "measuring": 50 * 5}
    assert found[0] == pytest.approx(expected | {"exchanging": exchanged + (2 + 1) * 10})
    assert others == [found] * 2 and found[1] == "about 1m 00s on this machine (cpu, 3 ranks): labelling 1m 00s"
    assert [name for _, name in sent].count("added") == (3 if shared else 0)
