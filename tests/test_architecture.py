# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, who may unpickle, how long a file may be, what importing may change: the table of docs/architecture.md, held."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "stylegan_redact"
FOLDERS = ("dnnlib", "torch_utils", PACKAGE, "benchmarks")
TOP = (*FOLDERS, "legacy", "redact")

COMMAND_SIDE = {
    "asking",
    "cli",
    "job",
    "plugin_files",
    "profiling",
    "pictures",
    "progress",
    "time_estimate",
    "network_files",
    "decoder_files",
    "host",
    "source_hashes",
    "version",
    "verbs",
    "measuring",
    "class_requests",
    "steering",
    "person_requests",
    "feature_requests",
    "given",
    "casting",
    "prechecks",
    "proof",
    "label_page",
    "report",
    "reporting",
    "meant",
    "checkpoints",
    "stopping",
    "resuming",
    "running",
    "snapshots",
    "ticks",
    "watching",
    "launching",
    "following",
    "failures",
}
PLUGIN_FOLDERS = {"features", "methods", "evaluation", "attacks"}
EVERYTHING = {"*"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "labels": {"types"},
    "ranks": {"types"},
    "rows": {"types"},
    "pipes": {"types"},
    "several": {"types", "plugins"},
    "keeping": {"types"},
    "plugins": {"types"},
    "estimates": {"types"},
    "agreement": {"types", "estimates"},
    "names": {"types"},
    "paired_tests": {"types", "estimates"},
    "pickles": {"types", "pipes"},
    "networks": {"types", "torch_utils"},
    "trusted": {"types", "pickles", "torch_utils", "dnnlib"},
    "foreign": {"types"},
    "network": {"types", "rows", "labels", "pickles", "networks", "trusted", "foreign"},
    "decoders": {"types", "foreign", "network", "losses"},
    "precision": {"types", "network"},
    "wspace": {"types", "estimates"},
    "losses": {"types", "torch_utils"},
    "portraits": {"types", "estimates", "networks", "network"},
    "detectors": {"types", "portraits", "names"},
    "downloads": {"types", "pipes", "dnnlib"},
    "backends": {"types", "names", "pickles", "detectors", "downloads"},
    "extractors": {"types", "networks", "downloads"},
    "inversion": {"types", "network", "wspace", "losses"},
    "latents": {"types", "pipes", "network"},
    "photos": {"types", "pipes"},
    "probe": {"types", "estimates", "wspace"},
    "validity": {"types"},
    "training": {"types", "pipes", "ranks", "keeping", "network", "losses", "wspace", "torch_utils"},
    "features": {
        "pipes",
        "rows",
        "ranks",
        "types",
        "labels",
        "several",
        "plugins",
        "keeping",
        "network",
        "latents",
        "wspace",
        "detectors",
        "extractors",
        "inversion",
        "estimates",
        "names",
        "downloads",
        "photos",
        "probe",
        "validity",
    },
    "methods": {"types", "labels", "plugins", "network", "foreign", "wspace", "losses", "training", "validity"},
    "evaluation": {
        "rows",
        "ranks",
        "inversion",
        "types",
        "labels",
        "several",
        "plugins",
        "network",
        "wspace",
        "estimates",
        "paired_tests",
        "extractors",
        "losses",
    },
    "attacks": {"inversion", "types", "labels", "plugins", "network", "estimates", "losses", "wspace", "training"},
    "command": EVERYTHING,
    "learned": {"types", "rows", "ranks", "keeping", "network", "probe", "training"},
    "run_dir": {"types"},
    "delta": {"types", "pipes", "pickles", "run_dir"},
    "api": {"types", "labels", "latents", "network", "several", "plugins", "methods", "evaluation", "delta"},
    "package": set(),
    "benchmarks": EVERYTHING,
    "dnnlib": set(),
    "torch_utils": {"dnnlib"},
    "legacy": {"types", "pickles", "network", "networks", "dnnlib"},
    "redact": {"command"},
}
"""Layer -> the layers that it may import besides itself."""

MAY_IMPORT_CLICK = {"command", "portraits", "benchmarks"}
LONGEST_MODULE, LONGEST_FUNCTION = 300, 60
STANDS_ALONE = {f"{PACKAGE}/networks/{name}.py" for name in ("stylegan2", "stylegan3")}
SPDX = "# SPDX-License-Identifier: Apache-2.0"

