# SPDX-License-Identifier: Apache-2.0
"""A local page on which a person says which pictures show a feature: probe.py learns from the clicks, session.py keeps them, gallery.py draws, server.py serves."""
