# SPDX-License-Identifier: Apache-2.0
"""A local page for labelling: gallery.py draws, session.py keeps the clicks, desk.py joins these, server.py serves."""

PER_PAGE = 24
"""Pictures; a page is a round of clicks."""
