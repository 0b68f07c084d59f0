# SPDX-License-Identifier: Apache-2.0
"""What each method removes, what else it moves, what it takes to undo it, and what it costs: a table, and a plot of the frontier.

    python -m benchmarks.compare_methods --features=beard,eyeglasses,hat,smile
    python -m benchmarks.compare_methods --network=ffhq.pkl --classifier=detector.pt --judge=judge.pt --features=beard --methods=edit,fold

from the top folder of the repository. All rows share the network, the labelled latents, the fresh seeds and the judge, which steered nothing. Without
`--methods` there is a row for each file of `methods/` that suppresses an attribute, one for the network as it is (`none`) and one for a sampler that
rejects latents (`filter`). A method may carry options, `edit:hold=0:still=0`, to see what they are good for. docs/comparison.md says how each column
is measured.

    OUT/rows.jsonl                    settings, then a line for each row as it is done; --resume goes on from there
    OUT/table.md                      what the terminal showed: all rows, and where the default is ahead of which
    OUT/frontier.svg, frontier.png    removed against collateral, with intervals
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import compare_plot
from benchmarks.compare_row import NONE, Work, rows_there
from stylegan_redact import evaluation, network_files, run_dir
from stylegan_redact.cli import DEFAULT_METHOD
from stylegan_redact.types import RedactError
from stylegan_redact.version import VERSION

ROOT = Path(__file__).parents[1]
ROWS = "rows.jsonl"
Row = Mapping[str, Any]

COLUMNS: Mapping[str, tuple[str, str]] = {
    "removed, %": ("residual_rate/removed", ".2f"),
    "others, points": ("collateral/mean_absolute_change", ".2f"),
    "rarest loss, %": ("collateral/largest_rare_loss", ".1f"),
    "fd-D": ("quality/fd-D_unbiased_after", ".3g"),
    "L1 feature-free": ("image_change/l1_feature_free", ".4f"),
}
"""Heading -> estimate and the form of its numbers."""


def table(rows: Sequence[Row], access: Sequence[str]) -> Iterator[str]:
    """Lines of Markdown: a row for each feature and method."""
    ways = [way for way in access if way != "z"]
    headings = ["feature", "method", *COLUMNS]
    headings[3:3] = ["left at most, %"] + [f"left through {way}, %" for way in ways]
    headings.insert(headings.index("others, points") + 1, "worst other")
    headings += ["W+ attack, %", "relearned after", "seconds", "of CPU", "MiB"]
    yield "| " + " | ".join(headings) + " |"
    yield "|---" * len(headings) + "|"
    for row in rows:
        yield line(row, ways, len(headings))


def line(row: Row, ways: Sequence[str], width: int) -> str:
    """One row of the table."""
    start = f"| {row['feature']} | {row['method']} | "
    if "died" in row:
        return start + f"died: {row['died']} |" + " |" * (width - 3)
    estimates = row["estimates"]
    cells = {heading: interval(estimates.get(key), form) for heading, (key, form) in COLUMNS.items()}
    removed, others, *rest = cells.values()
    left = [interval(estimates.get(f"{way}_residual_rate/rate_after"), ".2f") for way in ways]
    bound = f"{estimates['residual_rate/rate_after']['high']:.2f}"
    attack = interval(last_point(row["w_plus"]), ".0f") if "w_plus" in row else "-"
    numbers = [attack, relearned(row), f"{row['seconds']:.0f}", f"{row['cpu_seconds']:.0f}", f"{row['peak_memory_mib']:.0f}"]
    return start + " | ".join([removed, bound, *left, others, worst_other(estimates), *rest, *numbers]) + " |"


def interval(estimate: Mapping[str, Any] | None, form: str) -> str:
    """value (low to high), "?" for an end that is not finite; a dash for what was not measured or has no value."""
    if estimate is None or estimate["value"] is None:
        return "-"
    low, high = ("?" if estimate[end] is None else format(estimate[end], form) for end in ("low", "high"))
    return f"{estimate['value']:{form}} ({low} to {high})"


def worst_other(estimates: Mapping[str, Any]) -> str:
    """The other attribute whose rate moved farthest, its change in points with the interval of it alone, and its name."""
    changes = {key.split("/")[1]: value for key, value in estimates.items() if key.startswith("collateral/") and key.endswith("/change")}
    if not changes:
        return "-"
    name = max(changes, key=lambda each: abs(changes[each]["value"]))
    return f"{interval(changes[name], '+.2f')} {name}"


def last_point(curve: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of an attack: its success at the full budget."""
    return curve["points"][max(curve["points"], key=int)]


def relearned(row: Row) -> str:
    """The steps of fine-tuning by which half of the original's rate was back: "6 to 10" if it was looked at after 5 and 10; "> 50" for not at all."""
    half, latest = row["relearn_before"]["value"] / 2, -1
    for cost in sorted(map(int, row["relearn"]["points"])):
        if row["relearn"]["points"][str(cost)]["value"] >= half:
            return str(cost) if latest + 1 >= cost else f"{latest + 1} to {cost}"
        latest = cost
    return f"> {latest}"


