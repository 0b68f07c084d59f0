# SPDX-License-Identifier: Apache-2.0
"""What tests of several folders share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from loopback import refuse


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """No test of ours talks to another machine, by name or by address."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            real = getattr(socket.socket, name)

            def connect(self: socket.socket, address: Any, real: Any = real) -> Any:
                if self.family in (socket.AF_INET, socket.AF_INET6):
                    refuse(address[0])
                return real(self, address)

            patch.setattr(socket.socket, name, connect)
        look_up = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            refuse(host)
            return look_up(host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other over small matrices take many times as long, on a busy machine a hundred times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
