# SPDX-License-Identifier: Apache-2.0
"""`redact.py label --network=NETWORK --feature=NAME --out=labels.npz`: a local page on which you say which pictures show the feature."""

from __future__ import annotations

import os
import threading
import webbrowser
from pathlib import Path

import click

from stylegan_redact import asking, meant, network_files
from stylegan_redact.cli import CommaList, context, failure, offline_option
from stylegan_redact.label_page.desk import PER_PAGE, Desk
from stylegan_redact.label_page.gallery import Gallery
from stylegan_redact.label_page.server import PageServer
from stylegan_redact.label_page.session import Session
from stylegan_redact.labels import of_class
from stylegan_redact.network import load_network, seed_range
from stylegan_redact.precision import no_shortcuts
from stylegan_redact.run_dir import check_outdir
from stylegan_redact.types import RedactError

_SECONDS_BETWEEN_LOOKS = 0.2


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
    try:
        server = open_page(**values)  # type: ignore[arg-type]
    except RedactError as error:
        raise failure(error) from None
    click.echo(f"Label here, on this machine only; the address is a secret:\n{server.url}\nCtrl-C closes the page. The same command goes on later.")
    if browser:
        webbrowser.open(server.url)
    try:
        serve(server)
    except KeyboardInterrupt:
        click.echo("Closed. Every click is kept.")
        return
    click.echo(f"Wrote {values['out']}")


def open_page(  # noqa: PLR0913 - the options of the verb
    *,
    network: str,
    feature: str,
    out: Path,
    pool: int = 2000,
    classes: str | None = None,
    seed: int = 0,
    port: int = 0,
    batch_gpu: int | None = None,
    device: str = "auto",
    trust_source: tuple[str, ...] = (),
) -> PageServer:
    """A page that is ready to be served: the first pictures are drawn, and those that were labelled before.

    Raises:
        RedactError: the network cannot be drawn, the clicks beside `out` are about something else, or nothing can be written there.
    """
    if not out.name or os.path.isdir(out):
        raise RedactError(f"labels were to go to {out} - that is a folder - give the name of a file, such as {out / 'labels.npz'}")
    check_outdir(out.parent)
    if not os.path.isdir(out.parent):
        raise RedactError(f"labels were to go to {out} - there is no such folder - make it, or give another --out")
    where = meant.device_of(device)
    no_shortcuts(where)
    file = network_files.find_network(network)
    net = load_network(file.snapshot, where, trust_source=trust_source)
    seeds = seed_range(seed * asking.SEEDS_PER_RUN, pool)
    about = {"labels of": feature, "network_sha256": file.snapshot.sha256, "class": classes, "first_seed": seeds.start}
    session = Session(out.with_name(f"{out.name}.clicks.jsonl"), about)
    beyond = [labelled for labelled in session.labels if labelled not in seeds]
    if beyond:
        raise RedactError(f"--pool={pool} was asked - picture {max(beyond) - seeds.start} was labelled before - give --pool as it was, or more")
    gallery = Gallery(
        net, seeds, batch=batch_gpu or meant.default_batch(where, net.G_ema.img_resolution), labels=of_class(classes, net.G_ema.c_dim, file.name)
    )
    gallery.draw(max([2 * PER_PAGE, *(labelled - seeds.start + 1 for labelled in session.labels)]))
    return PageServer(Desk(gallery, session, feature, out, file.snapshot.sha256, seed=seed), gallery, port=port)


def serve(server: PageServer) -> None:
    """Serves until the person has finished, and draws the rest meanwhile."""
    stopped = threading.Event()
    drawing = threading.Thread(target=server.gallery.draw, kwargs={"stop": stopped.is_set}, daemon=True)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    drawing.start()
    serving.start()
    try:
        while not server.over:
            serving.join(_SECONDS_BETWEEN_LOOKS)
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        drawing.join()
