# SPDX-License-Identifier: Apache-2.0
"""The command line that a request was, so that whoever reads a report can type it; of paths only names are told."""

from __future__ import annotations

import dataclasses
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from stylegan_redact.feature_requests import PERSON

FILES = {"network", "decoder", "classifier", "judge", "labels", "before", "after", "second_judge", "attacker", "positives", "extractor"}
"""Options whose value is a path: of it only the name is told."""
_WHERE = {"outdir", "method_options", "resume", "checkpoint_every", "snap", "profile"}
_SPELT = {"classes": "class"}


def command(request: Any, verb: str = "", given: Mapping[str, Any] | None = None) -> str:
    """`python redact.py ...` with every option that is not as it would be by default, but --outdir and those that do not change the result.

    Args:
        request: A frozen dataclass whose fields are options of the command line.
        verb:    Of the command, "" for redacting.
        given:   Further options, those of the method, without folders in them.
    """
    words = ["python", "redact.py", *([verb] if verb else [])]
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if field.name not in _WHERE and value != field.default and isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{field.name.replace('_', '-')}")
        elif field.name not in _WHERE and value != field.default:
            text = name_of(value) if field.name in FILES else feature_of(value) if field.name == "feature" else _text(value)
            words.append(f"--{_SPELT.get(field.name, field.name).replace('_', '-')}={text}")
    words += [f"--{name.replace('_', '-')}={_text(value)}" for name, value in (given or {}).items()]
    return shlex.join(words)


def check_command(request: Any, feature: str, keep: Sequence[str]) -> str:
    """The evaluation that checks a redaction with seeds of its own.

    Args:
        request: That redacted.
        feature: As the judge calls it.
        keep:    Attributes, likewise.
    """
    words = ["python", "redact.py", "evaluate", f"--before={name_of(request.network)}", "--after=network-redacted.pkl", f"--feature={feature}"]
    options = {"judge": name_of(request.judge) if request.judge else "", "keep": ",".join(keep), "class": request.classes or ""}
    options["trust-source"] = ",".join(request.trust_source)
    return shlex.join([*words, *(f"--{name}={value}" for name, value in options.items() if value)])


def name_of(path: str) -> str:
    """The last part of a path; of a URL all but what may be secret in it."""
    found = urllib.parse.urlsplit(path)
    if "://" in path and found.scheme != "file":
        return urllib.parse.urlunsplit((found.scheme, found.hostname or "", found.path, "", ""))
    return PurePath(path).name


def feature_of(text: str) -> str:
    """What --feature said, of SOURCE:PATH:OPTIONS without the folders; of a person nothing, since even a name may say who it is."""
    source, colon, rest = text.partition(":")
    if source == PERSON:
        return f"{source}:PHOTOS"
    path, *options = rest.split(":")
    return source + colon + ":".join([PurePath(path).name, *options])


def _text(value: Any) -> str:
    return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value) if isinstance(value, tuple) else str(value)
