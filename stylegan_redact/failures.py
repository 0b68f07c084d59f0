# SPDX-License-Identifier: Apache-2.0
"""Errors of a user as click tells them: a sentence, and exit code 2 or 3."""

from __future__ import annotations

import click

from stylegan_redact.types import RedactError, UntrustedFile

_LONGEST_TEXT = 2000


class Failure(click.ClickException):
    """A request that cannot be met."""

    exit_code = 2


class Distrust(Failure):
    """A file that is not to be trusted."""

    exit_code = 3


def failure(error: RedactError) -> Failure:
    """What click prints for the error, in one printable line, and exits with."""
    kind = Distrust if isinstance(error, UntrustedFile) else Failure
    return kind(printable(str(error)))


def printable(text: str) -> str:
    """The text on one line, with what would steer a terminal escaped."""
    text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def escaped(text: str) -> str:
    """The text, line by line, with what would steer a terminal escaped: names in it come from files from anywhere."""
    return "".join(char if char in "\n\t" or char.isprintable() else ascii(char)[1:-1] for char in text.replace("\r\n", "\n"))