UNPICKLERS = re.compile(r"(c?[Pp]ickle|_pickle|dill|cloudpickle|marshal|joblib|shelve|pandas)\.(load|loads|Unpickler|open|read_pickle)")
PRIVATE_PATH = re.compile(rb"(?<![\w.~-])/(work|root|opt/dev)/|(?<![\w.-])/(home|Users)/\w")
LITERALS_OF_TESTS = re.compile(rb"/(home|Users)/\w")
"""Tests hand made-up paths to what must hide them."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    paths = [path for top in TOP for path in [ROOT / f"{top}.py", *sorted((ROOT / top).rglob("*.py"))] if path.is_file()]
    return {module_name(path): path for path in paths}


SOURCES = sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def layer(module: str) -> str:
    top, _, rest = module.partition(".")
    first = rest.split(".")[0]
    if top != PACKAGE:
        return top
    if first.startswith("pickle") or first == "torch_storage":
        return "pickles"
    return "command" if first in COMMAND_SIDE else first or "package"


def imported(tree: ast.AST, module: str, known: set[str]) -> set[str]:
    """Modules that a source imports anywhere in it, inside functions too; `from package import module` names the module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = module if SOURCES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
                base = ".".join([*inside.split(".")[: len(inside.split(".")) - node.level + 1], *([base] if base else [])])
            found |= {full if (full := f"{base}.{alias.name}") in known else base for alias in node.names}
    return found


def forbidden_imports(tree: ast.AST, module: str, known: set[str]) -> Iterator[str]:
    mine = layer(module)
    for other in sorted(imported(tree, module, known)):
        theirs = layer(other)
        if other.split(".")[0] == "click" and mine not in MAY_IMPORT_CLICK:
            yield f"{module} imports click"
        if other.split(".")[0] not in TOP:
            continue
        if theirs != mine and theirs not in MAY_IMPORT[mine] and MAY_IMPORT[mine] != EVERYTHING:
            yield f"{module} imports {other}"
        folder, _, name = other.rpartition(".")
        if theirs == mine and mine in PLUGIN_FOLDERS and folder == f"{PACKAGE}.{mine}" and not name.startswith("_"):
            yield f"{module} imports its sibling {other}"


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its function's dotted name, imports' aliases resolved."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield names.get(first, first) + dot + rest, node


def forbidden_calls(tree: ast.AST, module: str) -> Iterator[str]:
    for name, call in calls(tree):
        values = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        where = f"{module}:{call.lineno} calls {name}"
        if name == "print" or name in ("exec", "eval"):
            yield where
        if UNPICKLERS.fullmatch(name) and layer(module) != "pickles":
            yield where
        if name == "torch.load" and values.get("weights_only") is not True:
            yield f"{where} without weights_only=True"
        if name == "numpy.load" and values.get("allow_pickle") not in (None, False):
            yield f"{where} with allow_pickle"


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and number of lines, decorators not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def committed() -> list[Path]:
    """Every file that is ours to publish: the folders of the repository and the files on top."""
    paths = [path for folder in (*FOLDERS, "tests", "docs", ".ci") for path in (ROOT / folder).rglob("*")]
    kept = [path for path in [*paths, *ROOT.glob("*.*"), ROOT / "LICENSE"] if path.is_file()]
    kept = [path for path in kept if path.name != ".git"]  # A file in a worktree, never committed.
    return [path for path in kept if not any(part == "__pycache__" or part.endswith("_cache") for part in path.relative_to(ROOT).parts)]


def test_every_layer_is_in_the_table() -> None:
    assert {layer(name) for name in SOURCES} <= set(MAY_IMPORT)
    assert {"types", "pickles", "methods", "evaluation", "command", "package", "torch_utils"} <= {layer(name) for name in SOURCES}


def test_the_documented_table_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("<!-- imports -->")[2]
    rows = re.findall(r"^    (\w+):(.*)$", text.partition("Beyond the table")[0], re.MULTILINE)
    assert {name: {other.strip() for other in others.split(",") if other.strip()} for name, others in rows} == MAY_IMPORT


@pytest.mark.parametrize("module", SOURCES)
def test_imports_follow_the_table(module: str) -> None:
    assert list(forbidden_imports(TREES[module], module, set(SOURCES))) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("types", "from stylegan_redact import network"),
        ("wspace.affine", "import stylegan_redact.networks.stylegan2"),
        ("evaluation.collateral", "def f():\n    from stylegan_redact.methods.fold import Fold"),
        ("evaluation.collateral", "from stylegan_redact.evaluation.residual_rate import ResidualRate"),
        ("methods.mapping", "from stylegan_redact.methods import fold"),
        ("methods.mapping", "from . import fold"),
        ("methods.mapping", "from ..evaluation import ask"),
        ("methods.fold", "from stylegan_redact import job"),
        ("pickles", "import click"),
        ("losses.unlearn", "import legacy"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str) -> None:
    known = set(SOURCES) | {f"{PACKAGE}.methods.fold"}
    assert len(list(forbidden_imports(ast.parse(source), f"{PACKAGE}.{module}", known))) == 1


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: imported(TREES[name], name, set(SOURCES)) & set(SOURCES) - {name} for name in SOURCES}
    graphlib.TopologicalSorter(graph).prepare()


def test_no_layer_may_import_itself_in_a_circle() -> None:
    graphlib.TopologicalSorter({name: allowed for name, allowed in MAY_IMPORT.items() if allowed != EVERYTHING}).prepare()


