# SPDX-License-Identifier: Apache-2.0
"""The benchmark of all methods: rows are made once, in processes of their own, and the table and the plot say what they hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from click.testing import CliRunner, Result

from benchmarks import compare_methods, compare_plot, compare_row
from stylegan_redact.detectors import save_torchscript
from stylegan_redact.network import sample_w, sample_z
from stylegan_redact.types import RedactError

SHORT = ["--num-images=200", "--num-latents=300", "--starts=4"]


class TwoRegions(torch.nn.Module):
    """Two logits: of a corner and of the whole."""

    def __init__(self, corner: tiny_run.BrightRegion, whole: tiny_run.BrightRegion) -> None:
        super().__init__()
        self.corner, self.whole = corner, whole

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.corner(img), self.whole(img)], 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    G = tiny_run.write_network(folder / "tiny.pkl")
    for name, size in (("detector", 8), ("judge", 9)):
        for side in (size, 16):
            tiny_run.write_classifier(folder / f"{side}.pt", G, side)
        regions = [tiny_run.BrightRegion(side, tiny_run.load_torchscript(folder / f"{side}.pt").threshold) for side in (size, 16)]
        save_torchscript(TwoRegions(*regions), folder / f"{name}.pt", ["glow", "shine"])
    return [f"--network={folder / 'tiny.pkl'}", f"--classifier={folder / 'detector.pt'}", f"--judge={folder / 'judge.pt'}", "--features=glow"]


def run(*args: str) -> Result:
    return CliRunner().invoke(compare_methods.main, [*args, *SHORT])


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "rows.jsonl").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def out(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows, really made."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    result = run(*files, "--methods=none,fold:quantile=0.3", f"--out={out}", "--access=z,w")
    assert result.exit_code == 0, result.output
    assert (out / "table.md").read_text() in result.output
    return out


def test_a_row_has_every_column(out: Path) -> None:
    text = (out / "table.md").read_text().strip()
    heading, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert [cells[:2] for cells in lines] == [["glow", "none"], ["glow", "fold:quantile=0.3"]]
    none, fold = (dict(zip(heading, cells, strict=True)) for cells in lines)
    assert all(value not in ("", "-") for name, value in fold.items() if name != "rarest loss, %")  # No attribute is rare here.
    assert none["removed, %"].startswith("0.00 (") and none["others, points"] == "0.00 (0.00 to 0.00)" and none["relearned after"] == "0"
    assert float(fold["removed, %"].split()[0]) > 20 and float(fold["L1 feature-free"].split()[0]) > 0
    assert float(fold["left at most, %"]) < float(none["left at most, %"])
    assert fold["worst other"].endswith(" shine") and fold["left through w, %"] != none["left through w, %"]
    assert 50 < float(fold["MiB"]) < 4000 and none["seconds"] == "0"


def test_ahead_is_who_is_better_by_whole_intervals() -> None:
    def row(feature: str, method: str, removed: float, moved: float) -> dict[str, Any]:
        ends = {"residual_rate/removed": removed, "collateral/mean_absolute_change": moved}
        return dict(feature=feature, method=method, estimates={key: dict(value=at, low=at - 1, high=at + 1) for key, at in ends.items()})

    rows = [row("hat", "none", 0, 0), row("hat", "edit", 90, 5), row("hat", "fold", 80, 9), row("hat", "moon", 89, 3), row("beard", "edit", 90, 5)]
    rows += [row("beard", "fold", 80, 6), dict(feature="beard", method="moon", died="of it")]
    lines = list(compare_methods.ahead(rows))
    assert lines[2:] == ["| fold | 2 | beard, hat | hat | hat |", "| moon | 1 | - | - | - |"]
    assert list(compare_methods.ahead(rows[:1])) == []


def test_the_plot_is_there(out: Path) -> None:
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (out / "frontier.svg").read_text()


def test_rows_that_are_done_are_kept_and_those_that_died_are_made_again(out: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def made(work: compare_row.Work) -> dict[str, Any]:
        asked.append(work.method)
        return dict(feature=work.feature, method=work.method, died="of a full memory")

    monkeypatch.setattr(compare_methods, "made", made)
    monkeypatch.setattr(compare_plot, "draw", lambda rows, path: [])  # Takes longer than all else here.
    before = rows_of(out)
    for _ in range(2):
        with (out / "rows.jsonl").open("a") as file:
            file.write('{"feature": "glow", "method": "unle')  # Killed while it wrote.
        result = run(*files, "--methods=none,fold:quantile=0.3,edit", f"--out={out}", "--access=z,w", "--resume")
        assert result.exit_code == 0 and "| glow | edit | died: of a full memory |" in result.output, result.output
    assert asked == ["edit", "edit"] and rows_of(out)[:2] == before


@pytest.mark.parametrize(("more", "refusal"), [([], "give --resume to go on"), (["--resume", "--seed=1"], "made with other settings")])
def test_rows_are_never_mixed(out: Path, files: list[str], more: list[str], refusal: str) -> None:
    result = run(*files, "--methods=none", f"--out={out}", "--access=z,w", *more)
    assert result.exit_code == 1 and refusal in result.output


def test_a_row_that_is_killed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho so far so good >&2\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    work = compare_row.Work("n", "f", "edit", None, None, 1, 1, 1, None, ("z",), 0, "cpu")
    assert compare_methods.made(work)["died"] == "killed by signal 9, 9 is what a full memory gives; so far so good"


@pytest.mark.parametrize(
    ("rates", "told"), [([5, 6, 7, 8], "0"), ([0, 5, 6, 8], "1"), ([0, 1, 2, 6], "3 to 5"), ([0, 1, 2, 3], "> 5"), ([0, 6, 1, 1], "1")]
)
def test_relearning_costs_the_steps_until_half_of_the_rate_is_back(rates: list[float], told: str) -> None:
    points = {str(cost): dict(value=rate) for cost, rate in zip((0, 1, 2, 5), rates, strict=True)}
    estimates = {"residual_rate/rate_before": dict(value=90.0)}  # Of one judge, on other images.
    row = {"relearn": {"points": points}, "relearn_before": dict(value=10.0), "estimates": estimates}
    assert compare_methods.relearned(row) == told


def test_half_of_what_comes_back_is_of_what_the_same_judges_saw_in_the_same_images(out: Path) -> None:
    """The first row is the original itself: its curve starts where it was."""
    none, fold = rows_of(out)[:2]
    start = none["relearn"]["points"]["0"]
    assert none["relearn_before"] == fold["relearn_before"] and none["relearn_before"]["value"] > 0
    assert {key: none["relearn_before"][key] for key in start} == start


def test_a_budget_is_shared_by_the_stages_of_a_method() -> None:
    assert compare_row.budgets("adapt_unlearn", 8.0) == {"kimg": 5.0, "adapt_kimg": 3.0}
    assert compare_row.budgets("unlearn", 8.0) == {"kimg": 8.0} and compare_row.budgets("fold", 8.0) == {} == compare_row.budgets("edit", None)


def test_the_frontier_is_whoever_no_other_beats_at_both() -> None:
    values = {"none": (0, 0), "mild": (1, 50), "worse": (2, 40), "strong": (3, 99), "same": (3, 99), "costly": (4, 99)}
    points = {name: np.array([[x] * 3, [y] * 3], float) for name, (x, y) in values.items()}
    assert compare_plot.frontier(points) == ["none", "mild", "strong", "same"]


def test_names_in_the_plot_cover_nothing(tmp_path: Path) -> None:
    figures = [(0, 0), (0.5, 50), (0.51, 51), (0.52, 50), (0.5, 52), (3, 99.95), (3, 99.96), (8, 100)]
    rows = [
        {
            "feature": "glow",
            "method": f"a-method-of-some-length-{k}",
            "estimates": {
                "collateral/mean_absolute_change": dict(value=x, low=x - min(x, 0.1), high=x + 0.1),
                "residual_rate/removed": dict(value=y, low=y - 1, high=min(y + 1, 100)),
            },
        }
        for k, (x, y) in enumerate(figures)
    ]
    labels: list[Any] = []
    placed = compare_plot._text_box
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_plot, "_text_box", lambda told, renderer: labels.append((told.get_text(), placed(told, renderer))) or labels[-1][1])
        compare_plot.draw(rows, tmp_path / "frontier")
    last = list(dict(labels).values())
    assert len(last) == len(figures) and not any(one.overlaps(other) for k, one in enumerate(last) for other in last[:k])


def test_every_method_that_suppresses_an_attribute_has_a_row() -> None:
    rows = compare_row.rows_there()
    assert rows[0] == "none" and {"edit", "fold", "mapping", "unlearn"} <= set(rows) and "substitute_class" not in rows


def test_the_filter_draws_only_what_passes_and_leaves_that_as_it_was() -> None:
    G = tiny_run.generator()
    normal = torch.randn(8, generator=torch.Generator().manual_seed(1))
    accepted = lambda w: w @ normal < 0  # noqa: E731
    plain, filtered = sample_w(G, range(100)), sample_w(compare_row.Filtered(G, accepted), range(100))
    passed = accepted(plain)
    assert 10 < int(passed.sum()) < 90 and bool(accepted(filtered).all())
    assert torch.equal(filtered[passed], plain[passed])
    alone = torch.cat([sample_w(compare_row.Filtered(G, accepted), [seed]) for seed in range(100)])
    torch.testing.assert_close(alone, filtered)  # Whoever else is in the batch.
    with pytest.raises(RedactError, match="take a larger quantile"), torch.no_grad():
        compare_row.Filtered(G, lambda w: w[:, 0] > 1e9).mapping(sample_z([0], 8), None)
