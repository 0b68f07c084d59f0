# SPDX-License-Identifier: Apache-2.0
"""What it takes to get a feature back. Each file without a leading underscore is one attack; it tells its cost, never that there is no way.

No kind of edit of the mapping and synthesis networks defends the style vectors S, which are read after both, nor the weights themselves: whoever has
the file may train it.
"""

from stylegan_redact.attacks._curve import Curve, as_json, percent, render
from stylegan_redact.attacks._scene import Scene, Victim, feature_free_in_all

__all__ = ["Curve", "Scene", "Victim", "as_json", "feature_free_in_all", "percent", "render"]
