# SPDX-License-Identifier: Apache-2.0
"""A plan carried out: images measured, attacks made, figures and pictures written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from stylegan_redact import attacks, evaluation, ranks, report, resuming, run_dir
from stylegan_redact.evaluation import collateral
from stylegan_redact.network import seed_range
from stylegan_redact.paired_tests import Tested
from stylegan_redact.progress import Progress, time_text
from stylegan_redact.proof import attacking, sheets
from stylegan_redact.proof.pair_store import PairStore
from stylegan_redact.proof.plan import Cell, Plan, resolved, scope
from stylegan_redact.types import Estimate

PLAIN = ("const", "z")
RESIDUAL = ("residual_rate",)
MOST_FEATURES = 2_000
"""Seeds whose images' features are kept, before and after: a distance of distributions says enough with so many, and costs what drawing does."""
ESTIMATES = "evaluation.json"
LEVEL = 0.05


def carry_out(plan: Plan, progress: Progress) -> Path:
    """Measures and writes. A run that was killed is gone on with by the same command.

    Returns:
        The folder, finished: evaluation.json is written last. Of several ranks the first one has it, and makes the attacks alone; the others only
        measure their share, and get a path to nothing.
    """
    ranks.world().check_alike("options or files", {name: value for name, value in resolved(plan).items() if name != "outdir"})
    if ranks.world().rank:
        for cell in plan.cells:
            _measured(plan, cell, PairStore(Path(), progress.tell), progress)
        return Path()
    with _folder(plan) as folder:
        run_dir.sweep(folder)
        progress.keep_in(folder)
        progress.tell(f"Results go to {folder}")
        _carry_out(plan, folder, progress)
    return folder


def _carry_out(plan: Plan, folder: Path, progress: Progress) -> None:
    for line in (*plan.notes, scope(plan)):
        progress.tell(line)
    store = PairStore(folder / "pairs", progress.tell)
    estimates: dict[str, Estimate] = {}
    lines: dict[str, list[str]] = {}
    kept: tuple[evaluation.KeepVerdict, ...] = ()
    tests: dict[str, Tested] = {}
    shown: list[report.Pair] = []
    for cell in plan.cells:
        first = cell == plan.cells[0]
        pairs = _measured(plan, cell, store, progress)
        answers = _answers(plan, cell, pairs)
        for question, figures in _by_question(answers):
            lines.setdefault(question, []).append(metric_line(question, figures, plan, cell))
        estimates |= answers if first else {_heading(key, cell): value for key, value in answers.items()}
        if first:
            seen = plan.panel.of_judge(pairs)
            sheets.save(plan.before, plan.after, seen, plan.feature, folder, batch=plan.batch, labels=plan.labels, psi=cell.psi)
            shown = report.illustrate(
                plan.before, plan.after, seen, plan.feature,
                batch=plan.batch, access=cell.access, labels=plan.labels, noise_mode=cell.noise, truncation_psi=cell.psi,
            )  # fmt: skip
            tests = collateral.Collateral().tests(seen, plan.feature, plan.keep)
            kept = evaluation.keep_verdicts(seen, plan.feature, plan.keep) if plan.keep else ()
    for question, told in lines.items():
        run_dir.write_text(folder / f"metric-{question}.jsonl", "".join(f"{line}\n" for line in told))
    with ranks.alone():
        curves = _attack(plan, folder, progress) if plan.attacks else {}
    _conclude(plan, folder, estimates, tests, kept, curves, shown, progress)
    store.remove()


def _measured(plan: Plan, cell: Cell, store: PairStore, progress: Progress) -> evaluation.PairedImages:
    first = cell == plan.cells[0]
    return store.measure(
        plan.seeds_of(cell), str(cell), plan.extractor if first else None, MOST_FEATURES, progress,
        before=plan.before, after=plan.after, judge=plan.panel if first else plan.panel.judge, batch=plan.batch, access=cell.access,
        labels=plan.labels, half=plan.half, noise_mode=cell.noise, truncation_psi=cell.psi, similarity=first,
    )  # fmt: skip


def _attack(plan: Plan, folder: Path, progress: Progress) -> dict[str, dict[str, attacks.Curve]]:
    """Attack -> victim -> curve, each kept in a file of its own as soon as it is there."""
    scene = attacking.scene_of(plan.panel, plan.before, plan.labels, plan.seeds.stop, plan.batch)
    victims = attacking.victims_of(plan.before, plan.after, scene, plan.request.seed)
    pool = seed_range(plan.seeds.stop + attacking.FRESH, 100 * plan.request.attacked)
    scene = replace(scene, starts=attacks.feature_free_in_all(scene, victims, pool, plan.request.attacked))
    return attacking.run(plan.attacks, victims, scene, plan.request.seed, folder / "attacks", progress)


def metric_line(question: str, figures: Mapping[str, Estimate], plan: Plan, cell: Cell) -> str:
    """One line of JSON in the form of NVIDIA's metric-NAME.jsonl, without the time that it took: the same run gives the same bytes."""
    results = {key: estimate.value for key, estimate in figures.items()}
    line = {
        "results": results,
        "metric": question,
        "num_gpus": int(next(plan.after.G_ema.parameters()).is_cuda),
        "snapshot_pkl": Path(plan.request.after).name,
        "sampling": asdict(cell),
        "feature": plan.feature,
        "estimates": evaluation.as_json(dict(figures)),
    }
    return json.dumps(run_dir.strict(line), allow_nan=False)


