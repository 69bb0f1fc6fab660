"""Who imports whom, read from the source: imports inside functions and under TYPE_CHECKING count as all others do."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfaudiotl

ROOT = Path(__file__).parents[1]


def modules(package: str) -> dict[str, Path]:
    """Every module of a package beside this file's folder, by its dotted name."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, importer: str, known: set[str], *, is_package: bool = False) -> set[str]:
    """Which of ``known`` the source of ``importer`` names; ``from a import b`` is a.b where that is a module."""
    return {module for module in _named(ast.parse(source), importer, known, is_package) if module in known} - {importer}


def _named(tree: ast.AST, importer: str, known: set[str], is_package: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = importer.split(".")[: None if is_package else -1]
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield name if name in known else origin
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(part.value) for part in node.args if isinstance(part, ast.Constant))


def graph(package: str) -> dict[str, set[str]]:
    """Each module of the package with those of the package that it imports."""
    found = modules(package)
    return {
        name: imported(path.read_text(encoding="utf-8"), name, set(found), is_package=path.name == "__init__.py")
        for name, path in found.items()
    }


@pytest.mark.parametrize(
    "source",
    [
        "import p.b",
        "import p.b as b, os",
        "from p import b",
        "from p.b import anything",
        "from . import b",
        "from .b import anything",
        "def f():\n    import p.b",
        "if TYPE_CHECKING:\n    from p.b import anything",
        "try:\n    from p.b import anything\nexcept ImportError:\n    pass",
        "importlib.import_module('p.b')",
    ],
)
def test_every_way_to_import_is_seen(source: str) -> None:
    assert imported(source, "p.a", {"p", "p.a", "p.b", "p.c"}) == {"p.b"}


def test_what_is_no_import_of_the_package_is_not_seen() -> None:
    assert imported("import os\nfrom q.b import c\nfrom p.a import d\nx = 'p.b'", "p.a", {"p", "p.a", "p.b"}) == set()
    assert imported("from .c import x", "p.q", {"p", "p.c", "p.q", "p.q.c"}, is_package=True) == {"p.q.c"}


def test_tests_share_helpers_and_nothing_else() -> None:
    for name, used in graph("tests").items():
        assert not [other for other in used if other.rpartition(".")[2].startswith("test_")], name


# The package from the top: what is in a row imports from the rows below it. Names are folders, or modules of no folder.
ROWS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("workflow", "card", "demo"),
    ("export",),
    ("labelling",),
    ("runtime",),
    ("training",),
    ("classifiers",),
    ("embeddings",),
    ("data",),
    ("evaluation",),
    ("tflite",),
    ("augment",),
    ("backbones",),
    ("audio",),
    ("devices", "errors", "markdown"),  # the ground floor, with every module of no folder whose name begins with _
)
ROW = {name: number for number, names in enumerate(ROWS) for name in names}


def row(module: str) -> int | None:
    """Which of ``ROWS`` a module is in; None: in none, which is an error."""
    name = module.split(".")[1]
    ground = name.startswith("_") and module.count(".") == 1
    return ROW.get(name, len(ROWS) - 1 if ground else None)


def package_graph() -> dict[str, set[str]]:
    """Without the package's own module, which stands above all and which no other imports."""
    found = graph("tfaudiotl")
    del found["tfaudiotl"]
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        graphlib.TopologicalSorter(package_graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_every_module_has_its_row() -> None:
    assert not [module for module in package_graph() if row(module) is None]


def test_no_module_imports_from_a_row_above() -> None:
    upwards = []
    for module, others in package_graph().items():
        for used in others:
            assert used != "tfaudiotl", f"{module} imports tfaudiotl itself"
            above, own = row(used), row(module)
            if above is not None and own is not None and above < own:
                upwards.append(f"{module} imports {used}")
    assert not upwards, "\n".join(sorted(upwards))


def imports_keras_first(path: Path) -> bool:
    """Whether a module imports Keras when it is imported itself."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    named = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    return "keras" in named


def test_a_module_that_brings_keras_may_come_first() -> None:
    """Importing Keras registers the package's layers, while the module that imported Keras is still empty.

    So what the modules of layers rest on gives them no names, unless its folder imports Keras before it.
    """
    paths, uses = modules("tfaudiotl"), package_graph()
    beneath, waiting = set(), [f"tfaudiotl.{name}" for name in vars(tfaudiotl)["WITH_LAYERS"]]
    while waiting:
        if (module := waiting.pop()) not in beneath:
            beneath.add(module)
            waiting += uses[module]
    empty = {
        module
        for module in beneath
        if imports_keras_first(paths[module])
        and ((folder := module.rpartition(".")[0]) == "tfaudiotl" or not imports_keras_first(paths[folder]))
    }
    assert "tfaudiotl.devices" in empty
    assert [
        f"{module} takes names from {node.module}"
        for module in sorted(beneath)
        for node in ast.parse(paths[module].read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module in empty
    ] == []
