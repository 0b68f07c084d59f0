# SPDX-License-Identifier: Apache-2.0
"""docs/examples/python_api.md: its blocks run in order, use all that the package exports, print nothing, and end in a redacted pickle."""

import re
import types
from pathlib import Path

import pytest
import torch

import stylegan_redact
from stylegan_redact.types import Estimate

TEXT = (Path(__file__).parents[1] / "docs" / "examples" / "python_api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_it_uses_all_that_the_package_exports() -> None:
    code = "\n".join(BLOCKS)
    assert [name for name in stylegan_redact.__all__ if len(re.findall(rf"\b{name}\b", code)) < 2] == []


def test_editors_are_told_of_all_of_it() -> None:
    stub = (Path(stylegan_redact.__file__).parent / "__init__.pyi").read_text(encoding="utf-8")
    told = {name: home for home, name, again in re.findall(r"^from (\S+) import (\w+) as (\w+)$", stub, re.MULTILINE) if name == again}
    assert told == stylegan_redact._HOMES


def test_the_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_REDACT_KERNELS", "off")  # Compiling would take longer than all the rest.
    example = types.ModuleType("example")
    for block in BLOCKS:
        exec(compile(block, "python_api.md", "exec"), vars(example))  # As a notebook does.
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")

    stages, feature, after, network, left = (getattr(example, name) for name in ("stages", "feature", "after", "network", "left"))
    assert stages["label"][0] == 1.0 and 0 < stages["label"][1]["rate"] < 1
    assert example.share == pytest.approx(stages["label"][1]["rate"]) and 0.1 < example.share < 0.3
    assert torch.equal(example.basis, feature.subspace.basis) and example.threshold.shape == (1,) and 0.5 < example.accuracy <= 1
    assert "no_such_method" in example.refusal and "edit" in example.refusal
    before, pinned = (dict(net.G_ema.named_parameters()) for net in (network, after))
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in before if not torch.equal(before[name], pinned[name])} == {"affine"}
    assert isinstance(left, Estimate) and left.n == 400 and example.figures["residual_rate/removed"].low > 0
    assert example.sentence.endswith("of 400 show a beard") and example.left_out == ()
    assert example.again == {"feature": "beard", "method": "fold"} and (tmp_path / "redacted.pkl").is_file()
    assert torch.equal(example.found.latents.score, feature.latents.score) and example.found.network_sha256 == example.snapshot.sha256
    assert set(example.found.source) == {"attribute"} and len(example.seeds_with) == round(600 * example.share)
    assert torch.equal(example.from_file.subspace.basis, feature.subspace.basis) and torch.equal(example.mine.w, feature.latents.w)
    redacted, same, weaker = (dict(net.G.named_parameters()) for net in (after, example.same, example.weaker))
    assert all(torch.equal(same[name], redacted[name]) for name in redacted) and example.same.sha256 == after.sha256 == ""
    assert any(not torch.equal(weaker[name], redacted[name]) for name in redacted)
