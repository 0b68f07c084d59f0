# SPDX-License-Identifier: Apache-2.0
"""`redact.py label --network=NETWORK --feature=NAME --out=labels.npz`: a local page on which you say which pictures show the feature."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import click

from stylegan_redact import asking
from stylegan_redact.cli import CommaList, context, failure, offline_option
from stylegan_redact.label_page import PER_PAGE
from stylegan_redact.stopping import INTERRUPTED
from stylegan_redact.types import RedactError


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Option(["--network"], required=True, metavar="NAME|PATH|URL", help="Network pickle, or the name of a bundled network"),
        click.Option(["--feature"], required=True, metavar="NAME", help="What to look for, in your words"),
        click.Option(["--out"], default="labels.npz", metavar="FILE", type=click.Path(path_type=Path), help="Where the labels go"),
        click.Option(["--pool"], type=click.IntRange(2 * PER_PAGE, asking.MOST_SEEDS), default=2000, help="Pictures to draw and choose from"),
        click.Option(["--class", "classes"], metavar="N|all", help="Class of a conditional network, or all: of each seed's own"),
        click.Option(["--seed"], type=click.IntRange(0, asking.LARGEST_SEED), default=0, help="Which pictures; as in the main command"),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=0, show_default="a free one", help="Of 127.0.0.1"),
        click.Option(["--browser/--no-browser"], default=True, help="Open the page in the browser"),
        click.Option(["--batch-gpu"], type=click.IntRange(1), show_default="by resolution", help="Images at a time; less memory if smaller"),
        click.Option(["--device"], type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute"),
        offline_option(),
        click.Option(["--trust-source"], type=CommaList(), default=(), show_default=False, metavar="SHA256,...", help="As in the main command"),
    ]
    doc = "Label pictures of the generator on a local page, with clicks or keys; about a hundred make a direction."
    return click.Command("label", callback=_label, params=params, help=doc, context_settings=context())


def _label(browser: bool, **values: object) -> None:
    from stylegan_redact.verbs._label import open_page, serve

    try:
        server = open_page(**values)  # type: ignore[arg-type]
    except RedactError as error:
        raise failure(error) from None
    try:
        serve(server, lambda: _invite(server.url, browser))
    except KeyboardInterrupt:
        click.echo("Closed. Every click is kept.")
        sys.exit(INTERRUPTED)
    click.echo(f"Wrote {values['out']}")


def _invite(url: str, browser: bool) -> None:
    click.echo(f"Label here, on this machine only; the address is a secret:\n{url}\nCtrl-C closes the page. The same command goes on later.")
    if browser:
        webbrowser.open(url)
