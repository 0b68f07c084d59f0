# SPDX-License-Identifier: Apache-2.0
"""Changes nothing, which must not pass for a redaction."""

from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.network import copy_network
from stylegan_redact.plugins import option


@dataclass(frozen=True)
class Idle:
    strength: float = option(1.0, "of nothing", low=0, high=1)
    needs: ClassVar[tuple[str, ...]] = ()

    def redact(self, network, feature, keep, seed, progress=None):
        return copy_network(network)
