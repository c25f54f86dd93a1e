"""The floors of the house: imports go down, never up, never sideways; files stay small; only cli prints and exits."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1] / "kpy"
FLOORS = {
    "errors": 0,
    "util": 1,
    "oci": 2,
    "dockerfile": 3, "layer": 3, "linux": 3, "events": 3,
    "emulation": 3.5,  # linux to its users, a sandbox's inside: the sandboxes alone know of it
    "plan": 4, "registry": 4, "store": 4, "snapshot": 4, "sandbox": 4, "buildcontext": 4,
    "cache": 5,
    "solver": 6,
    "exporter": 7, "attest": 7, "signing": 7,
    "app": 8,
    "cli": 9,
    "__main__": 10,
}  # fmt: skip
PURE = {"errors", "events", "oci", "dockerfile", "plan"}
EFFECTS = {"os", "subprocess", "socket", "requests", "shutil", "tempfile", "urllib", "ctypes", "threading"}
HEAVY = {"requests", "cryptography", "rich"}
LONGEST = 400
PROGRAMS = {"sandbox/child.py", "sandbox/supervisor.py"}


def room(path: Path) -> str:
    """The package, or the module at the top, that a file belongs to."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str, int]]:
    """Line, dotted name and relative level of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "kpy" else [module]
            yield from ((node.lineno, name, node.level) for name in names)


def faults_of_import(mine: str, name: str, level: int) -> Iterator[str]:
    """What is wrong with one import of a module that lives in the room `mine`."""
    if level:
        yield "relative import"
        return
    top, _, rest = name.partition(".")
    if top != "kpy":
        if mine in PURE and top in EFFECTS:
            yield f"{mine} is pure, but imports {name}"
        return
    theirs = rest.partition(".")[0]
    if theirs in ("", "__version__", mine):
        return
    if theirs not in FLOORS:
        yield f"{theirs} has no floor"
    elif FLOORS[theirs] >= FLOORS[mine]:
        yield f"{mine} (floor {FLOORS[mine]}) imports {theirs} (floor {FLOORS[theirs]})"


def speech(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Prints, exits, and reads of the process's environment: the command line's business."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("print", "exit", "quit", "input")
        ):
            yield node.lineno, f"{node.func.id}()"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            said = f"{node.value.id}.{node.attr}"
            if said in (
                "sys.exit",
                "os.environ",
                "os.environb",
                "os.getenv",
                "sys.stdout",
                "sys.stderr",
                "sys.argv",
            ):
                yield node.lineno, said
        elif isinstance(node, ast.Name) and node.id == "SystemExit":
            yield node.lineno, "SystemExit"


def faults(path: Path, text: str) -> list[str]:
    """All that is wrong with a file."""
    tree, mine = ast.parse(text), room(path)
    shown = path.relative_to(HOUSE.parent)
    if mine == "__init__":
        return [f"{shown}:{line}: the version stands alone" for line, *_ in imports(tree)]
    if mine not in FLOORS:
        return [f"{shown}: {mine} has no floor"]
    found = [
        f"{shown}:{line}: {fault}"
        for line, name, level in imports(tree)
        for fault in faults_of_import(mine, name, level)
    ]
    # A program that the sandbox starts is a process of its own: it exits, and it reads what it was given.
    if mine not in ("cli", "__main__") and path.relative_to(HOUSE).as_posix() not in PROGRAMS:
        found += [f"{shown}:{line}: {said} outside cli" for line, said in speech(tree)]
    found += [f"{shown}:1: no docstring"] if ast.get_docstring(tree) is None else []
    lines = text.count("\n")
    found += [f"{shown}: {lines} lines"] if lines > LONGEST else []
    return found


def test_the_house_stands() -> None:
    files = sorted(HOUSE.rglob("*.py"))
    assert len(files) > 20
    assert [fault for path in files for fault in faults(path, path.read_text())] == []


def test_heavy_modules_are_imported_where_needed() -> None:
    """`rich` only for terminals; nothing heavy while the command line is read."""
    found = []
    for path in [*HOUSE.glob("*.py"), *(HOUSE / "cli").glob("*.py"), *(HOUSE / "app").glob("*.py")]:
        if path.name == "progress_tty.py":
            continue
        for node in ast.parse(path.read_text()).body:
            found += [
                f"{path.name}: {name}"
                for _, name, _ in imports(node)
                if isinstance(node, ast.Import | ast.ImportFrom) and name.partition(".")[0] in HEAVY
            ]
    assert found == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("store/a.py", "from kpy.solver.x import y", "floor 6"),
        ("store/a.py", "from kpy import solver", "floor 6"),
        ("store/a.py", "import kpy.registry.http", "imports registry"),
        ("store/a.py", "def f():\n    from kpy.snapshot import base", "imports snapshot"),
        ("store/a.py", "from . import x", "relative"),
        ("store/a.py", "from ..oci import x", "relative"),
        ("oci/a.py", "import os.path", "pure"),
        ("plan/a.py", "from subprocess import run", "pure"),
        ("plan/a.py", "from kpy.store.layout import x", "imports store"),
        ("attic/a.py", "", "no floor"),
        ("solver/a.py", "from kpy.attic import x", "no floor"),
        ("solver/a.py", "print(1)", "print() outside cli"),
        ("solver/a.py", "import sys\nsys.exit(1)", "sys.exit outside cli"),
        ("app/a.py", "import os\nx = os.environ['HOME']", "os.environ outside cli"),
        ("util/a.py", "raise SystemExit(1)", "SystemExit outside cli"),
        ("util/a.py", '"""x"""\n' * 401, "401 lines"),
        ("util/a.py", "x = 1", "no docstring"),
        ("__init__.py", "import os", "stands alone"),
    ],
)
def test_planted_faults_are_found(file: str, text: str, expected: str) -> None:
    assert any(expected in fault for fault in faults(HOUSE / file, text))


def test_downward_imports_are_fine() -> None:
    text = '"""x"""\nimport os\nfrom kpy import __version__\nfrom kpy.util.cancel import Cancel\nfrom kpy.store.b import c\n'
    assert faults(HOUSE / "store" / "a.py", text) == []
