# SPDX-License-Identifier: Apache-2.0
"""What a method minimises: torch modules that a StyleGAN training loop could also use on its own."""
