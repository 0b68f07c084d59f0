# SPDX-License-Identifier: Apache-2.0
"""Tests of this folder work on small matrices."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def small_matrices(one_thread: None) -> None:
    """All of them on one thread."""
