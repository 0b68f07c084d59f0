# SPDX-License-Identifier: Apache-2.0
"""What a person looks at after a run: report.html, one file that needs no network, and README.md, a model card for the pickle beside it."""

from stylegan_redact.report.card import write_card
from stylegan_redact.report.commands import FILES, check_command, command, name_of
from stylegan_redact.report.facts import Facts, of_evaluation, of_redaction
from stylegan_redact.report.page import write_page
from stylegan_redact.report.pairs import Pair, illustrate

__all__ = ["FILES", "Facts", "Pair", "check_command", "command", "illustrate", "name_of", "of_evaluation", "of_redaction", "write_card", "write_page"]
