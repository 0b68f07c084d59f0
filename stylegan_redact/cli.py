# SPDX-License-Identifier: Apache-2.0
"""The command line. Methods' options are made from the fields of their dataclasses; RedactError becomes a message and exit code 2 or 3.

What needs torch is imported by the function that needs it: `--help` answers without.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from stylegan_redact import asking, feature_requests, plugin_files, plugins, run_dir, verbs
from stylegan_redact.failures import Distrust, Failure, escaped, failure, printable, run
from stylegan_redact.host import strtobool
from stylegan_redact.types import ACCESSES, RedactError

if TYPE_CHECKING:
    from stylegan_redact.job import Plan
    from stylegan_redact.progress import Progress

__all__ = ["CommaList", "Distrust", "Failure", "command", "context", "echo", "failure", "gpus_option", "main", "offline_option", "printable"]

DEFAULT_METHOD = "edit"
_TAKEN = {field.name for field in dataclasses.fields(asking.Request)}
"""Options of the command itself; where a method has one of the same name, the value goes to both."""


def echo(text: str) -> None:
    """Prints lines, with what would steer a terminal escaped."""
    click.echo(escaped(text))


def context() -> dict[str, Any]:
    """Settings of every command that takes options: they may be written with - or _, and help shows their defaults."""
    return {"token_normalize_func": lambda token: token.replace("_", "-"), "max_content_width": 120, "show_default": True}


class CommaList(click.ParamType):
    """a,b,c -> ("a", "b", "c")."""

    name = "A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Empty entries are left out; a tuple passes through."""
        return value if isinstance(value, tuple) else tuple(entry.strip() for entry in value.split(",") if entry.strip())


def main() -> None:
    """Runs the command, or the verb that the first word names, and ends the process."""
    words = [asking.at_home(word) for word in sys.argv[1:]]
    chosen, verb = choose(words)
    if _on_several() and not any(option.name == "gpus" for option in chosen.params):
        raise SystemExit(f"Error: redact.py {verb} was started on several ranks - one process does it - start it once, without torchrun")
    run(chosen, words[1:] if verb else words, f"redact.py {verb}".strip())


def _on_several() -> bool:
    if "WORLD_SIZE" not in os.environ:  # Of torchrun. Without it nobody waits for torch here.
        return False
    from stylegan_redact import ranks

    return ranks.asked(os.environ) > 1


def choose(args: Sequence[str]) -> tuple[click.Command, str]:
    """What the command line is for, and the verb; without one, "", it is to redact."""
    verb = args[0] if args and args[0] in verbs.names() else ""
    return (verbs.load(verb) if verb else command()), verb


def command() -> click.Command:
    """The command, with the options of all methods that there are."""
    epilog = "Options may be written with - or _. NETWORK: " + ", ".join([*asking.bundled(), "a path", "a URL"]) + "."
    epilog += f" Also: {', '.join(f'redact.py {verb}' for verb in verbs.names())}; --help of each."
    doc = "Suppress a feature in a pre-trained GAN, and show what changed."
    return click.Command("redact", callback=redact, params=[*core_options(), *method_options()], help=doc, epilog=epilog, context_settings=context())


