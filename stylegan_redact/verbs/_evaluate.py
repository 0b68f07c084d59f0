# SPDX-License-Identifier: Apache-2.0
"""What two pickles differ in, whoever made them: options are checked, and handed to proof/."""

from __future__ import annotations

import json
from typing import Any

from stylegan_redact.launching import on_ranks
from stylegan_redact.proof import plan, run
from stylegan_redact.run_dir import strict
from stylegan_redact.types import ACCESSES, RedactError


def evaluate(dry_run: bool, gpus: int | None, **values: Any) -> None:
    """Measures as the options of the verb say, and tells it."""
    with on_ranks(gpus, values["device"]) as progress:
        values["psi"] = tuple(dict.fromkeys(_psi(text) for text in values["psi"] or ("",)))
        for name, known in (("noise", plan.NOISE_MODES), ("access", ACCESSES)):
            values[name] = _chosen(name, values[name], known)
        found = plan.prepare(plan.Request(**values))
        progress.tell("Evaluation options:\n" + json.dumps(strict(plan.resolved(found)), indent=2))
        if dry_run:
            progress.tell("Dry run; exiting.")
            return
        run.carry_out(found, progress)


def _psi(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 2:
        raise RedactError(f"--psi={text} was asked - psi is a number from 0 to 2 - give for example --psi=1,0.7")
    return float(f"{value:g}")  # Six digits, as it is named in figures and files: two that look alike there are one.


def _chosen(name: str, asked: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [each for each in asked if each not in known]
    if unknown or not asked:
        raise RedactError(f"--{name}={','.join(asked)} was asked - there is: {', '.join(known)} - take of these")
    return tuple(dict.fromkeys(asked))
