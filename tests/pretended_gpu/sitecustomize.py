# SPDX-License-Identifier: Apache-2.0
"""With this folder on PYTHONPATH and device.cpp, compiled, in LD_PRELOAD, every Python that starts has the pretended GPU."""

import pretend  # noqa: F401
