# SPDX-License-Identifier: Apache-2.0
"""What a redaction's run directory has for people to read: report.html and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan_redact import evaluation, plugins, ranks, report
from stylegan_redact.labels import Labels
from stylegan_redact.report import Pair, illustrate
from stylegan_redact.run_dir import strict
from stylegan_redact.types import Network

__all__ = ["Pair", "shown", "write"]


def write(plan: Any, folder: Path, record: Mapping[str, Any], resolved: Mapping[str, Any], pairs: Sequence[Pair]) -> None:
    """Both files, which say nothing that is not in the records.

    Args:
        plan:     What was carried out, a job.Plan.
        folder:   Of the run.
        record:   What goes to redaction.json.
        resolved: What went to options.json.
        pairs:    Of pictures, to be shown.
    """
    told = plugins.record(plan.method)
    again = report.command(plan.request, given={name: told[name] for name in plan.request.method_options or {}})
    check = report.check_command(plan.request, plan.feature, plan.keep) if _checks(plan) else None
    facts = report.of_redaction(strict(dict(record)), strict(dict(resolved)), [again, *([check] if check else [])])
    report.write_page(folder, facts, list(pairs))
    report.write_card(folder, facts, bundled=plan.file.bundled is not None, decoder=plan.request.decoder is not None)


def shown(plan: Any, after: Network, pairs: evaluation.PairedImages, labels: Labels | None) -> list[Pair]:
    """Pairs of pictures to be shown, by what a run measured; none on ranks that write nothing.

    Args:
        plan:   What was carried out, a job.Plan.
        after:  The redacted network.
        pairs:  Of all images.
        labels: Of the classes that were measured.
    """
    if ranks.world().rank:
        return []
    rated = plan.class_index is None and set(plan.features) <= set(plan.judge.attributes)
    merged = evaluation.merged(pairs, plan.features) if rated else pairs
    return illustrate(plan.network, after, merged, plan.feature, batch=plan.batch, labels=labels, bystanders=plan.sitting is not None)


def _checks(plan: Any) -> bool:
    """Whether `evaluate` could measure the result: it takes a StyleGAN and one attribute, which a judge that is there knows."""
    judged = plan.request.judge is not None or plan.file.bundled is not None
    attribute = plan.class_index is None and plan.sitting is None and plan.features == (plan.feature,) and plan.feature in plan.judge.attributes
    return judged and attribute and plan.request.decoder is None
