"""No loop over somebody else's bytes or files forgets that a build can be told to end, and no thread does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1] / "kpy"
READS = {
    "read", "read1", "readinto", "readv", "recv", "pread", "preadv", "copy_file_range", "sendfile", "chunks", "scandir", "listdir",
    "walk", "iterdir", "directories", "unlink",
}  # fmt: skip
LOOKS = {"checkpoint", "checked", "pieces", "look", "check", "looks"}
ELSEWHERE = ("emulation/", "sandbox/", "linux/probe.py", "linux/survey.py")
"""What runs in processes of its own, beside a RUN, and is ended with it (kpy.sandbox.attend); or before a build."""

ENDS = {
    "app/doctor.py:_facts": "one file of /proc",
    "app/images.py:_platforms": "manifests of images in the store, whose size is limited",
    "app/images.py:list_images": "the same",
    "app/incontext.py:read": "a Dockerfile, whose size is limited",
    "app/sources.py:_first": "1 KiB",
    "app/ssh.py:_exactly": "a message of an agent, whose size is limited; `stop` ends it",
    "buildcontext/git.py:_tidy": "what git itself made in a new repository",
    "exporter/archive.py:write_tar": "_Whole.read looks",
    "layer/decompress.py:_members": "_Source.read looks, and whoever takes what it yields",
    "layer/extract.py:_copy": "Content.chunks looks",
    "layer/index.py:_scan": "read_tar and Content.chunks look",
    "layer/rootdir.py:directory": "one path, and at most 255 links",
    "layer/sparse.py:expand": "what reads looks",
    "layer/treesource.py:_store": "Content.chunks looks",
    "linux/mount.py:_below": "the mounts of this process",
    "registry/credentials.py:load": "the few files of logins",
    "snapshot/overlay.py:prepare": "no file: it ends the readers of a mount",
    "snapshot/slots.py:_find": "the names in /",
    "snapshot/slots.py:_inhabited": "the names in /",
    "snapshot/slots.py:_is_for_us": "the names in a mount of the container",
    "snapshot/stack.py:_id_map_digest": "two files of /proc",
    "snapshot/stack.py:_sweep": "what killed builds left; erase.remove looks",
    "snapshot/stack.py:held": "_size looks",
    "solver/archive.py:add": "Content.chunks looks",
    "solver/cachemounts.py:_leftovers": "what is beside one cache",
    "solver/hashing.py:_drop_old": "32 files",
    "solver/hashing.py:used": "ContentHashes.save: one write of 48 bytes for each file of a context",
    "store/blobs.py:digests": "names of a directory",
    "store/store.py:diff_ids": "names of a directory",
    "store/store.py:forget": "two files",
    "store/store.py:remove_stale": "what killed builds left; fs.remove_tree looks",
    "util/erase.py:_empty_all": "names of a directory",
    "util/fs.py:remove_stale": "temporary files of kpy's own",
    "util/locks.py:_ancestors": "processes above this one",
}
"""Loops that end soon, or look where this test does not see it, and why."""


def calls(node: ast.AST) -> Iterator[str]:
    """What is called in a loop itself, and not in functions that it defines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Call):
            name = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
            yield "looks" if isinstance(child.func, ast.Name) and name == "walk" else name  # kpy.solver.lookup.walk
        yield from calls(child)


def forgetful(text: str) -> Iterator[str]:
    """The functions with a loop that reads and never looks."""
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.For | ast.While | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                called = set(calls(node))
                if called & READS and not called & LOOKS:
                    yield function.name


def places() -> dict[str, str]:
    """The files that are looked at, by their names in `kpy`."""
    files = {path.relative_to(HOUSE).as_posix(): path.read_text() for path in sorted(HOUSE.rglob("*.py"))}
    return {name: text for name, text in files.items() if not name.startswith(ELSEWHERE)}


def test_every_loop_that_reads_looks_whether_it_is_to_end() -> None:
    found = {f"{name}:{function}" for name, text in places().items() for function in forgetful(text)}
    assert found - ENDS.keys() == set()
    assert ENDS.keys() - found == set()


def test_every_thread_is_started_where_it_gets_its_end() -> None:
    allowed = {"util/threads.py", "cli/interrupt.py", "app/ssh.py"}  # those of the last are ended by `stop`
    found = {name for name, text in places().items() if "ThreadPoolExecutor(" in text or "Thread(" in text or "start_new_thread(" in text}
    assert found - allowed == set()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("while data := s.read(9): pass", True),
        ("while data := s.read(9): checkpoint()", False),
        ("for name in os.listdir(d): pass", True),
        ("for name in checked(os.listdir(d)): pass", False),
        ("x = [n for n in os.scandir(d)]", True),
        ("for x in y: print(x)", False),
    ],
)
def test_planted_loops_are_found(body: str, fault: bool) -> None:  # noqa: FBT001
    assert bool(list(forgetful(f"def f(s, d, y):\n    {body}\n"))) == fault
