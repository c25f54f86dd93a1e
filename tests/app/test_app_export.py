"""export.py: results are written where their paths led before the build, whatever a RUN made of them since."""

import io
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from kpy.app.export import Exports
from kpy.app.options import BuildOptions, Environment, OutputSpec
from kpy.app.resolver import Resolver
from kpy.cli.record import recorded
from kpy.errors import ContextError, UsageError
from kpy.events import silent
from kpy.registry.client import RegistryClient
from kpy.store.store import Store
from kpy.util.cancel import Cancel


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "builder").mkdir()
    (tmp_path / "opt" / "out").mkdir(parents=True)
    return tmp_path


def _exports(top: Path, *, live: bool, dest: str = "opt/out") -> Exports:
    options = BuildOptions(context="builder", outputs=(OutputSpec("local", dest),), metadata_file="opt/metadata")
    environment = Environment({}, str(top), io.BytesIO(), io.BytesIO())
    with Cancel() as cancel:
        return Exports(
            options, environment, cast(Store, None), cast(RegistryClient, None), cast(Resolver, None), silent, cancel, live=live
        )


def _checked(top: Path, *, live: bool, dest: str = "opt/out") -> Exports:
    exports = _exports(top, live=live, dest=dest)
    exports.check()
    return exports


def test_a_directory_that_became_a_link_is_not_written_to(top: Path) -> None:
    exports = _checked(top, live=True)
    assert exports.place("opt/out") == top / "opt" / "out"

    (top / "opt" / "out").rmdir()
    (top / "opt" / "out").symlink_to(top / "builder")

    with pytest.raises(ContextError, match=f"cannot write opt/out: {top}/opt/out leads to {top}/builder now"):
        exports.place("opt/out")


def test_a_directory_above_that_became_a_link_is_not_either(top: Path) -> None:
    exports = _checked(top, live=True)
    (top / "opt").rename(top / "old")
    (top / "opt").symlink_to(top / "builder")

    with pytest.raises(ContextError, match="leads to"):
        exports.place("opt/out")


def test_links_of_the_user_are_followed_but_not_live(top: Path) -> None:
    (top / "mine").symlink_to("opt")
    exports = _checked(top, live=False, dest="mine/out")
    assert exports.place("mine/out") == top / "opt" / "out"

    with pytest.raises(UsageError, match=f"cannot write mine/out: it leads through a link, to {top}/opt/out"):
        _exports(top, live=True, dest="mine/out").check()


def test_a_file_that_is_replaced_may_have_become_a_link(top: Path) -> None:
    """It is written beside the link, and renamed over it."""
    exports = _checked(top, live=True)
    (top / "opt" / "metadata").symlink_to(top / "builder" / "login")

    assert exports.place("opt/metadata", replaced=True) == top / "opt" / "metadata"
    with pytest.raises(ContextError, match="leads to"):
        exports.place("opt/metadata")


def test_a_link_at_the_name_of_an_archive_is_kept_for_who_replaces_it(top: Path) -> None:
    (top / "opt" / "image.tar").symlink_to(top / "builder" / "login")
    options = BuildOptions(context=".", outputs=(OutputSpec("oci", "opt/image.tar"),))
    environment = Environment({}, str(top), io.BytesIO(), io.BytesIO())
    with Cancel() as cancel:
        exports = Exports(options, environment, cast(Store, None), cast(RegistryClient, None), cast(Resolver, None), silent, cancel, live=True)
    exports.check()

    assert exports.place("opt/image.tar", replaced=True) == top / "opt" / "image.tar"


HOSTILE = {
    "local": (OutputSpec("local", "{0}/out"), "out"),
    "below a link": (OutputSpec("local", "{0}/out/deep/er"), "out"),
    "a link in between": (OutputSpec("local", "{0}/real/out/x"), "real/out"),
    "oci": (OutputSpec("oci", "{0}/out", {"tar": "false"}), "out"),
    "blobs": (OutputSpec("oci", "{0}/layout", {"tar": "false"}), "layout/blobs/sha256"),
    "a lock": (OutputSpec("oci", "{0}/locked", {"tar": "false"}), "locked/index.json.lock"),
    "tar": (OutputSpec("tar", "{0}/out/a.tar"), "out"),
    "oci, an archive": (OutputSpec("oci", "{0}/out/a.tar"), "out"),
    "docker": (OutputSpec("docker", "{0}/out/a.tar"), "out"),
}


@pytest.fixture
def hostile(top: Path) -> Path:
    """A context with links to somebody's home, below one of the user's own."""
    home = top / "home"
    context = top / "data" / "c"
    for path in (home, context / "real", context / "layout" / "blobs", context / "locked"):
        path.mkdir(parents=True)
    (top / "link").symlink_to("data")
    for place in ("out", "real/out", "layout/blobs/sha256", "locked/index.json.lock", "file"):
        (context / place).symlink_to(home)
    return context


def _of(top: Path, **options: object) -> Exports:
    given = BuildOptions(**{"context": "opt", **options})  # type: ignore[arg-type]
    environment = Environment({}, str(top), io.BytesIO(), io.BytesIO())
    with Cancel() as cancel:
        return Exports(
            given, environment, cast(Store, None), cast(RegistryClient, None), cast(Resolver, None), silent, cancel
        )


@pytest.mark.parametrize("named", ["link/c", "data/c", "data/../link/c"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_link_of_a_context_chooses_no_place(top: Path, hostile: Path, what: str, named: str) -> None:
    output, link = HOSTILE[what]
    output = replace(output, dest=output.dest.format(named))

    with pytest.raises(UsageError, match=f"cannot write {output.dest}: {link} is a link in the build context, to {top}/home"):
        _of(top, context="link/c", outputs=(output,)).check()
    with pytest.raises(UsageError, match="is a link in the build context"):
        _of(top, build_contexts=(("x", "data/c"),), outputs=(output,)).check()
    assert list((top / "home").iterdir()) == []


@pytest.mark.parametrize("field", ["iidfile", "metadata_file"])
def test_nor_does_it_for_small_files(top: Path, hostile: Path, field: str) -> None:
    with pytest.raises(UsageError, match="out is a link in the build context"):
        _of(top, context="link/c", **{field: "link/c/out/id"}).check()
    with pytest.raises(UsageError, match="file is a link in the build context"):
        _of(top, context="link/c", written_later=("link/c/file",)).check()


def test_nor_for_a_record_of_progress(top: Path, hostile: Path) -> None:
    options = BuildOptions("link/c", progress_file="link/c/file")
    with pytest.raises(UsageError, match="cannot write link/c/file: file is a link in the build context"), recorded(options, str(top)):
        pass


def test_what_is_no_link_in_a_context_is_written_to(top: Path, hostile: Path) -> None:
    """The way to the context is the user's own. And a link that an archive replaces does no harm."""
    exports = _of(top, context="link/c", outputs=(OutputSpec("local", "link/c/new/dir"), OutputSpec("oci", "link/c/file")))
    exports.check()
    assert exports.place("link/c/new/dir") == hostile / "new" / "dir"
    assert exports.place("link/c/file", replaced=True) == hostile / "file"
