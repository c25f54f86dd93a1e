"""Nothing that is read of a context lies outside of it, whatever becomes of its links, and with any kernel."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.leftout import left_out
from kpy.buildcontext.root import Root
from kpy.dockerfile.dockerignore import Ignore
from kpy.errors import ContextError
from kpy.linux import libc, seccomp, syscalls
from tests.privileges import make_device, needs_root

SECRET = b"secret"


@pytest.fixture
def area(tmp_path: Path) -> Path:
    """A context, and beside it files of the same names and states: only their content tells which is read."""
    for top, content in (("context", b"inside"), ("outside", SECRET)):
        (tmp_path / top / "d" / "e").mkdir(parents=True)
        for name in ("f", "d/f", "d/e/f"):
            (tmp_path / top / name).write_bytes(content)
            os.utime(tmp_path / top / name, ns=(5, 5))
    return tmp_path


def without_openat2(number: int, do: Callable[[], object]) -> object:
    """Do it in a thread for which openat2(2) fails, as under old kernels (ENOSYS) and seccomp profiles (EPERM)."""
    outcome: list[object] = []

    def run() -> None:
        arch = syscalls.native()
        assert arch is not None
        seccomp.no_new_privs()
        seccomp.install(seccomp.assemble(arch, {"openat2": (seccomp.Rule(seccomp.fail(number)),)}), arch)
        with pytest.raises(OSError) as caught:
            libc.openat2(libc.AT_FDCWD, b".", os.O_PATH, 0)
        assert caught.value.errno == number
        try:
            outcome.append(do())
        except BaseException as error:  # noqa: BLE001 - it is given on
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert outcome
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def with_openat2(do: Callable[[], object]) -> object:
    return do()


@pytest.fixture(params=["openat2", "ENOSYS", "EPERM"])
def here(request: pytest.FixtureRequest) -> Callable[[Callable[[], object]], object]:
    if request.param == "openat2":
        return with_openat2
    number = getattr(errno, request.param)
    return lambda do: without_openat2(number, do)


@pytest.fixture
def context(area: Path) -> Iterator[DirectoryContext]:
    with DirectoryContext(str(area / "context")) as found:
        yield found


def test_what_is_there_is_read(context: DirectoryContext, here: Callable[..., object]) -> None:
    def read() -> list[bytes]:
        found = []
        for path in ("f", "d/f", "d/e/f"):
            entry = context.lookup(path)
            assert entry is not None
            with context.open(entry) as stream:
                found.append(stream.read())
        assert context.children("d") == ["e", "f"]
        assert [entry.path for entry in context.listing("d")] == ["d/e", "d/f"]
        return found

    assert here(read) == [b"inside"] * 3


@pytest.mark.parametrize(("path", "replaced"), [("d/f", "d"), ("d/e/f", "d"), ("d/e/f", "d/e"), ("f", "f")])
def test_a_parent_that_becomes_a_link_between_the_look_and_the_reading(
    area: Path, context: DirectoryContext, here: Callable[..., object], path: str, replaced: str
) -> None:
    """COPY lists first and reads later. Only the last name was guarded, not those above it."""
    entry = context.lookup(path)
    assert entry is not None
    (area / "context" / replaced).rename(area / "old")
    (area / "context" / replaced).symlink_to(area / "outside" / replaced)

    def read() -> object:
        with pytest.raises(ContextError, match=f"cannot read {path} in the build context"):
            context.open(entry)
        return None

    here(read)


def test_a_directory_that_becomes_a_link_is_not_listed(area: Path, context: DirectoryContext, here: Callable[..., object]) -> None:
    assert context.children("d/e") == ["f"]
    (area / "context" / "d").rename(area / "old")
    (area / "context" / "d").symlink_to(area / "outside" / "d")
    (area / "outside" / "d" / "e" / "name").touch()

    def look() -> object:
        with pytest.raises(ContextError, match="cannot list d/e"):
            context.children("d/e")
        return context.lookup("d/e/name")

    assert here(look) is None


def test_the_context_itself_that_becomes_a_link(area: Path, context: DirectoryContext) -> None:
    """It is held by a descriptor from the beginning."""
    entry = context.lookup("d/f")
    assert entry is not None
    (area / "context").rename(area / "old")
    (area / "context").symlink_to("outside")
    with context.open(entry) as stream:
        assert stream.read() == b"inside"


@needs_root
def test_a_file_that_becomes_a_device_is_not_read(area: Path, context: DirectoryContext) -> None:
    entry = context.lookup("f")
    assert entry is not None
    (area / "context" / "f").unlink()
    make_device(area / "context" / "f")
    with pytest.raises(ContextError, match="changed during the build"):
        context.open(entry)


def test_what_lies_behind_a_link_is_not_even_said_to_be_there(area: Path) -> None:
    """The hint for an excluded file once told whether a file of this machine exists."""
    (area / "context" / "out").symlink_to("../outside")
    with DirectoryContext(str(area / "context"), Ignore.of(["out/*", "f"])) as context:
        assert context.exists_but_excluded("f")
        assert not context.exists_but_excluded("out/f")


def test_what_is_left_out_is_counted_in_the_context_alone(area: Path) -> None:
    (area / "context" / "d" / "out").symlink_to(area / "outside")
    with DirectoryContext(str(area / "context"), Ignore.parse(b"d\n")) as context:
        (found,) = left_out(context)
    assert (found.path, found.is_directory, found.files) == ("d", True, 3)
    assert found.size == 6 + 6 + len(str(area / "outside"))


@pytest.mark.parametrize("path", ["..", "../outside/f", "d/../../outside/f", "d/../f", "/f", "f\0x"])
def test_paths_that_are_none(area: Path, path: str) -> None:
    root = Root(str(area / "context"))
    try:
        with pytest.raises((OSError, ValueError)):
            os.close(root.regular(path) if path != "d/../f" else root.directory(".."))
    finally:
        root.close()
        root.close()