def _answers(plan: Plan, cell: Cell, pairs: evaluation.PairedImages) -> dict[str, Estimate]:
    """Of the first cell everything, by both judges; of the others what is left, and of those with constant noise through z also what else moved."""
    questions = None if cell == plan.cells[0] else [*RESIDUAL, "collateral", "image_change"] if (cell.noise, cell.access) == PLAIN else RESIDUAL
    answers = evaluation.ask(plan.panel.of_judge(pairs), plan.feature, keep=plan.keep, questions=questions)
    second = plan.panel.of_second(pairs)
    if second is not None:
        answers |= {f"second_judge_{key}": value for key, value in evaluation.ask(second, plan.feature, questions=RESIDUAL).items()}
    return answers


def _by_question(answers: Mapping[str, Estimate]) -> Iterator[tuple[str, dict[str, Estimate]]]:
    for question, group in itertools.groupby(answers.items(), key=lambda item: item[0].partition("/")[0]):
        yield question, {key.partition("/")[2]: value for key, value in group}


def _heading(key: str, cell: Cell) -> str:
    question, _, figure = key.partition("/")
    return f"{question} at {cell}/{figure}"


def _verdicts(plan: Plan, cell: Cell, estimates: Mapping[str, Estimate]) -> list[evaluation.Verdict]:
    """The targets at their bounds, of one way to sample."""
    targets = evaluation.at_bounds()
    if cell != plan.cells[0]:
        targets = tuple(replace(target, key=_heading(target.key, cell)) for target in targets)
    return evaluation.check(estimates, tuple(target for target in targets if target.key in estimates and estimates[target.key].n > 0))


def _told(tests: Mapping[str, Tested]) -> list[str]:
    """What the tests of the other attributes come to, in two lines."""
    changed = [name.partition("/")[0] for name, each in tests.items() if name.endswith("/changed") and each.p_adjusted <= LEVEL]
    open_ = [name.partition("/")[0] for name, each in tests.items() if name.endswith("/within_margins") and each.p_adjusted > LEVEL]
    return [
        f"changed, by however little (McNemar, Holm, joint level 5 %): {', '.join(changed) or 'none shown'}",
        f"not shown to be within 0.5 points and 15 % of its rate: {', '.join(open_) or 'none, all are'}",
    ]


@contextmanager
def _folder(plan: Plan) -> Iterator[Path]:
    """An unfinished folder of the same options that no other process is at, or a new one; for this process alone."""
    options = run_dir.strict(json.loads(json.dumps(run_dir.strict(resolved(plan)))))
    for folder in sorted(Path(plan.request.outdir).glob("*-evaluate-*"), reverse=True):
        with resuming.locked(folder) as alone:
            if alone and run_dir.read_json(folder / resuming.OPTIONS) == options and not (folder / ESTIMATES).exists():
                yield folder
                return
    folder = run_dir.make_run_dir(plan.request.outdir, f"evaluate-{plan.feature}-{plan.files[0].name}-{plan.files[1].name}")
    with resuming.locked(folder):
        run_dir.write_json(folder / resuming.OPTIONS, options)
        yield folder


def _conclude(
    plan: Plan,
    folder: Path,
    estimates: dict[str, Estimate],
    tests: Mapping[str, Tested],
    kept: Sequence[evaluation.KeepVerdict],
    curves: dict[str, dict[str, attacks.Curve]],
    shown: list[report.Pair],
    progress: Progress,
) -> None:
    verdicts = {str(cell): _verdicts(plan, cell, estimates) for cell in plan.cells if (cell.noise, cell.access) == PLAIN}
    table = evaluation.render(estimates, plan.feature)
    for cell, found in verdicts.items():
        table += f"\ntargets, held against the worse end of the interval, at {cell}\n{evaluation.render_targets(found)}"
    table += "\n" + "\n".join(_told(tests)) + "\n"
    if kept:
        table += "\n" + evaluation.render_keep(kept)
    if curves:
        table += "\n" + attacks.render(curves) + "\n".join(attacking.remarks(curves)) + "\n"
    progress.tell("\n" + table)
    run_dir.write_text(folder / "table.txt", table)
    told = {key: value for key, value in resolved(plan).items() if key not in ("outdir", "device")}
    record = {
        **{key: report.name_of(value) if key in report.FILES and value is not None else value for key, value in told.items()},
        "scope": scope(plan),
        "estimates": evaluation.as_json(estimates),
        "targets": {cell: [{**asdict(each.target), "met": each.met} for each in found] for cell, found in verdicts.items()},
        "tests": {name: asdict(each) for name, each in tests.items()},
        "keep_verdicts": [evaluation.keep_as_json(each) for each in kept],
        "attacks": {name: {victim: attacks.as_json(curve) for victim, curve in by.items()} for name, by in curves.items()},
    }
    again = report.command(plan.request, "evaluate")
    facts = report.of_evaluation(run_dir.strict(record), run_dir.strict(resolved(plan)), [again], plan.files[0].name)
    report.write_page(folder, facts, shown)
    run_dir.write_json(folder / ESTIMATES, record)
    progress.tell(f"{time_text(progress.seconds)} in all.\n{folder / ESTIMATES}")