@pytest.mark.parametrize("module", [name for name in SOURCES if name.split(".")[0] in (PACKAGE, "redact", "legacy")])
def test_only_pickle_files_unpickle_and_nobody_prints_or_executes_text(module: str) -> None:
    assert list(forbidden_calls(TREES[module], module)) == []


@pytest.mark.parametrize(
    "source",
    [
        "print('hello')",
        "exec(text)",
        "import pickle\npickle.load(file)",
        "import pickle as p\np.Unpickler(file)",
        "from pickle import loads as read\nread(data)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
    ],
)
def test_a_forbidden_call_is_seen(source: str) -> None:
    assert len(list(forbidden_calls(ast.parse(source), f"{PACKAGE}.network"))) == 1


def test_sizes() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES.values()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE and name not in STANDS_ALONE} == {}
    longest = {f"{name}.{function}": lines for name, tree in TREES.items() for function, lines in functions(tree)}
    assert {name: lines for name, lines in longest.items() if lines > LONGEST_FUNCTION} == {}


def test_every_source_file_names_its_licence_and_says_what_it_is() -> None:
    """Empty `__init__.py` files say nothing and need nothing."""
    texts = {path: path.read_text(encoding="utf-8") for path in [*SOURCES.values(), *(ROOT / "tests").rglob("*.py")]}
    assert [str(path) for path, text in texts.items() if text and not text.startswith(SPDX + "\n")] == []
    assert [str(path) for path, text in texts.items() if (tree := ast.parse(text)).body and not ast.get_docstring(tree)] == []


def test_nothing_names_a_path_of_a_private_machine() -> None:
    found = []
    for path in committed():
        data = path.read_bytes()
        data = LITERALS_OF_TESTS.sub(b"", data) if (ROOT / "tests") in path.parents else data
        found += [f"{path.relative_to(ROOT)}: {match.group()!r}" for match in PRIVATE_PATH.finditer(data)]
    assert found == []


def test_a_private_path_is_seen() -> None:
    assert all(PRIVATE_PATH.search(b"see " + start + b"x/y") for start in (b"/work" + b"/", b"/root" + b"/", b"/home" + b"/"))
    assert not PRIVATE_PATH.search(b"https://example.org/docs" + b"/work" + b"/x and ~/network.pkl")


IMPORT_ALL = """
import importlib, json, os, random, sys, warnings
import numpy as np, torch
strangers, modules = json.loads(sys.argv[1])
for statement in strangers:
    try:
        exec(statement)
    except ImportError:  # Not on this Python, or not installed: then whoever imports it does so on demand.
        pass

def state():
    return {
        "grad mode": torch.is_grad_enabled(), "dtype": torch.get_default_dtype(), "device": torch.get_default_device(),
        "threads": torch.get_num_threads(), "torch RNG": torch.random.get_rng_state().tolist(), "NumPy RNG": str(np.random.get_state()),
        "Python RNG": random.getstate(), "streams": [id(sys.stdout), id(sys.stderr)], "warnings": list(warnings.filters),
        "environment": dict(os.environ), "path": list(sys.path), "folder": os.getcwd(), "hooks": [sys.excepthook, sys.displayhook],
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic], "tf32": torch.backends.cuda.matmul.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(), "printing": vars(torch._tensor_str.PRINT_OPTS).copy(),
        "functions": [torch.load, torch.save, torch.nn.functional.conv2d, torch.nn.functional.grid_sample],
    }

def offline(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise AssertionError(f"importing uses the network: {event} {arguments}")

sys.addaudithook(offline)

before = state()
for name in modules:
    importlib.import_module(name)
    now = state()
    changed = [key for key in before if before[key] != now[key]]
    if changed:
        sys.exit(f"importing {name} changed: {', '.join(changed)}")
"""


def strangers() -> list[str]:
    """Every import statement for other people's modules: what these change (SciPy adds filters of warnings) is not ours to answer for."""
    nodes = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    roots = {
        ast.unparse(node): (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in nodes
        if not getattr(node, "level", 0)
    }
    return sorted(text for text, root in roots.items() if root.split(".")[0] not in (*TOP, "__future__"))


def changed_by_importing(modules: list[str], folder: Path) -> str:
    """What importing the modules one after the other in a fresh process changes; other people's modules are imported before."""
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(folder)]!r}\n{IMPORT_ALL}"
    done = subprocess.run([sys.executable, "-c", code, json.dumps([strangers(), modules])], capture_output=True, text=True, cwd=folder)
    return "" if done.returncode == 0 else done.stderr.strip()


def test_importing_changes_nothing(tmp_path: Path) -> None:
    """Also the counter-check, in the same process to save time: the last module imported does change something."""
    (tmp_path / "meddler.py").write_text("import torch\ntorch.manual_seed(1)\n")
    assert changed_by_importing([*SOURCES, "meddler"], tmp_path) == "importing meddler changed: torch RNG"
