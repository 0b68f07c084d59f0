# SPDX-License-Identifier: Apache-2.0
"""The main job: a request is checked and becomes a plan, a plan is carried out and leaves a run directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import api, class_requests, detectors, evaluation, meant, network_files, pictures, plugins, report, run_dir
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.features.whole_class import WholeClass
from stylegan_redact.labels import Labels, class_feature, of_class
from stylegan_redact.measuring import Measurement
from stylegan_redact.network import load_network, save_network, seed_range, span
from stylegan_redact.network_files import NetworkFile
from stylegan_redact.precision import Precision, no_shortcuts
from stylegan_redact.progress import Progress, time_text
from stylegan_redact.types import Detector, Estimate, Feature, Network, RedactError
from stylegan_redact.version import VERSION

METHODS = "stylegan_redact.methods"
SEEDS_PER_RUN = 10_000_000
"""--seed=0 labels seeds from 0 and is measured on seeds from 5,000,000; --seed=1 starts ten million later, and so on."""
MOST_SEEDS = SEEDS_PER_RUN // 2
LARGEST_SEED = 2**32 // SEEDS_PER_RUN - 1


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


@dataclass(frozen=True)
class Plan:
    """A request that can be met, with all that was read to find out. Nothing has been written so far."""

    request: Request
    file: NetworkFile
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
    device = meant.device_of(request.device)
    no_shortcuts(device)
    run_dir.check_outdir(request.outdir)
    file = network_files.find_network(request.network)
    network = load_network(file.snapshot, device, trust_source=request.trust_source)
    G: Any = network.G_ema
    class_index = class_feature(request.feature, G.c_dim, file.name)
    class_requests.check(
        request.feature, request.method, method, {"--class": request.classes, "--keep": request.keep, "--classifier": request.classifier}
    )
    labels = of_class(request.classes, G.c_dim, file.name) if class_index is None else None
    feature = request.feature
    if class_index is not None:
        detector, judge, classifiers = class_requests.judge_of(request.judge, feature, G, device)
    else:
        detector, judge, classifiers = _classifiers(request, file, network, device)
        feature = meant.attribute_name(request.feature, detector.attributes, "feature", "this network's detector")
        meant.attribute_name(feature, judge.attributes, "feature", "the judge")
    both = tuple(name for name in detector.attributes if name in judge.attributes)
    keep = tuple(meant.attribute_name(name, both, "attribute to keep", "the detector and the judge") for name in request.keep)
    if feature in keep:
        raise RedactError(f"{feature!r} was to be redacted and kept - it can be one of the two - take it out of --keep")
    batch = request.batch_gpu or meant.default_batch(device, G.img_resolution)
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
        "network_sha256": plan.file.snapshot.sha256,
    }
    if plan.labels is not None:
        record["class"] = plan.request.classes
    if plan.request.trust_source:
        record["trusted_sources"] = [sha256.lower() for sha256 in plan.request.trust_source]
    if plan.network.D is None:
        record["discriminator"] = "not known here, so that it did not judge how real the result is"
    if plan.file.snapshot.converted_from is not None:
        record["converted_from"] = plan.file.snapshot.converted_from
    return record | ({"earlier": plan.file.snapshot.redaction} if plan.file.snapshot.redaction is not None else {})


def carry_out(plan: Plan, progress: Progress) -> Path:
    """Labels, redacts, measures and writes.

    Returns:
        The run directory, finished: redaction.json is written last.

    Raises:
        RedactError: the feature is too rare or too common, a method that finds no way, or a disk that is full.
    """
    if plan.precision.told is not None:
        progress.tell(plan.precision.told)
    feature = _label(plan, progress)
    assert feature.latents is not None
    G: Any = plan.network.G_ema
    layout = pictures.choose(feature.latents, G.img_resolution)
    folder = run_dir.make_run_dir(plan.request.outdir, f"redact-{plan.feature}-{plan.file.name}-{plan.request.method}")
    progress.keep_in(folder)
    progress.tell(f"Results go to {folder}")
    for line in network_files.notes(plan.file.snapshot, plan.network):
        progress.tell(line)
    run_dir.write_json(folder / "options.json", resolved(plan))
    after = api.redact(plan.network, feature, plan.method, keep=plan.keep, seed=plan.request.seed, progress=progress)
    img_before, img_after = pictures.draw(plan.network, after, layout.seeds, batch=plan.batch, c=pictures.labels_of(feature.latents, layout.seeds))
    pictures.save(img_before, img_after, layout.columns, folder)
    estimates, pairs = _measure(plan, after, progress)
    shown = _shown(plan, after, pairs)
    dropped = save_network(after, folder / "network-redacted.pkl", original=plan.file.snapshot, record=provenance(plan))
    if dropped:
        progress.tell(f"Left out of the new pickle, since it may be private: {', '.join(dropped)}")
    _conclude(plan, folder, estimates, layout, shown, dropped, progress)
    return folder


def _label(plan: Plan, progress: Progress) -> Feature:
    source: Any = Attribute(plan.feature, plan.detector, plan.labels, plan.precision.half)
    if plan.class_index is not None:
        source = WholeClass(plan.class_index)
    return source.gather(plan.network, plan.labelled_seeds, batch=plan.batch, progress=progress)


def _measure(plan: Plan, after: Network, progress: Progress) -> tuple[dict[str, Estimate], evaluation.PairedImages]:
    half = plan.precision.half and class_requests.self_test(after, plan.labels, plan.labelled_seeds, plan.batch).half
    if plan.precision.half and not half:
        progress.tell("The redacted network does not draw the same in float16: images are measured in float32")
    return Measurement(
        plan.network, after, plan.judge, plan.feature, plan.keep, plan.measured_seeds, plan.request.access, plan.batch,
        labels=_measured_labels(plan), whole_class=plan.class_index is not None, half=half,
    ).answers(progress)  # fmt: skip


def _measured_labels(plan: Plan) -> Labels | None:
    return plan.labels if plan.class_index is None else Labels(plan.network.G_ema.c_dim, (plan.class_index,))


def _shown(plan: Plan, after: Network, pairs: evaluation.PairedImages) -> list[report.Pair]:
    """What the report shows."""
    return report.illustrate(plan.network, after, pairs, plan.feature, batch=plan.batch, labels=_measured_labels(plan))


def _report(plan: Plan, folder: Path, record: Mapping[str, Any], shown: list[report.Pair]) -> None:
    """report.html and README.md, which say nothing that is not in the records."""
    told = plugins.record(plan.method)
    again = report.command(plan.request, given={name: told[name] for name in plan.request.method_options or {}})
    check = report.check_command(plan.request, plan.feature, plan.keep) if plan.class_index is None else None
    facts = report.of_redaction(run_dir.strict(record), run_dir.strict(resolved(plan)), [again, *([check] if check else [])])
    report.write_page(folder, facts, shown)
    report.write_card(folder, facts, bundled=plan.file.bundled is not None)


def _conclude(
    plan: Plan,
    folder: Path,
    estimates: dict[str, Estimate],
    layout: pictures.Layout,
    shown: list[report.Pair],
    dropped: tuple[str, ...],
    progress: Progress,
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
        "network_redacted_sha256": network_files.sha256_of(folder / "network-redacted.pkl"),
        "estimates": evaluation.as_json(estimates),
        "targets": [{**asdict(each.target), "met": each.met} for each in verdicts],
        "all_targets_met": all(each.met for each in verdicts) if verdicts else None,
        "seeds": resolved(plan)["seeds"],
        "pictures": {**asdict(layout), "diff": f"|after - before| times {pictures.AMPLIFIED}", "amplified": pictures.AMPLIFIED},
        "seconds": round(progress.seconds, 1),
    }
    met = sum(each.met for each in verdicts)
    _report(plan, folder, record, shown)
    told = f"{met} of {len(verdicts)} targets met" if verdicts else "No target applies"
    progress.tell(f"{told}, {time_text(progress.seconds)} in all.\n{folder / 'network-redacted.pkl'}")
    run_dir.write_json(folder / "redaction.json", record)


def _classifiers(request: Request, file: NetworkFile, network: Network, device: torch.device) -> tuple[Detector, Detector, dict[str, Any]]:
    """The detector that steers, the judge that measures, and what the records say of them."""
    loaded: list[Any]
    if request.classifier is None and request.judge is None:
        if file.bundled is None:
            raise RedactError(
                f"{request.feature!r} was to be found in {file.name} - classifiers come only with: {', '.join(network_files.bundled()) or 'none'} - "
                "give --classifier=FILE and --judge=FILE, TorchScript: images [n, C, H, W] in [-1, 1] -> one logit each"
            )
        told = {role: {"bundled": file.bundled, "role": role} for role in ("detector", "judge")}
        loaded = [detectors.load_bundled(role, device) for role in told]
        return loaded[0], loaded[1], told
    if request.classifier is None or request.judge is None:
        given, other = ("--judge", "--classifier") if request.classifier is None else ("--classifier", "--judge")
        raise RedactError(f"{given} was given without {other} - what steers a redaction must not be what measures it - give both")
    paths = {"detector": Path(request.classifier), "judge": Path(request.judge)}
    sha256 = {role: network_files.sha256_of(path) for role, path in paths.items()}
    if sha256["detector"] == sha256["judge"]:
        raise RedactError("--classifier and --judge are the same file - what steers must not be what measures - train a second one on other data")
    G: Any = network.G_ema
    shape = (G.img_channels, G.img_resolution, G.img_resolution)
    loaded = [detectors.load_torchscript(path, request.feature, shape, device) for path in paths.values()]
    return loaded[0], loaded[1], {role: {"torchscript_sha256": digest} for role, digest in sha256.items()}
