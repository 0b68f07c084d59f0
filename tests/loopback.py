# SPDX-License-Identifier: Apache-2.0
"""Which hosts are this machine; tests talk to no other one."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

HERE = {"localhost", "", None}
"""Names of this machine."""


class NetworkUsed(AssertionError):
    """A test wanted to talk to another machine."""


def is_here(host: Any) -> bool:
    """Whether a host is this machine."""
    host = host.decode() if isinstance(host, bytes) else host
    try:
        return host in HERE or host == socket.gethostname() or ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def refuse(host: Any) -> None:
    if not is_here(host):
        raise NetworkUsed(f"{host} was to be asked - tests use no network - serve it from 127.0.0.1")
