# SPDX-License-Identifier: Apache-2.0
"""A local page on which a person says which pictures show a feature: opened, served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from stylegan_redact import asking, meant, network_files
from stylegan_redact.label_page import PER_PAGE
from stylegan_redact.label_page.desk import Desk
from stylegan_redact.label_page.gallery import Gallery
from stylegan_redact.label_page.server import PageServer
from stylegan_redact.label_page.session import Session
from stylegan_redact.labels import of_class
from stylegan_redact.network import load_network, seed_range
from stylegan_redact.precision import no_shortcuts
from stylegan_redact.run_dir import check_file, check_outdir
from stylegan_redact.types import RedactError

_SECONDS_BETWEEN_LOOKS = 0.2


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
    check_file(out, [network])
    check_outdir(out.parent)
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


def serve(server: PageServer, invite: Callable[[], None] = lambda: None) -> None:
    """Serves until the person has finished, and draws the rest meanwhile.

    Args:
        server: Of a page that is ready.
        invite: Called once the page answers: from then on Ctrl-C finds threads that have started, and can end them.
    """
    stopped = threading.Event()
    drawing = threading.Thread(target=server.gallery.draw, kwargs={"stop": stopped.is_set})  # No daemon: cut off in the middle, torch aborts.
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    try:
        drawing.start()
        serving.start()
        invite()
        while not server.over:
            serving.join(_SECONDS_BETWEEN_LOOKS)
    finally:
        stopped.set()
        if serving.is_alive():
            server.shutdown()
        server.server_close()
        if drawing.is_alive():
            drawing.join()
