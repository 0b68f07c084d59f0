# SPDX-License-Identifier: Apache-2.0
"""The main job: a request is checked and becomes a plan, a plan is carried out and leaves a run directory."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import (
    api,
    asking,
    casting,
    class_requests,
    delta,
    evaluation,
    given,
    meant,
    network_files,
    person_requests,
    pictures,
    plugins,
    prechecks,
    profiling,
    ranks,
    reporting,
    resuming,
    run_dir,
    running,
    several,
    steering,
    watching,
)
from stylegan_redact.asking import MOST_SEEDS, SEEDS_PER_RUN, Request
from stylegan_redact.labels import Labels
from stylegan_redact.measuring import Measurement
from stylegan_redact.network import seed_range, span
from stylegan_redact.network_files import DecoderFile, NetworkFile
from stylegan_redact.pickles import Snapshot
from stylegan_redact.precision import Precision, no_shortcuts
from stylegan_redact.progress import Progress, time_text
from stylegan_redact.types import Estimate, Feature, Network, RedactError
from stylegan_redact.version import VERSION


@dataclass(frozen=True, kw_only=True)
class Plan(casting.Cast):
    """A request that can be met, with all that was read to find out. Nothing has been written so far."""

    request: Request
    file: NetworkFile | DecoderFile
    network: Network
    feature: str
    """Its name; of several, all their names, sorted, with commas between them."""
    keep: tuple[str, ...]
    method: Any
    device: torch.device
    batch: int
    labelled_seeds: range
    measured_seeds: range
    precision: Precision
    looked_seeds: range = range(0)


def prepare(request: Request) -> Plan:
    """Reads and checks all that the request names.

    Raises:
        RedactError: something is missing, damaged, unknown, out of its range, or would measure itself.
    """
    method = plugins.build(plugins.load(asking.METHODS, request.method), request.method_options or {})
    device = meant.device_of(request.device)
    no_shortcuts(device)
    run_dir.check_outdir(request.outdir)
    file, network = network_files.load(request.network, request.decoder, device, request.trust_source)
    G: Any = network.G_ema
    network_files.check_access(G, request.access)
    network_files.check_size(G)
    who = casting.cast(request, method, file, network, device)
    both = tuple(name for name in who.detector.attributes if name in who.judge.attributes)
    keep = tuple(steering.attribute_name(name, both, "attribute to keep", "the detector and the judge", either=True) for name in request.keep)
    for name in set(who.features) & set(keep):
        raise RedactError(f"{name!r} was to be redacted and kept - it can be one of the two - take it out of --keep")
    batch = request.batch_gpu or meant.default_batch(device, G.img_resolution)
    if "batch_gpu" in {each.name for each in plugins.options(type(method))}:
        method = replace(method, batch_gpu=batch)
    first = request.seed * SEEDS_PER_RUN
    looked_seeds = watching.looked_seeds(request, method, who, seed_range(first, SEEDS_PER_RUN))
    for seeds in (seed_range(first + MOST_SEEDS, request.num_images), looked_seeds):
        given.check_seeds(who.brought, seeds)
    return Plan(
        **vars(who),
        request=request,
        file=file,
        network=network,
        feature=several.joint_name(who.features),
        keep=keep,
        method=method,
        device=device,
        batch=batch,
        labelled_seeds=seed_range(first, request.num_latents),
        measured_seeds=seed_range(first + MOST_SEEDS, request.num_images),
        looked_seeds=looked_seeds,
        precision=class_requests.self_test(network, who.labels, seed_range(first, request.num_latents), batch),
    )


def resolved(plan: Plan) -> dict[str, Any]:
    """Every option as it will be used, seeds and versions included; options.json."""
    return {
        **asdict(plan.request),
        "feature": plan.feature,
        "keep": plan.keep,
        "method_options": asdict(plan.method),
        "batch_gpu": plan.batch,
        "device": str(plan.device),
        "network_name": plan.file.name,
        "network_sha256": plan.file.snapshot.sha256,
        "converted_from": plan.file.snapshot.converted_from,
        "classifiers": plan.classifiers,
        "seeds": {name: span(getattr(plan, f"{name}_seeds")) for name in ("labelled", "measured", "looked") if getattr(plan, f"{name}_seeds")},
        "versions": {"stylegan-redact": VERSION, "torch": torch.__version__},
        **({} if plan.sitting is None else plan.sitting.record()),
        **({} if plan.brought is None else {"brought": dict(plan.brought.record)}),
    }


def provenance(plan: Plan) -> dict[str, Any]:
    """What goes into the pickle: all that names the result, and nothing of this machine, so that the same command gives the same bytes."""
    record = {
        "tool": "stylegan-redact",
        "version": VERSION,
        "feature": plan.feature,
        "keep": list(plan.keep),
        "method": plan.request.method,
        "options": plugins.record(plan.method),
        "seed": plan.request.seed,
        "num_latents": plan.request.num_latents,
        "detector": plan.classifiers["detector"],
        **({} if plan.brought is None else plan.brought.record),
        **network_files.origin(plan.file, plan.network, plan.request.decoder),
    }
    if plan.labels is not None:
        record["class"] = plan.request.classes
    if plan.request.trust_source:
        record["trusted_sources"] = [sha256.lower() for sha256 in plan.request.trust_source]
    return record | ({"earlier": plan.file.snapshot.redaction} if plan.file.snapshot.redaction is not None else {})


def dry_run(plan: Plan) -> str:
    """What to tell in place of carrying it out.

    Raises:
        RedactError: the run that was to be resumed cannot be.
    """
    foreseen = resuming.foreseen(plan.request.resume, plan.request.outdir, _description(plan), resolved(plan))
    return f"{foreseen}\nDry run; exiting.".lstrip()


def carry_out(plan: Plan, progress: Progress) -> Path:
    """Labels, redacts, measures and writes.

    Returns:
        The run directory, finished: redaction.json is written last.

    Raises:
        RedactError: the feature is too rare or too common, a method that finds no way, or a disk that is full.
        Ended:       a signal came; the run can be resumed.
    """
    ending = network_files.result_path(Path(), plan.file).suffix
    with running.running(plan.request, _description(plan), options=resolved(plan), ending=ending, progress=progress) as run:
        _carry_out(plan, run, progress)
    return run.folder


def _description(plan: Plan) -> str:
    return f"redact-{plan.feature}-{plan.file.name}-{plan.request.method}"


def _carry_out(plan: Plan, run: running.Run, progress: Progress) -> None:
    for line in (
        *filter(None, [plan.precision.told, network_files.scarce(plan.network, run.folder)]),
        *network_files.notes(plan.file.snapshot, plan.network),
    ):
        progress.tell(line)
    with run.profile.part(profiling.LABELLING):
        feature = _label(plan, progress)
    world = ranks.world()
    if world.rank:  # The first one writes, and asks all that is of no use to the others.
        _measure(plan, feature, world.alike(api.redact(plan.network, feature, plan.method, keep=plan.keep, seed=plan.request.seed)), run, progress)
        return
    assert feature.latents is not None
    layout = pictures.choose(feature.latents, plan.network.G_ema.img_resolution) if plan.sitting is None else None
    run.save = functools.partial(_save_unfinished, plan)
    before = prechecks.first_look(plan, feature, run.folder, progress)
    with run.profile.part(profiling.TRAINING):
        watched = watching.redact(plan, feature, layout, run, progress)
        after, made = world.alike(watched.network), {**provenance(plan), **watched.record}
    with run.profile.part(profiling.IO):
        dropped = network_files.save(after, network_files.result_path(run.folder, plan.file), plan.file, made)
    if dropped:
        progress.tell(f"Left out of the new pickle, since it may be private: {', '.join(dropped)}")
    with run.profile.part(profiling.REPORT):
        shown = _show(plan, feature, after, layout, run.folder)
    with run.profile.part(profiling.EVALUATION):
        estimates, pairs = _measure(plan, feature, after, run, progress)
    if plan.request.delta and isinstance(plan.file.snapshot, Snapshot):
        with run.profile.part(profiling.IO):
            delta.write(after, plan.file.snapshot, run.folder / run_dir.DELTA, made, estimates)
    with run.profile.part(profiling.REPORT):
        seen = {"provenance": made, "before_training": before, "pictures": shown, "dropped": dropped}
        _conclude(plan, run.folder, estimates, pairs, seen, progress)


def _save_unfinished(plan: Plan, network: Network, path: Path, told: str) -> None:
    network_files.save(network, path, plan.file, provenance(plan) | {"unfinished": told})


def _label(plan: Plan, progress: Progress) -> Feature:
    notes = () if plan.brought is None else plan.brought.notes
    for line in (f"{plan.feature} was looked for: {'; '.join(plan.tried)}",) if plan.tried else notes:
        progress.tell(line)
    return plan.gather(plan.network, plan.labelled_seeds, batch=plan.batch, half=plan.precision.half, progress=progress)


def _show(plan: Plan, feature: Feature, after: Network, layout: pictures.Layout | None, folder: Path) -> dict[str, Any]:
    """Draws before.png, after.png and diff.png; what stands where in them."""
    if plan.sitting is not None:
        return person_requests.save_pictures((plan.network, after), feature, plan.batch, folder)
    assert layout is not None and feature.latents is not None
    img = pictures.draw(plan.network, after, layout.seeds, batch=plan.batch, c=pictures.labels_of(feature.latents, layout.seeds))
    pictures.save(*img, layout.columns, folder)
    return asdict(layout)


def _measure(plan: Plan, feature: Feature, after: Network, run: running.Run, progress: Progress) -> tuple[dict[str, Estimate], list[reporting.Pair]]:
    """The figures, and what the report shows of them."""
    half = plan.precision.half and class_requests.self_test(after, plan.labels, plan.labelled_seeds, plan.batch).half
    if plan.precision.half and not half:
        progress.tell("The redacted network does not draw the same in float16: images are measured in float32")
    labels = plan.labels if plan.class_index is None else Labels(plan.network.G_ema.c_dim, (plan.class_index,))
    measurement = Measurement(
        plan.network, after, plan.judge, plan.features, plan.keep, plan.measured_seeds, plan.request.access, plan.batch,
        labels=labels, whole_class=plan.class_index is not None, half=half, store=run.pairs,
    )  # fmt: skip
    sitting, told = plan.sitting, run.profile.stepping(progress)
    estimates, pairs = measurement.answers(told) if sitting is None else person_requests.measure(measurement, feature, sitting, told)
    return estimates, reporting.shown(plan, after, pairs, labels)


def _conclude(
    plan: Plan, folder: Path, estimates: dict[str, Estimate], pairs: list[reporting.Pair], seen: dict[str, Any], progress: Progress
) -> None:
    targets = evaluation.targets_of(plan.features)
    measurable = evaluation.measurable(estimates, targets)
    if plan.class_index is not None or plan.sitting is not None:  # The targets are of attributes; a class is left as its substitute shows it.
        measurable = ()
    verdicts = evaluation.check(estimates, measurable)
    progress.tell("\n" + evaluation.render(estimates, plan.feature) + "\n" + evaluation.render_targets(verdicts))
    if plan.class_index is not None:
        progress.tell(evaluation.leak(plan.feature, estimates))
    elif plan.sitting is not None:
        progress.tell(person_requests.told(estimates))
    elif len(measurable) < len(targets):
        missing = ", ".join(target.text for target in targets if target not in measurable)
        progress.tell(f"Not measured, since there is no such attribute or image: {missing}")
    record = {
        **{key: seen[key] for key in ("provenance", "dropped", "before_training")},
        "judge": plan.classifiers["judge"],
        "network_redacted_sha256": network_files.sha256_of(network_files.result_path(folder, plan.file)),
        "estimates": evaluation.as_json(estimates),
        "targets": [{**asdict(each.target), "met": each.met} for each in verdicts],
        "all_targets_met": all(each.met for each in verdicts) if verdicts else None,
        "seeds": resolved(plan)["seeds"],
        "pictures": {**seen["pictures"], "diff": f"|after - before| times {pictures.AMPLIFIED}", "amplified": pictures.AMPLIFIED},
        "seconds": round(progress.seconds, 1),
    }
    reporting.write(plan, folder, record, resolved(plan), pairs)
    told = f"{sum(each.met for each in verdicts)} of {len(verdicts)} targets met" if verdicts else "No target applies"
    progress.tell(f"{told}, {time_text(progress.seconds)} in all.\n{network_files.result_path(folder, plan.file)}")
    run_dir.write_json(folder / "redaction.json", record)
