# SPDX-License-Identifier: Apache-2.0
"""Classifiers of other people as detectors: find.py says what --classifier and --judge may name, the other files are one kind each."""
