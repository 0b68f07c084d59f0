# SPDX-License-Identifier: Apache-2.0
"""The version, where nothing needs to be installed to read it: it goes into every redacted pickle."""

VERSION = "0.1.0"
