# SPDX-License-Identifier: Apache-2.0
"""Ends of a command as click tells them: of a user's error a sentence, and exit code 2 or 3; of Ctrl-C a line, and 130."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from stylegan_redact.stopping import INTERRUPTED
from stylegan_redact.types import RedactError, UntrustedFile

_LONGEST_TEXT = 2000


class Failure(click.ClickException):
    """A request that cannot be met."""

    exit_code = 2


class Distrust(Failure):
    """A file that is not to be trusted."""

    exit_code = 3


def run(command: click.Command, words: Sequence[str], name: str) -> NoReturn:
    """Runs the command and ends the process as click does, but for Ctrl-C: click's exit code is 1, that of any failure.

    Args:
        command: Of click.
        words:   Its options and arguments.
        name:    What its help calls it.
    """
    try:
        sys.exit(command.main(list(words), name, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as aborted:
        if "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0":  # Ctrl-C reaches all processes of a run; one tells it.
            click.echo("Aborted!", err=True)
        sys.exit(1 if isinstance(aborted.__context__, EOFError) else INTERRUPTED)  # EOFError: a question that nobody answers.


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
