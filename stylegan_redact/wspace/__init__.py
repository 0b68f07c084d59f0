# SPDX-License-Identifier: Apache-2.0
"""Step 2: geometry of W. Tensors in, tensors out, no networks, all in float64."""
