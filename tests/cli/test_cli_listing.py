"""`--call=context`: what is in the context, and which line of .dockerignore keeps what out (G10)."""

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kpy.cli import build
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError

Run = Callable[..., str]


@pytest.fixture
def run(make_terminal: Callable[..., Terminal], tmp_path: Path) -> Run:
    def running(*argv: str, stdin: bytes = b"", home: Path = tmp_path / "home") -> str:
        terminal = make_terminal(variables={"KPY_HOME": str(home)}, stdin=io.BytesIO(stdin))
        assert build.run(list(argv), terminal) == 0
        return terminal.stdout.getvalue().decode()  # type: ignore[attr-defined]

    return running


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    files = {
        "Dockerfile": "FROM scratch\n",
        ".dockerignore": "# what is large\nnode_modules\n*.log\n!keep.log\n*.log\n!keep.log\nnothing*\n",
        "node_modules/a/index.js": "x" * 5000,
        "node_modules/b.js": "y" * 700,
        "a.log": "z" * 30,
        "keep.log": "k",
        "src/main.c": "int main;",
    }
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
        (place / name).chmod(0o644)
    (place / "src/link").symlink_to("main.c")
    (place / "src/empty").mkdir()
    return place


def test_the_text(run: Run, context: Path) -> None:
    assert run("--call=context", str(context)).splitlines() == [
        "     SIZE  PATH",
        "      70B  .dockerignore",
        "      13B  Dockerfile",
        "       1B  keep.log",
        "       0B  src/link -> main.c",
        "       9B  src/main.c",
        "",
        " LEFT OUT  BY",
        "    5.7kB  .dockerignore:2  node_modules  (2 files)",
        "      30B  .dockerignore:3  *.log  (1 file)",
        "       0B  .dockerignore:5  *.log  (nothing)",
        "       0B  .dockerignore:7  nothing*  (nothing)",
        "",
        f"context {context}: 5 files, 93B; left out: 3 files, 5.7kB",
    ]


def test_json(run: Run, context: Path) -> None:
    ((found),) = json.loads(run("--call=context,format=json", str(context)))["contexts"]

    assert (found["context"], found["files"], found["size"], found["ignoreFile"]) == (str(context), 5, 93, ".dockerignore")
    assert [(item["path"], item["type"], item["mode"]) for item in found["entries"]] == [
        (".dockerignore", "file", "0644"), ("Dockerfile", "file", "0644"), ("keep.log", "file", "0644"),
        ("src", "directory", "0755"), ("src/empty", "directory", "0755"), ("src/link", "symlink", "0777"),
        ("src/main.c", "file", "0644"),
    ]  # fmt: skip
    assert found["leftOut"] == [
        {"path": "a.log", "type": "file", "files": 1, "size": 30, "line": 3, "pattern": "*.log"},
        {"path": "node_modules", "type": "directory", "files": 2, "size": 5700, "line": 2, "pattern": "node_modules"},
    ]
    assert [(item["line"], item["files"]) for item in found["patterns"]] == [(2, 2), (3, 1), (5, 0), (7, 0)]


def test_what_is_let_in_again_below_what_is_out(run: Run, context: Path) -> None:
    """G04: the rest of the directory is named file by file."""
    (context / ".dockerignore").write_text("node_modules\n!node_modules/a\n")

    (found,) = json.loads(run("--call=context,format=json", str(context)))["contexts"]

    assert [item["path"] for item in found["leftOut"]] == ["node_modules/b.js"]
    assert "node_modules/a/index.js" in [item["path"] for item in found["entries"]]


def test_the_ignore_file_of_the_dockerfile(run: Run, context: Path) -> None:
    """G01."""
    (context / "other.Dockerfile").write_text("FROM scratch\n")
    (context / "other.Dockerfile.dockerignore").write_text("*\n!src\n")

    shown = run("--call=context", "-f", str(context / "other.Dockerfile"), str(context))

    assert "other.Dockerfile.dockerignore:1  *  (" in shown
    assert [line.split()[1] for line in shown.splitlines()[1:3]] == ["src/link", "src/main.c"]


def test_the_largest_once_more_when_there_are_many(run: Run, context: Path) -> None:
    for number in range(12):
        (context / f"f{number:02}").write_text("x" * (100 + number))
    lines = run("--call=context", str(context)).splitlines()

    start = lines.index("  LARGEST") + 1
    assert lines[start : start + 2] == ["     111B  f11", "     110B  f10"]
    assert lines[start + 10] == ""


def test_named_directories_too(run: Run, context: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "one").write_text("1")
    found = json.loads(run("--call=context,format=json", "--build-context", f"lib={tmp_path}/lib", str(context)))["contexts"]

    assert [(item["context"], item["files"]) for item in found] == [(str(context), 5), ("lib", 1)]
    assert "ignoreFile" not in found[1]


def test_an_archive_on_standard_input(run: Run) -> None:
    """Nothing is left out of it (G08)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("Dockerfile", b"FROM scratch\n"), (".dockerignore", b"x\n"), ("x", b"xx")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    lines = run("--call=context", "-", stdin=out.getvalue()).splitlines()

    assert [line.split()[1] for line in lines[1:4]] == [".dockerignore", "Dockerfile", "x"]
    assert lines[-1] == "context -: 3 files, 17B"


def test_names_cannot_drive_the_terminal(run: Run, context: Path) -> None:
    (context / "\x1b[31mred").write_text("")
    assert "\x1b" not in run("--call=context", str(context))


def test_what_is_left_out_need_not_be_readable(run: Run, context: Path) -> None:
    with ordinary_user(context) as place:
        (place / "node_modules" / "a").chmod(0)
        assert "node_modules  (1 file)" in run("--call=context", str(place), home=place.parent / "home")
        (place / "node_modules" / "a").chmod(0o755)


@contextmanager
def ordinary_user(context: Path) -> Iterator[Path]:
    """A copy of the context that we own, and for this thread not to be root, who may read everything."""
    with tempfile.TemporaryDirectory() as area:
        place = Path(area) / "context"
        shutil.copytree(context, place, symlinks=True)
        if os.geteuid() != 0:
            yield place
            return
        for path in (Path(area), place, *place.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        os.seteuid(65534)
        try:
            yield place
        finally:
            os.seteuid(0)


def test_a_wrong_setting(run: Run, context: Path) -> None:
    with pytest.raises(UsageError, match="invalid setting"):
        run("--call=context,sizes", str(context))


def test_a_name_is_one_line(run: Run, context: Path) -> None:
    (context / "a  b\nerror: forged\x1b[31m\u2028::warning::x").write_text("x")
    lines = run("--call=context", str(context)).splitlines()
    assert "       1B  a  b error: forged ::warning::x" in lines
    assert not [line for line in lines if line.startswith(("error:", "::"))]