def core_options() -> list[click.Option]:
    """Those that every method has."""
    count = click.IntRange(1, asking.MOST_SEEDS)
    return [
        click.Option(["--network"], required=True, metavar="NAME|PATH|URL", help="Network pickle, or the name of a bundled network"),
        click.Option(
            ["--decoder"],
            metavar="FILE.py:FACTORY",
            help="Of a VAE: --network holds its weights, .pt or .safetensors, this function returns the module; FILE.py is run, with all your rights",
        ),
        click.Option(
            ["--feature"],
            required=True,
            metavar="NAME",
            help="What to suppress, for example beard, or beard,hat for both at once; or SOURCE:VALUE, which says who knows it: "
            + "; ".join(feature_requests.SOURCES.values()),
        ),
        click.Option(["--outdir"], default="redact-runs", metavar="DIR", help="Where to save the results"),
        click.Option(["--method"], type=click.Choice(plugins.names(asking.METHODS)), show_default=DEFAULT_METHOD, help="How to redact"),
        click.Option(
            ["--class", "classes"], metavar="N|all", help="Class of a conditional network to redact the feature in; all: of each seed's own"
        ),
        click.Option(
            ["--keep"],
            type=CommaList(),
            default=(),
            show_default=False,
            help="Attributes whose largest change is reported; edit holds all that there are, methods that follow a direction move these not",
        ),
        *source_options(),
        click.Option(["--seed"], type=click.IntRange(0, asking.LARGEST_SEED), default=0, help="Random seed; the same command gives the same pickle"),
        click.Option(["--num-latents"], type=count, default=6_000, help="Seeds to label with the classifier"),
        click.Option(["--num-images"], type=count, default=10_000, help="Fresh seeds to measure on"),
        click.Option(["--access"], type=CommaList(), default="z", help=f"Ways in to measure, of {', '.join(ACCESSES)}; z is always measured"),
        click.Option(["--batch-gpu"], type=click.IntRange(1), show_default="by resolution", help="Images at a time; less memory if smaller"),
        click.Option(["--device"], type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute"),
        gpus_option(),
        click.Option(
            ["--trust-source"],
            type=CommaList(),
            default=(),
            show_default=False,
            metavar="SHA256,...",
            help="Run these sources of the file, with all your rights: for networks that are not known here",
        ),
        offline_option(),
        *running_options(),
        click.Option(["--delta/--no-delta"], default=True, help=f"Write {run_dir.DELTA}: the edit apart from the network, docs/delta.md"),
        click.Option(["-n", "--dry-run"], is_flag=True, help="Print the resolved options and a time estimate, then stop; write nothing"),
    ]


def running_options() -> list[click.Option]:
    """What happens while a run is on its way."""
    return [
        click.Option(
            ["--resume"], metavar="latest|DIR", help="Go on with a run that did not come to its end; latest: a new one if there is none in --outdir"
        ),
        click.Option(["--checkpoint-every"], type=click.FloatRange(0), default=60.0, metavar="SECONDS", help="How often to keep what that needs"),
        click.Option(["--snap"], type=click.IntRange(1), metavar="KIMG", help="Networks and pictures of the training, every so many thousand images"),
        click.Option(
            ["--early-stop"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="KIMG",
            help="End the training once all targets hold, which the judge looks at every so many thousand images, on seeds of their own",
        ),
        click.Option(["--profile"], is_flag=True, help="Write where the time goes, profile.txt, with traces of a few steps, docs/performance.md"),
    ]


def gpus_option() -> click.Option:
    """--gpus of every command that several processes can work at."""
    doc = "Processes on this machine, one for each GPU; with --device=cpu so many on the CPU. For several machines torchrun: docs/runs.md"
    return click.Option(["--gpus"], type=click.IntRange(1, 1024), show_default="1", help=doc)


def offline_option() -> click.Option:
    """--offline of every command that may download: holds until the command ends."""

    def begin(ctx: click.Context, _: click.Parameter, given: bool) -> None:
        if given:
            from stylegan_redact import downloads

            ctx.with_resource(downloads.offline())

    doc = "Make no connection: what would have to be downloaded is refused, unless it is in the cache"
    return click.Option(["--offline"], is_flag=True, expose_value=False, is_eager=True, callback=begin, help=doc)


def source_options() -> list[click.Option]:
    """Files that know the feature."""
    return [
        click.Option(
            ["--classifier"],
            type=click.Path(),
            metavar="FILE|URL|celebahq:WORD",
            help="What steers, such as TorchScript: images [n, C, H, W] in [-1, 1] -> one logit each, > 0: shows; docs/classifiers.md",
        ),
        click.Option(
            ["--judge"],
            type=click.Path(),
            metavar="FILE|URL|celebahq:WORD",
            help="What measures; another one than --classifier. For a person: TorchScript, images -> [n, d], an embedder of faces",
        ),
        click.Option(
            ["--labels"],
            type=click.Path(),
            metavar="FILE.npz",
            help="Labelled latents of this network, as redact.py label writes them and every run leaves them: nothing is labelled anew",
        ),
    ]


def method_options() -> list[click.Option]:
    """One per name of an option; the help says which methods have it."""
    owners: dict[str, list[tuple[str, plugins.Option]]] = {}
    for method, options in plugin_files.options_of_all(asking.METHODS).items():
        for option in options:
            if option.name not in _TAKEN and _plain_type(option) is not None:
                owners.setdefault(option.name, []).append((method, option))
    return [
        click.Option([f"--{name.replace('_', '-')}", name], metavar=_metavar(found[0][1]), show_default=False, help=_help(found))
        for name, found in owners.items()
    ]


def redact(dry_run: bool, gpus: int | None, **values: Any) -> None:
    """The callback: values by option name, those of methods as text or None."""
    from stylegan_redact import job, time_estimate
    from stylegan_redact.launching import on_ranks
    from stylegan_redact.run_dir import strict

    with on_ranks(gpus, values["device"]) as progress:
        plan = job.prepare(_request(values))
        progress.tell("Redaction options:\n" + json.dumps(strict(job.resolved(plan)), indent=2))
        if plan.file.snapshot.converted_from is not None:
            progress.tell(f"The network is of {plan.file.snapshot.converted_from}; it was converted, and the result is a pickle of PyTorch")
        estimate = time_estimate.describe(time_estimate.estimate_seconds(plan), str(plan.device))
        progress.tell(f"This will take {estimate}")
        if dry_run:
            progress.tell(job.dry_run(plan))
            return
        _carry_out(plan, progress)


def _carry_out(plan: Plan, progress: Progress) -> None:
    from stylegan_redact import job
    from stylegan_redact.running import Ended

    try:
        job.carry_out(plan, progress)
    except Ended as ended:
        sys.exit(ended.exit_code)
    except RedactError as error:
        progress.log_error(str(error))
        raise


def _request(values: dict[str, Any]) -> asking.Request:
    own = {name: value for name, value in values.items() if name in _TAKEN}
    unknown = [access for access in own["access"] if access not in ACCESSES]
    if unknown:
        raise RedactError(f"--access={','.join(unknown)} was asked - there is: {', '.join(ACCESSES)} - take of these")
    own["access"] = ("z", *(access for access in dict.fromkeys(own["access"]) if access != "z"))
    own["method"] = own["method"] or _default_method(own["feature"], own["classifier"])
    known = {option.name: option for option in plugins.options(plugins.load(asking.METHODS, own["method"]))}
    told = {name: text for name, text in values.items() if name not in _TAKEN and text is not None}
    return asking.Request(**own, method_options={name: _parse(known[name], text) if name in known else text for name, text in told.items()})


def _default_method(feature: str, classifier: str | None) -> str:
    from stylegan_redact import class_requests, given, person_requests

    if person_requests.is_person(feature):
        return person_requests.METHOD
    if class_requests.is_class(feature):
        return class_requests.METHOD
    directed = feature_requests.source_of(feature) in given.DIRECTED and classifier is None
    return given.METHOD if directed else DEFAULT_METHOD


def _parse(option: plugins.Option, text: str) -> Any:
    """The text as the type of the option; text that is none is handed on, for `plugins.build` to refuse."""
    if text.lower() == "none" and type(None) in typing.get_args(option.type):
        return None
    kind = _plain_type(option)
    try:
        return bool(strtobool(text)) if kind is bool else kind(text)  # type: ignore[misc]
    except ValueError:
        return text


def _plain_type(option: plugins.Option) -> type | None:
    """int, float, bool or str; None for what cannot be written on a command line."""
    kinds = [kind for kind in typing.get_args(option.type) or (option.type,) if kind is not type(None)]
    if set(kinds) == {int, float}:
        return float
    return kinds[0] if len(kinds) == 1 and kinds[0] in (int, float, bool, str) else None


def _metavar(option: plugins.Option) -> str:
    if option.choices is not None:
        return "|".join(map(str, option.choices))
    kind = _plain_type(option)
    return kind.__name__.upper() if kind is not None else ""


def _help(found: list[tuple[str, plugins.Option]]) -> str:
    """The help text of the first, and for each method its default and range."""
    told: dict[str, list[str]] = {}
    for method, option in found:
        limits = [f"{word} {limit:g}" for word, limit in (("at least", option.low), ("at most", option.high)) if limit is not None]
        default = "required" if option.default is dataclasses.MISSING else f"default {option.default}"
        told.setdefault(", ".join([default, *limits]), []).append(method)
    return f"{found[0][1].help}  [" + "; ".join(f"{', '.join(methods)}: {text}" for text, methods in told.items()) + "]"
