"""Which room may import which, read off the source without running it, and what importing coretune loads.

The table is the plan of the house. A new room gets a line here; a new arrow is a decision, written into
docs/architecture.md. Imports under `TYPE_CHECKING` are names for the reader and count for nothing.
"""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "coretune"

# A room, and the rooms that it may import. `errors` and `shapes` are free to all.
ARROWS = {
    # what passes from room to room
    "errors": "",
    "shapes": "",
    "data": "",
    "atomic": "",
    "by_name": "",
    "pool": "",
    "selection": "",
    "answered": "pool",
    # files to pools and back
    "turns": "pool",
    "formats": "pool turns",
    "readers": "atomic formats pool scripts_of_text turns",
    "writers": "atomic pool readers",
    # arrays to arrays
    "distances": "",
    "partitions": "distances selection",
    "scores": "distances",
    "pickers": "distances selection",
    "orders": "scores",  # which rows a training learns next
    "projection": "partitions",
    "scripts_of_text": "",
    # what costs, and what remembers it
    "store": "",
    "models": "store",
    "chat": "models pool turns",
    "features": "chat judge models pool turns",
    "integrations": "orders tuning",  # orders inside other trainers
    "engines": "",
    "knowledge": "data features formats models pool readers store turns",  # text that can be searched
    "judge": "store",  # models behind an endpoint
    "tuning": "chat features models orders pool store",
    "lab": "features models orders pool store tuning",
    # what a model can do, and how sure a difference is
    "evaluation": "by_name chat features formats judge knowledge lab models option_text pool readers scripts_of_text "
    "store tuning turns",
    "statistics": "",
    "overlap": "evaluation features knowledge lab pool",
    "splits": "overlap pool",
    # methods, driven to a budget
    "cascade": "pickers selection",
    "quality": "features pool scores",
    "rounds": "features partitions pool selection",
    "methods": "answered by_name cascade distances features judge knowledge orders partitions pickers pool quality "
    "rounds scores selection tuning",
    "check": "chat models pool scripts_of_text",
    # a run and its page
    "run_folder": "pool",
    "round_folder": "run_folder",
    "pages": "round_folder run_folder",
    "report": "atomic pages run_folder",
    "run_facts": "knowledge methods models pool",
    "runs": "evaluation features knowledge lab methods overlap pool projection readers report round_folder "
    "rounds run_facts run_folder selection writers",
    "evaluation_runs": "evaluation features models run_facts run_folder store tuning",
    "option_text": "",
    "compare": "chat evaluation features knowledge lab methods models option_text overlap partitions pickers pool "
    "readers report rounds run_facts run_folder runs selection splits statistics store tuning",
    "advise": "compare lab readers splits",
    "tuning_runs": "lab pool readers report run_facts run_folder tuning",
    "coretune": "",  # imports what is asked of it when it is asked
    "terminal": "rounds",
    "command_options": "chat knowledge methods runs tuning",
    "cli": "advise check command_options compare engines evaluation evaluation_runs lab methods overlap readers report "
    "round_folder runs store terminal tuning_runs",
}

# A package, and the rooms that may import it. Those that take long to load, only inside functions.
EVERYONE = " ".join(ARROWS)
PACKAGES = {
    "numpy": EVERYONE,
    "pyarrow": "pool readers writers features knowledge check compare pages round_folder run_folder tuning_runs "
    "evaluation_runs",
    "zstandard": "readers",
    "tomli_w": "run_folder",
    "jinja2": "report",
    "rich": "terminal",
    "cyclopts": "cli command_options",
}
SLOW_PACKAGES = {
    "torch": "distances evaluation models features knowledge tuning integrations",
    "transformers": "models tuning integrations",
    "peft": "features tuning",
    "safetensors": "features tuning",
    "numba": "features pickers",
    "sentence_transformers": "models",
    "huggingface_hub": "models",
    "gguf": "models",
    "datasets": "readers",
    "openai": "judge",
    "ray": "engines.ray",
    "scipy": "statistics evaluation",
    "lm_eval": "evaluation",
    "langdetect": "evaluation",
}
OPTIONAL = {
    *SLOW_PACKAGES,
    "accelerate",
    "faiss",
    "jaxtyping",
    "numba",
    "pandas",
    "sklearn",
    "tokenizers",
}
# Parts turn arrays into arrays, and methods compose them: they touch no path and start no process.
WORLD = {"glob", "io", "multiprocessing", "os", "pathlib", "shutil", "subprocess", "tempfile", "threading"}
OUT_OF_THE_WORLD = {
    *["pool", "selection", "orders", "partitions", "scores", "pickers", "projection", "quality", "methods"]
}


@dataclass(frozen=True)
class Import:
    """One import: in which module and line, of what, and whether it waits until a function is called."""

    module: str
    line: int
    target: str
    waits: bool


