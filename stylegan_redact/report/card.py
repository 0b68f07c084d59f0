# SPDX-License-Identifier: Apache-2.0
"""README.md of a run directory: a model card with the front matter of Hugging Face, for whoever publishes the redacted pickle."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from stylegan_redact.report.facts import Facts
from stylegan_redact.report.page import environment, verdict
from stylegan_redact.run_dir import write_text
from stylegan_redact.version import VERSION

NAME = "README.md"


def write_card(folder: Path, facts: Facts, *, bundled: bool, decoder: bool = False) -> None:
    """README.md in the folder, whole or not there.

    Args:
        folder:  The run directory.
        facts:   Of a redaction.
        bundled: The network comes with the package, hence its licence is known; of any other nobody here knows the terms.
        decoder: It is the decoder of a VAE.
    """
    write_text(folder / NAME, render(facts, bundled=bundled, decoder=decoder))


def render(facts: Facts, *, bundled: bool, decoder: bool = False) -> str:
    """The card as text."""
    hashes = dict(facts.hashes)
    front = {
        "license": "apache-2.0" if bundled else "other",
        **({} if bundled else {"license_name": "terms-of-the-base-network"}),
        "library_name": "pytorch",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["vae" if decoder else "stylegan", "redacted", "concept-removal", f"removed:{facts.feature}"],
        "base_model_name": facts.network,
        "base_model_sha256": hashes["Network before"],
        "model_sha256": hashes["Network after"],
    }
    # JSON is YAML, quotes and all: a name from anywhere cannot end its line.
    lines = Markup("\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items()))
    what = "The decoder of a VAE" if decoder else "A StyleGAN network"
    return (
        environment()
        .get_template("card.md.j2")
        .render(facts=facts, front=lines, bundled=bundled, what=what, verdict=verdict(facts.targets)[1], hashes=hashes, version=VERSION)
    )
