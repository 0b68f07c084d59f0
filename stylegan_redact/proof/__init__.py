# SPDX-License-Identifier: Apache-2.0
"""What two pickles differ in, by judges that are handed in: `redact.py evaluate`."""
