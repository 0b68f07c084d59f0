# SPDX-License-Identifier: Apache-2.0
"""What each method removes and what else it moves, as Markdown: every figure by the judge, on seeds that nothing was fitted to.

    python benchmarks/methods.py --features=beard,eyeglasses,hat,smile --methods=edit,fold,mapping,moon,unlearn

A method may carry options, `edit:hold=0:still=0`, to see what they are good for.

Access "z" samples the redacted network; "w" feeds it latents that a caller kept from before; "w_plus" mixes two of those.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from stylegan_redact import evaluation, job
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.types import Estimate

COLUMNS = {
    "removed": ("residual_rate/removed", "{:.2f}"),
    "left": ("residual_rate/rate_after", "{:.2f}"),
    "others, points": ("collateral/mean_absolute_change", "{:.2f}"),
    "rarest loss": ("collateral/largest_rare_loss", "{:.1f}"),
    "L1 feature-free": ("image_change/l1_feature_free", "{:.4f}"),
}


def cell(estimate: Estimate, form: str) -> str:
    return f"{form.format(estimate.value)} ({form.format(estimate.low)} to {form.format(estimate.high)})"


def with_options(text: str) -> tuple[str, dict[str, float]]:
    """edit:hold=0 -> ("edit", {"hold": 0.0})."""
    name, *options = text.split(":")
    pairs = [option.partition("=")[::2] for option in options]
    return name, {key: int(value) if value.isdigit() else float(value) for key, value in pairs}


@click.command()
@click.option("--network", default="portraits64", show_default=True)
@click.option("--features", default="beard,eyeglasses,hat,smile", show_default=True)
@click.option("--methods", default="edit,fold,mapping,moon,unlearn", show_default=True)
@click.option("--access", default="z,w,w_plus", show_default=True)
@click.option("--num-images", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write every estimate to this JSON file.")
def main(network: str, features: str, methods: str, access: str, num_images: int, seed: int, out: Path | None) -> None:
    """Redact by each method, measure by each way in, print a table."""
    everything = []
    click.echo("| feature | method | way in | seconds | " + " | ".join(COLUMNS) + " |\n" + "|---" * (4 + len(COLUMNS)) + "|")
    for name in features.split(","):
        feature = None
        for method in methods.split(","):
            kind, options = with_options(method)
            plan = job.prepare(job.Request(network, name, method=kind, method_options=options, seed=seed, num_images=num_images))
            if feature is None:
                feature = Attribute(plan.feature, plan.detector).gather(plan.network, plan.labelled_seeds, batch=plan.batch)
            started = time.perf_counter()
            after = plan.method.redact(plan.network, feature, (), seed)
            seconds = time.perf_counter() - started
            for way in access.split(","):
                pairs = evaluation.measure_pairs(plan.network, after, plan.judge, plan.measured_seeds, batch=plan.batch, access=way)
                found = evaluation.ask(pairs, plan.feature, questions=["residual_rate", "collateral", "image_change"])
                cells = [cell(found[key], form) for key, form in COLUMNS.values()]
                click.echo(f"| {name} | {method} | {way} | {seconds:.0f} | " + " | ".join(cells) + " |")
                everything.append(dict(feature=name, method=method, access=way, seconds=seconds, n=num_images, estimates=evaluation.as_json(found)))
                if out is not None:
                    out.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