def modules(source: Path) -> dict[str, Path]:
    """Every module under a package folder, by dotted name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    """The imports of one file, `need("torch", ...)` and `import_module("torch")` among them."""

    def visit(node: ast.AST, waits: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from visit(child, waits)
            return
        for target in targets(node):
            yield Import(module, node.lineno, target, waits)
        waits = waits or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, waits)

    def targets(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [name.name for name in node.names]
        if isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, path)
            return [f"{base}.{name.name}" if f"{base}.{name.name}" in known else base for name in node.names]
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("need", "import_module"):
            return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        return []

    yield from visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)), False)


def _absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    if not node.level:
        return node.module or ""
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])


def room(module: str) -> str:
    """The room that a module of coretune is in: `chat_spans.py` is part of `chat`; the ray engine is one of its own."""
    inside = [*module.split(".")[1:], ""]
    if inside[:2] == ["engines", "ray"]:
        return "engines.ray"
    name = inside[0] or "coretune"
    return name if name in ARROWS else next((one for one in ARROWS if name.startswith(f"{one}_")), name)


def may(one: str) -> set[str]:
    """The rooms that a room may import."""
    if one == "engines.ray":
        return {"engines", "errors"}
    return {one, "errors", "shapes", *ARROWS.get(one, "").split(), *(["engines.ray"] if one == "cli" else [])}


def complaint(each: Import) -> str | None:
    """What is wrong with an import, if anything."""
    here, package = room(each.module), each.target.split(".")[0]
    if package == "coretune":
        there = room(each.target)
        return None if there in may(here) else f"{here} may not import {there}"
    if package in SLOW_PACKAGES:
        if here not in SLOW_PACKAGES[package].split():
            return f"{here} may not import {package}"
        return None if each.waits or here == "engines.ray" else f"{package} is imported outside a function"
    if package in PACKAGES:
        return None if here in PACKAGES[package].split() else f"{here} may not import {package}"
    if package in sys.stdlib_module_names:
        return f"{here} may not import {package}" if package in WORLD and here in OUT_OF_THE_WORLD else None
    return f"package {package} is not in the table of this test"


def complaints(source: Path) -> list[str]:
    """Everything wrong with the imports under a package folder, as `FILE:LINE what`."""
    known = modules(source)
    found = [
        f"{known[each.module].relative_to(source)}:{each.line} {wrong}"
        for module, path in known.items()
        for each in imports(module, path, set(known))
        if (wrong := complaint(each))
    ]
    return list(dict.fromkeys(found)) + [
        f"room {one} has no line in the table" for one in sorted({*map(room, known)} - {*ARROWS, "engines.ray"})
    ]


def test_every_import_follows_an_arrow() -> None:
    found = complaints(SOURCE)
    assert not found, "\n".join(found)


def test_the_arrows_run_one_way() -> None:
    tuple(graphlib.TopologicalSorter({one: rooms.split() for one, rooms in ARROWS.items()}).static_order())


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        ("methods/new.py", "from coretune.store import Store", "methods/new.py:1 methods may not import store"),
        ("methods/new.py", "def f():\n    from coretune import lab", "methods/new.py:2 methods may not import lab"),
        ("methods/new.py", "from .. import lab", "methods/new.py:1 methods may not import lab"),
        ("methods/new.py", "def f():\n    need('torch', 'models')", "methods/new.py:2 methods may not import torch"),
        ("methods/new.py", "import pathlib", "methods/new.py:1 methods may not import pathlib"),
        ("features/new.py", "import torch.nn", "features/new.py:1 torch is imported outside a function"),
        ("lab.py", "import coretune.engines.ray", "lab.py:1 lab may not import engines.ray"),
        ("lab.py", "import tensorflow", "lab.py:1 package tensorflow is not in the table of this test"),
        ("helpers.py", "", "room helpers has no line in the table"),
    ],
)
def test_an_arrow_the_wrong_way_is_found(tmp_path: Path, file: str, text: str, wrong: str) -> None:
    for name in ("__init__.py", "lab.py", "store.py", "methods/__init__.py", "features/__init__.py", "engines/ray.py"):
        (tmp_path / "coretune" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "coretune" / name).touch()
    assert complaints(tmp_path / "coretune") == []
    (tmp_path / "coretune" / file).write_text(text)
    assert complaints(tmp_path / "coretune") == [wrong]


def test_a_right_arrow_and_a_name_for_the_reader_are_not(tmp_path: Path) -> None:
    (tmp_path / "coretune" / "features").mkdir(parents=True)
    (tmp_path / "coretune" / "pool.py").touch()
    (tmp_path / "coretune" / "features" / "new.py").write_text(
        "from typing import TYPE_CHECKING\nfrom coretune.pool import Pool\n"
        "if TYPE_CHECKING:\n    import torch\n    from coretune.cli import main\n"
        "def load():\n    import torch\n"
    )
    assert complaints(tmp_path / "coretune") == []


def loaded_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_coretune_loads_nothing_slow() -> None:
    loaded = loaded_after("import coretune")
    assert "coretune" in loaded and loaded & {*OPTIONAL, "numpy", "pyarrow", "rich"} == set()


def test_importing_every_module_loads_nothing_optional() -> None:
    names = [name for name in modules(SOURCE) if room(name) != "engines.ray"]
    loaded = loaded_after("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))
    assert {"coretune", "numpy"} <= loaded and loaded & OPTIONAL == set()
