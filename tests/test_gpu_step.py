# SPDX-License-Identifier: Apache-2.0
"""benchmarks/gpu_step.py runs from end to end where there is no GPU, and says what it measured."""

import re

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_step
from torch_utils.ops.cpu_kernels import SWITCH


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    monkeypatch.setenv(SWITCH, "on")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def test_a_step_is_measured_on_a_cpu_too():
    arguments = ["--network=stylegan2", "--resolution=16", "--device=cpu", "--batch=2", "--rounds=2", "--cached"]
    result = CliRunner().invoke(gpu_step.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "batch 2, cached target, n = 2; " in result.output and "no GPU" in result.output
    lines = re.findall(
        r"^  (.+): ([\d.]+) times the time \(.*\); ([\d.]+) images/s, peak memory not measured, [\d.]+ % of", result.output, re.MULTILINE
    )
    assert [name for name, _, _ in lines] == ["kernels", "torch's operations"]
    assert lines[0][1] == "1.00" and all(float(rate) > 0 for _, _, rate in lines)


def test_contenders_learn_alike():
    setting = gpu_step.Setting("stylegan2", 16, 2, torch.device("cpu"), half=True, live=True, graphs=False, compiled=False)
    first, second = (gpu_step.step_of(setting, None) for _ in range(2))
    losses = [float(first()) for _ in range(3)]
    assert losses == [float(second()) for _ in range(3)], "the same weights and latents for everybody"
    assert len(set(losses)) == 3, "weights change"
    assert gpu_step.flops_of(setting) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do():
    result = CliRunner().invoke(gpu_step.main, [])
    assert result.exit_code == 1 and "torch sees none - use --device=cpu" in result.output
