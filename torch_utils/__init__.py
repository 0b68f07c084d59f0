# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `torch_utils` interface, written anew from its documented behaviour: pure torch, no compiler needed."""

# NVIDIA's checkouts and every fork bring a package of this very name. Whichever stands first on sys.path wins, so the
# stylegan_redact package asks for this marker before it relies on anything that only this one does.
stylegan_redact = True
