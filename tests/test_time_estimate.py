# SPDX-License-Identifier: Apache-2.0
"""What the estimate counts, with every image costing a known time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_run

from stylegan_redact import job, time_estimate
from stylegan_redact.methods.edit import Edit
from stylegan_redact.methods.unlearn import Unlearn


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
