"""export.py: results are written where their paths led before the build, whatever a RUN made of them since."""

import io
from pathlib import Path
from typing import cast

import pytest

from kpy.app.export import Exports
from kpy.app.options import BuildOptions, Environment, OutputSpec
from kpy.app.resolver import Resolver
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
    options = BuildOptions(context=".", outputs=(OutputSpec("local", dest),), metadata_file="opt/metadata")
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
