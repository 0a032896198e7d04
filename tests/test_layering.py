"""The layering rule of CONTRIBUTING.md: who may import whom, and what must stay light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("storage", "stages", "pipeline")
"""From the bottom up; a layer imports itself and those before it."""
STEPS = ("prepare", "pretrain", "precompute", "distill", "text", "export")
SHARED = (
    "settings",
    "registry",
    "batching",
    "best_items",
    "full_softmax",
    "identifiers",
    "masks",
    "tables",
    "times",
    "atomic_files",
    "vector_files",
    "vectors",
)
"""Modules of `stages` that belong to no stage."""
NETWORKS = ("teachers", "students")
OPEN = {
    **{step: {*SHARED, "evaluate", *NETWORKS} for step in STEPS},
    # Adaptation and students' training choose their epoch on validation.
    # A network that can be both, such as SASRec, is written once.
    "teachers": {*SHARED, "evaluate", "students"},
    "students": {*SHARED, "evaluate"},
    "evaluate": {*SHARED},
    # What all stages share knows none of them.
    **{module: set(SHARED) for module in SHARED},
}
"""Part of `stages` to the other parts that it may import."""
TEACHERLESS = ("stages/distill", "stages/export", "stages/students", "stages/evaluate", "storage")
HEAVY = {"torch", "transformers"}
LIGHT = ("pipeline/cli.py", "pipeline/plan.py", "pipeline/steps.py")
LONGEST = 600


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is executed when a module is imported: no function bodies, nothing for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_module_level(child)


def named(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the dotted names that imports name; for ``from a import b`` both ``a`` and ``a.b``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(path: Path) -> set[str]:
    """Every name that a file imports anywhere, and every module of ours that it names in a string."""
    texts = (node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant))
    by_name = {text for text in texts if isinstance(text, str) and re.fullmatch(r"ckd(\.\w+){2,}", text)}
    return by_name | set(named(ast.walk(tree(path))))


def module_file(name: str) -> Path | None:
    """The file of one of our modules, or None: another's, or the name of something in a module."""
    if not name.startswith("ckd."):
        return None
    path = ROOT.joinpath(*name.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_with(path: Path) -> dict[str, str]:
    """Foreign top-level modules that importing a file of ours imports, each with the file of ours that does it."""
    found: dict[str, str] = {}
    todo, seen = [path], set()
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        todo += [package / "__init__.py" for package in file.parents if (package / "__init__.py").is_file()]
        for name in named(at_module_level(tree(file))):
            ours = module_file(name)
            if ours is not None:
                todo.append(ours)
            found.setdefault(name.partition(".")[0], relative(file))
    return found


def part(module: str) -> str:
    """``ckd.stages.text.encode`` -> ``text``."""
    return module.split(".")[2]


def test_there_is_something_to_check():
    assert {relative(path).partition("/")[0] for path in sources(*LAYERS)} == set(LAYERS)
    parts = {path.relative_to(ROOT / "stages").parts[0].removesuffix(".py") for path in sources("stages")}
    assert parts - {"__init__"} == set(OPEN)
    assert "ckd.stages.settings" in imports(ROOT / "stages/distill/settings.py")
    assert "torch" in imported_with(ROOT / "stages/distill/train.py")


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_downwards(layer):
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    wrong = {
        (relative(path), name)
        for path in sources(layer)
        for name in imports(path)
        if name.startswith("ckd.") and name.split(".")[1] in LAYERS and name.split(".")[1] not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("stage", OPEN)
def test_a_stage_imports_no_other_stage_but_evaluate_and_the_networks(stage):
    own = ROOT / "stages" / stage
    files = sources(f"stages/{stage}") if own.is_dir() else [own.with_suffix(".py")]
    wrong = {
        (relative(path), name)
        for path in files
        for name in imports(path)
        if name.startswith("ckd.stages.") and part(name) not in OPEN[stage] | {stage}
    }
    assert not wrong


@pytest.mark.parametrize("folder", TEACHERLESS)
def test_what_students_need_imports_no_teacher(folder):
    wrong = {
        (relative(path), name)
        for path in sources(folder)
        for name in imports(path)
        if name.startswith("ckd.stages.teachers")
    }
    assert not wrong


def test_storage_knows_nothing_of_networks():
    wrong = {
        (relative(path), name)
        for path in sources("storage")
        for name in imports(path)
        if name.partition(".")[0] in HEAVY | {"safetensors", "tokenizers"}
    }
    assert not wrong


def light_files() -> list[str]:
    named_so = [relative(path) for path in sources(*LAYERS) if path.name in ("settings.py", "address.py")]
    packages = [relative(path) for name in NETWORKS for path in sources(f"stages/{name}") if path.stem == "__init__"]
    return [*LIGHT, *named_so, *packages]


@pytest.mark.parametrize("file", light_files())
def test_settings_addresses_and_the_plan_import_nothing_heavy(file):
    """Not even through another module of ours."""
    found = imported_with(ROOT / file)
    assert {name: by for name, by in found.items() if name in HEAVY} == {}


def test_status_loads_neither_torch_nor_transformers(labelled):
    code = (
        "import sys; from ckd.pipeline.cli import main; code = main(['status']); "
        f"print('HEAVY', [name for name in {sorted(HEAVY)!r} if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=labelled.folder, capture_output=True, text=True, check=True)
    *table, last = done.stdout.splitlines()
    assert last == "HEAVY []"
    assert any("ckd distill" in line for line in table)


def test_every_package_is_installed():
    """An editable installation finds folders that setup.cfg forgets; the one that users make does not."""
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    named = set(metadata["options"]["packages"].split())
    folders = {path.parent for path in sources(*LAYERS)}
    assert named == {".".join(("ckd", *folder.relative_to(ROOT).parts)) for folder in folders}


def test_no_file_is_too_long_to_read_in_one_sitting():
    lengths = {relative(path): len(path.read_text().splitlines()) for path in sources(*LAYERS, "tests", "benchmarks")}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
