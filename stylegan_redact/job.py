# SPDX-License-Identifier: Apache-2.0
"""The main job: a request is checked and becomes a plan, a plan is carried out and leaves a run directory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import api, class_requests, delta, evaluation, network_files, pictures, plugins, run_dir, running, snapshots, steering
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.features.whole_class import WholeClass
from stylegan_redact.labels import Labels, class_feature, of_class
from stylegan_redact.measuring import Measurement
from stylegan_redact.network import seed_range, span
from stylegan_redact.network_files import DecoderFile, NetworkFile
from stylegan_redact.pickles import Snapshot
from stylegan_redact.precision import Precision, no_shortcuts
from stylegan_redact.progress import Progress, time_text
from stylegan_redact.types import Detector, Estimate, Feature, Network, RedactError
from stylegan_redact.version import VERSION

METHODS = "stylegan_redact.methods"
SEEDS_PER_RUN = 10_000_000
"""--seed=0 labels seeds from 0 and is measured on seeds from 5,000,000; --seed=1 starts ten million later, and so on."""
MOST_SEEDS = SEEDS_PER_RUN // 2
LARGEST_SEED = 2**32 // SEEDS_PER_RUN - 1
_PIXELS_AT_A_TIME = {"cpu": 1 << 20, "cuda": 1 << 23}


@dataclass(frozen=True)
class Request:
    """What the command line says."""

    network: str
    feature: str
    outdir: str = "redact-runs"
    method: str = "edit"
    method_options: Mapping[str, Any] | None = None
    classifier: str | None = None
    judge: str | None = None
    keep: tuple[str, ...] = ()
    seed: int = 0
    batch_gpu: int | None = None
    num_images: int = 10_000
    num_latents: int = 6_000
    access: tuple[str, ...] = ("z",)
    device: str = "auto"
    classes: str | None = None
    """--class: which class of a conditional network, or all."""
    trust_source: tuple[str, ...] = ()
    decoder: str | None = None
    resume: str | None = None
    """latest, or a run directory."""
    checkpoint_every: float = 60.0
    """Seconds."""
    snap: int | None = None
    """Thousands of images between snapshots."""
    delta: bool = True


@dataclass(frozen=True)
class Plan:
    """A request that can be met, with all that was read to find out. Nothing has been written so far."""

    request: Request
    file: NetworkFile | DecoderFile
    network: Network
    feature: str
    keep: tuple[str, ...]
    detector: Detector
    judge: Detector
    classifiers: Mapping[str, Any]
    """Which detector and which judge, for the records."""
    method: Any
    device: torch.device
    batch: int
    labelled_seeds: range
    measured_seeds: range
    labels: Labels | None
    """Which classes are labelled and measured; None: the network is unconditional, or the feature is a whole class."""
    class_index: int | None
    """The class that is the feature, where it is a whole class."""
    precision: Precision


def prepare(request: Request) -> Plan:
    """Reads and checks all that the request names.

    Raises:
        RedactError: something is missing, damaged, unknown, out of its range, or would measure itself.
    """
    method = plugins.build(plugins.load(METHODS, request.method), request.method_options or {})
    device = device_of(request.device)
    no_shortcuts(device)
    run_dir.check_outdir(request.outdir)
    file, network = network_files.load(request.network, request.decoder, device, request.trust_source)
    G: Any = network.G_ema
    network_files.check_access(G, request.access)
    class_index = class_feature(request.feature, G.c_dim, file.name)
    class_requests.check(
        request.feature, request.method, method, {"--class": request.classes, "--keep": request.keep, "--classifier": request.classifier}
    )
    labels = of_class(request.classes, G.c_dim, file.name) if class_index is None else None
    feature = request.feature
    if class_index is not None:
        detector, judge, classifiers = class_requests.judge_of(request.judge, feature, G, device)
    else:
        detector, judge, classifiers = steering.classifiers(
            request.feature, request.classifier, request.judge, file=file, network=network, device=device
        )
        feature = steering.attribute_name(request.feature, detector.attributes, "feature", "this network's detector")
        steering.attribute_name(feature, judge.attributes, "feature", "the judge")
    both = tuple(name for name in detector.attributes if name in judge.attributes)
    keep = tuple(steering.attribute_name(name, both, "attribute to keep", "the detector and the judge") for name in request.keep)
    if feature in keep:
        raise RedactError(f"{feature!r} was to be redacted and kept - it can be one of the two - take it out of --keep")
    batch = request.batch_gpu or default_batch(device, G.img_resolution)
    if "batch_gpu" in {each.name for each in plugins.options(type(method))}:
        method = replace(method, batch_gpu=batch)
    first = request.seed * SEEDS_PER_RUN
    return Plan(
        request, file, network, feature, keep, detector, judge, classifiers, method, device,
        batch=batch,
        labelled_seeds=seed_range(first, request.num_latents),
        measured_seeds=seed_range(first + MOST_SEEDS, request.num_images),
        labels=labels,
        class_index=class_index,
        precision=class_requests.self_test(network, labels, seed_range(first, request.num_latents), batch),
    )  # fmt: skip


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
        "seeds": {"labelled": span(plan.labelled_seeds), "measured": span(plan.measured_seeds)},
        "versions": {"stylegan-redact": VERSION, "torch": torch.__version__},
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
        **network_files.origin(plan.file, plan.network, plan.request.decoder),
    }
    if plan.labels is not None:
        record["class"] = plan.request.classes
    if plan.request.trust_source:
        record["trusted_sources"] = [sha256.lower() for sha256 in plan.request.trust_source]
    return record | ({"earlier": plan.file.snapshot.redaction} if plan.file.snapshot.redaction is not None else {})


def carry_out(plan: Plan, progress: Progress) -> Path:
    """Labels, redacts, measures and writes.

    Returns:
        The run directory, finished: redaction.json is written last.

    Raises:
        RedactError: the feature is too rare or too common, a method that finds no way, or a disk that is full.
        Ended:       a signal came; the run can be resumed.
    """
    request, name = plan.request, f"redact-{plan.feature}-{plan.file.name}-{plan.request.method}"
    ending, options = network_files.result_path(Path(), plan.file).suffix, resolved(plan)
    with running.running(
        request.resume, request.outdir, name, options=options, every=request.checkpoint_every, ending=ending, progress=progress
    ) as run:
        _carry_out(plan, run, progress)
    return run.folder


def _carry_out(plan: Plan, run: running.Run, progress: Progress) -> None:
    if plan.precision.told is not None:
        progress.tell(plan.precision.told)
    for line in network_files.notes(plan.file.snapshot, plan.network):
        progress.tell(line)
    feature = _label(plan, progress)
    assert feature.latents is not None
    G: Any = plan.network.G_ema
    layout = pictures.choose(feature.latents, G.img_resolution)
    labels = pictures.labels_of(feature.latents, layout.seeds)
    run.save = functools.partial(_save_unfinished, plan)
    if plan.request.snap is not None:
        run.checkpoints.observe = snapshots.of_run(plan.request.snap, run, functools.partial(_draw, plan, layout, labels), progress)
    after = api.redact(plan.network, feature, plan.method, keep=plan.keep, seed=plan.request.seed, progress=progress)
    img_before, img_after = pictures.draw(plan.network, after, layout.seeds, batch=plan.batch, c=labels)
    pictures.save(img_before, img_after, layout.columns, run.folder)
    estimates = _measure(plan, after, run, progress)
    dropped = network_files.save(after, network_files.result_path(run.folder, plan.file), plan.file, provenance(plan))
    if dropped:
        progress.tell(f"Left out of the new pickle, since it may be private: {', '.join(dropped)}")
    if plan.request.delta and isinstance(plan.file.snapshot, Snapshot):
        delta.write(after, plan.file.snapshot, run.folder / delta.NAME, provenance(plan), estimates)
    _conclude(plan, run.folder, estimates, layout, dropped, progress)


def _save_unfinished(plan: Plan, network: Network, path: Path, told: str) -> None:
    network_files.save(network, path, plan.file, provenance(plan) | {"unfinished": told})


def _draw(plan: Plan, layout: pictures.Layout, labels: torch.Tensor | None, network: Network, path: Path) -> None:
    pictures.save_one(network, layout, path, batch=plan.batch, c=labels)


def _label(plan: Plan, progress: Progress) -> Feature:
    source: Any = Attribute(plan.feature, plan.detector, plan.labels, plan.precision.half)
    if plan.class_index is not None:
        source = WholeClass(plan.class_index)
    return source.gather(plan.network, plan.labelled_seeds, batch=plan.batch, progress=progress)


def _measure(plan: Plan, after: Network, run: running.Run, progress: Progress) -> dict[str, Estimate]:
    half = plan.precision.half and class_requests.self_test(after, plan.labels, plan.labelled_seeds, plan.batch).half
    if plan.precision.half and not half:
        progress.tell("The redacted network does not draw the same in float16: images are measured in float32")
    labels = plan.labels if plan.class_index is None else Labels(plan.network.G_ema.c_dim, (plan.class_index,))
    return Measurement(
        plan.network, after, plan.judge, plan.feature, plan.keep, plan.measured_seeds, plan.request.access, plan.batch,
        labels=labels, whole_class=plan.class_index is not None, half=half, store=run.pairs,
    ).estimates(progress)  # fmt: skip


def _conclude(
    plan: Plan, folder: Path, estimates: dict[str, Estimate], layout: pictures.Layout, dropped: tuple[str, ...], progress: Progress
) -> None:
    measurable = tuple(target for target in evaluation.TARGETS if target.key in estimates and estimates[target.key].n > 0)
    if plan.class_index is not None:  # The targets are of attributes; of a class as much is left as the judge sees in its substitute.
        measurable = ()
    verdicts = evaluation.check(estimates, measurable)
    progress.tell("\n" + evaluation.render(estimates, plan.feature) + "\n" + evaluation.render_targets(verdicts))
    if plan.class_index is not None:
        progress.tell(evaluation.leak(plan.feature, estimates))
    elif len(measurable) < len(evaluation.TARGETS):
        missing = ", ".join(target.text for target in evaluation.TARGETS if target not in measurable)
        progress.tell(f"Not measured, since there is no such attribute or image: {missing}")
    record = {
        "provenance": provenance(plan),
        "dropped": dropped,
        "judge": plan.classifiers["judge"],
        "network_redacted_sha256": network_files.sha256_of(network_files.result_path(folder, plan.file)),
        "estimates": evaluation.as_json(estimates),
        "targets": [{**asdict(each.target), "met": each.met} for each in verdicts],
        "all_targets_met": all(each.met for each in verdicts) if verdicts else None,
        "seeds": resolved(plan)["seeds"],
        "pictures": {**asdict(layout), "diff": f"|after - before| times {pictures.AMPLIFIED}", "amplified": pictures.AMPLIFIED},
        "seconds": round(progress.seconds, 1),
    }
    met = sum(each.met for each in verdicts)
    told = f"{met} of {len(verdicts)} targets met" if verdicts else "No target applies"
    progress.tell(f"{told}, {time_text(progress.seconds)} in all.\n{network_files.result_path(folder, plan.file)}")
    run_dir.write_json(folder / "redaction.json", record)


def default_batch(device: torch.device, img_resolution: int) -> int:
    """Images at a time that fit comfortably."""
    return max(1, min(64, _PIXELS_AT_A_TIME[device.type] // img_resolution**2))


def device_of(name: str) -> torch.device:
    """What --device means: auto is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RedactError("--device=cuda was asked - torch sees no CUDA device - use --device=cpu, or a torch built for your GPU")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
