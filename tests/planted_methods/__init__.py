# SPDX-License-Identifier: Apache-2.0
"""Methods for tests of the command: they darken images, so that what is bright vanishes."""
