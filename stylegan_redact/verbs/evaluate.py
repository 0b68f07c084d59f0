# SPDX-License-Identifier: Apache-2.0
"""`redact.py evaluate --before=A.pkl --after=B.pkl --feature=beard`: what two pickles differ in, whoever made them."""

from __future__ import annotations

from typing import Any

import click

from stylegan_redact import asking, plugins
from stylegan_redact.cli import CommaList, context, gpus_option, offline_option
from stylegan_redact.types import ACCESSES


def command() -> click.Command:
    """The verb."""
    file = click.Path()
    params: list[click.Parameter] = [
        click.Option(["--before"], required=True, metavar="NAME|PATH|URL", help="Network pickle as it was"),
        click.Option(["--after"], required=True, metavar="NAME|PATH|URL", help="The redacted one, by whatever tool"),
        click.Option(["--feature"], required=True, metavar="NAME", help="What was suppressed, for example beard"),
        click.Option(["--outdir"], default="redact-runs", metavar="DIR", help="Where to save the results"),
        click.Option(["--judge"], type=file, metavar="FILE|URL|celebahq:WORD", help="What measures, as in docs/classifiers.md"),
        click.Option(["--second-judge"], type=file, metavar="FILE", help="Another one, to see whether both agree"),
        click.Option(["--judge-misses"], metavar="MISSES/N", help="Of N images that truly show the feature the judge overlooked so many"),
        click.Option(
            ["--extractor"],
            default="D",
            metavar="D|none|FILE|URL|torch-fidelity:NAME",
            help="Features for distance, precision and recall: the discriminator's, or a TorchScript file such as NVIDIA's inception-2015-12-05.pt",
        ),
        click.Option(["--keep"], type=CommaList(), default=(), show_default=False, help="Attributes that must not change: pass or fail for each"),
        click.Option(["--psi"], type=CommaList(), default="1,0.7", help="Truncation psi to measure at"),
        click.Option(["--noise"], type=CommaList(), default="const,random", help="Noise modes to measure with"),
        click.Option(["--access"], type=CommaList(), default="z", help=f"Ways in to measure, of {', '.join(ACCESSES)}"),
        click.Option(
            ["--attacks"],
            type=CommaList(),
            default=(),
            show_default=False,
            metavar="all|latent|NAME[:OPTION=VALUE...],...",
            help=f"Attacks to make on both networks and a control, of {', '.join(plugins.names(asking.ATTACKS))}; they take long",
        ),
        click.Option(["--attacker"], type=file, metavar="FILE", help="TorchScript classifier that leads the attacks; the judges say what succeeded"),
        click.Option(["--attacked"], type=click.IntRange(1, 10_000), default=64, help="Starting points of each attack"),
        click.Option(["--positives"], type=file, metavar="DIR", help="Pictures that show the feature, for the attack inversion"),
        click.Option(["--class", "classes"], metavar="N|all", help="Class of a conditional network, or all: of each seed's own"),
        click.Option(
            ["--seed"], type=click.IntRange(0, asking.LARGEST_SEED), default=0, help="Of all randomness; the same command gives the same bytes"
        ),
        click.Option(
            ["--num-images"], type=click.IntRange(1, asking.MOST_SEEDS // 2), show_default="10000, on a GPU 50000", help="Fresh seeds to measure on"
        ),
        click.Option(["--batch-gpu"], type=click.IntRange(1), show_default="by resolution", help="Images at a time; less memory if smaller"),
        click.Option(["--device"], type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute"),
        gpus_option(),
        click.Option(
            ["--trust-source"], type=CommaList(), default=(), show_default=False, metavar="SHA256,...", help="Run these sources of the files"
        ),
        offline_option(),
        click.Option(["-n", "--dry-run"], is_flag=True, help="Print the resolved options, then stop; write nothing"),
    ]
    doc = "Measure what a redaction removed and what else it moved. A run that was killed goes on with the same command."
    return click.Command("evaluate", callback=_evaluate, params=params, help=doc, context_settings=context())


def _evaluate(**values: Any) -> None:
    from stylegan_redact.verbs._evaluate import evaluate

    evaluate(**values)