def ahead(rows: Sequence[Row], leader: str = DEFAULT_METHOD) -> Iterator[str]:
    """Lines of Markdown: for each other method, on which features the leader's whole interval is better than its whole interval."""
    found = {(row["feature"], row["method"]): row["estimates"] for row in rows if "estimates" in row}
    features = [feature for feature, method in found if method == leader]
    others = dict.fromkeys(method for _, method in found if method not in (leader, NONE))
    if not features or not others:
        return
    (removed, _), (moved, _) = COLUMNS["removed, %"], COLUMNS["others, points"]
    yield f"| {leader} against | features | removes more | moves others less | both |"
    yield "|---|---|---|---|---|"
    for method in others:
        there = [feature for feature in features if (feature, method) in found]
        more = {each for each in there if found[each, leader][removed]["low"] > found[each, method][removed]["high"]}
        less = {each for each in there if found[each, leader][moved]["high"] < found[each, method][moved]["low"]}
        yield f"| {method} | {len(there)} | " + " | ".join(", ".join(sorted(each)) or "-" for each in (more, less, more & less)) + " |"


def made(work: Work) -> dict[str, Any]:
    """The row, measured in a process of its own; of one that dies the reason."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "benchmarks.compare_row"]
    done = subprocess.run(command, input=json.dumps(asdict(work)), capture_output=True, text=True, env=env)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    killed = f"killed by signal {-done.returncode}, 9 is what a full memory gives; " if done.returncode < 0 else ""
    return dict(feature=work.feature, method=work.method, died=f"{killed}{lines[-1].removeprefix('Error: ')[:300]}")


def settings_of(work: Work) -> dict[str, Any]:
    """All that rows of one file have in common."""
    files = {"network": str(network_files.locate(work.network)), "classifier": work.classifier, "judge": work.judge}
    hashes = {role: None if path is None else network_files.sha256_of(Path(path)) for role, path in files.items()}
    common = {key: value for key, value in asdict(work).items() if key not in ("feature", "method", *files)}
    return run_dir.strict({**common, "sha256": hashes, "versions": {"stylegan-redact": VERSION, "torch": torch.__version__}})


def opened(path: Path, settings: Mapping[str, Any], resume: bool) -> list[dict[str, Any]]:
    """The rows that are done, of a file that is begun if it is not there. Rows that died and a last line that is not whole are taken out of it.

    Raises:
        RedactError: there are rows that nobody wants to go on from, or of other settings.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        run_dir.append_text(path, json.dumps({"settings": settings}) + "\n")
        return []
    if not resume:
        raise RedactError(f"rows were to go to {path} - there are some - give --resume to go on, or another --out")
    whole = [text for text in path.read_text(encoding="utf-8").splitlines(keepends=True) if text.endswith("\n")]
    first, *rows = [json.loads(text) for text in whole] or [{}]
    if first.get("settings") != settings:
        raise RedactError(f"{path} was to be gone on with - its rows were made with other settings or versions - give those, or another --out")
    rows = [row for row in rows if "died" not in row]
    run_dir.write_text(path, "".join(json.dumps(each) + "\n" for each in [first, *rows]))
    return rows


def compare(works: Sequence[Work], out: Path, resume: bool) -> None:
    """Rows that are not done yet; table and plot of all."""
    path = out / ROWS
    there = {(row["feature"], row["method"]): row for row in opened(path, settings_of(works[0]), resume)}
    rows: list[Row] = []
    heading = list(table([], works[0].access))
    click.echo("\n".join(heading))
    for work in works:
        row = there.get((work.feature, work.method))
        if row is None:
            row = made(work)
            run_dir.append_text(path, json.dumps(row) + "\n")
        rows.append(row)
        click.echo(list(table([row], work.access))[-1])
    summary = ["", *ahead(rows)]
    click.echo("\n".join(summary))
    run_dir.write_text(out / "table.md", "\n".join([*table(rows, works[0].access), *summary]) + "\n")
    for figure in compare_plot.draw(rows, out / "frontier"):
        click.echo(str(figure))


@click.command()
@click.option("--network", default="portraits64", show_default=True, help="Name of a bundled network, path or URL.")
@click.option("--classifier", help="TorchScript that steers; not needed for the bundled network.")
@click.option("--judge", help="TorchScript that measures; not needed for the bundled network.")
@click.option("--features", default="beard,eyeglasses,hat,smile", show_default=True)
@click.option("--methods", help="NAME[:OPTION=VALUE...],...; all that there are if not given.")
@click.option("--num-images", default=10_000, show_default=True, help="Fresh seeds to measure on.")
@click.option("--num-latents", default=6_000, show_default=True, help="Seeds to label.")
@click.option("--starts", default=64, show_default=True, help="Starting points of the attack in W+.")
@click.option("--kimg", type=float, help="Thousands of images for every method that trains on images; each method's default if not given.")
@click.option("--access", default="z", show_default=True, help=f"Ways in, of {', '.join(evaluation.ACCESSES)}; of others than z only what is left.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Keep the rows that --out holds already.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("redact-runs/comparison"), show_default=True)
def main(features: str, methods: str | None, access: str, resume: bool, out: Path, **common: Any) -> None:
    """Redact by each method, measure and attack, print a table, draw a plot."""
    names = methods.split(",") if methods is not None else rows_there()
    works = [Work(feature=feature, method=name, access=tuple(access.split(",")), **common) for feature in features.split(",") for name in names]
    try:
        compare(works, out, resume)
    except RedactError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
