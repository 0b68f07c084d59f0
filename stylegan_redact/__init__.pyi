# SPDX-License-Identifier: Apache-2.0
"""What editors and type checkers are told of the public API, which is imported when first used."""

from stylegan_redact.api import apply as apply
from stylegan_redact.api import evaluate as evaluate
from stylegan_redact.api import label as label
from stylegan_redact.api import redact as redact
from stylegan_redact.network import load_network as load_network
from stylegan_redact.network import read_snapshot as read_snapshot
from stylegan_redact.network import save_network as save_network
from stylegan_redact.types import RedactError as RedactError
from stylegan_redact.wspace.subspace import find_subspace as find_subspace

__all__: list[str]
