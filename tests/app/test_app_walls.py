"""What is open on which kernel, and that it is said."""

import pytest

from kpy.app import strategy
from kpy.app.walls import Kernel, describe, look, notes

NEW = Kernel(landlock=7, filters=True, filtered=True, admin=False)


def said(isolation: str, *, ids: bool, private_pids: bool = True, **changes: object) -> list[str]:
    kernel = Kernel(**{"landlock": 7, "filters": True, "filtered": False, "admin": False, **changes})  # type: ignore[arg-type]
    return [note.message for note in notes(isolation, kernel, ids=ids, private_pids=private_pids)]


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("private_pids", [True, False])
def test_where_all_walls_stand_nothing_is_said(ids: bool, private_pids: bool) -> None:
    assert said("userns", ids=ids, private_pids=private_pids, landlock=6) == []
    assert said("live", ids=False, landlock=6) == []


@pytest.mark.parametrize("version", range(6))
def test_before_version_6_sockets_and_perhaps_signals_are_open(version: int) -> None:
    (own,) = said("userns", ids=True, landlock=version)
    (shared,) = said("userns", ids=True, private_pids=False, landlock=version)
    (live,) = said("live", ids=False, landlock=version)

    for line in (own, shared, live):
        assert "abstract Unix sockets" in line
        assert ("no Landlock" in line) == (version == 0)
    assert "kill the builder" not in own
    assert "kill the builder" in shared
    assert "kill the builder" in live
    assert ("read and change the files" in live) == (version < 2)  # the first version counts as none
    assert "empty files" not in live  # kpy truncates files for a RUN
    assert "files" not in own + shared


def test_what_kpy_does_for_a_run_it_cannot_do_unasked() -> None:
    """Where it cannot answer calls: truncate, and connections to sockets with a path."""
    for version, emptied, connected in ((2, True, True), (3, False, True), (8, False, True), (9, False, False)):
        kernel = Kernel(landlock=version, filters=True, filtered=False, admin=False)
        text = " ".join(note.message for note in notes("live", kernel, ids=False, private_pids=False, listens=False))
        assert ("empty files" in text, "Unix sockets of the builder" in text) == (emptied, connected)


@pytest.mark.parametrize("isolation", ["live", "chroot"])
def test_real_root_is_the_builder(isolation: str) -> None:
    (line,) = said(isolation, ids=True, filtered=True)
    assert "root here as the builder is" in line
    assert said(isolation, ids=True, admin=True) == [line]
    assert said(isolation, ids=True) == ["system calls of a RUN are not filtered: nothing is between it and the whole kernel", line]


def test_a_kernel_without_filters() -> None:
    for isolation, ids in (("userns", True), ("userns", False), ("chroot", True)):
        assert any("not filtered" in line for line in said(isolation, ids=ids, filters=False, admin=True))


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (0, "none; not kept apart: files (Linux 5.19), their length (Linux 6.2), signals and abstract sockets (Linux 6.12)"),
        (1, "version 1; not kept apart: files (Linux 5.19), their length (Linux 6.2), signals and abstract sockets (Linux 6.12)"),
        (4, "version 4; kept apart: files, their length; not kept apart: signals and abstract sockets (Linux 6.12)"),
        (7, "version 7; kept apart: files, their length, signals and abstract sockets"),
    ],
)
def test_a_version_in_words(version: int, text: str) -> None:
    assert describe(version) == text


def test_this_kernel_can_be_asked() -> None:
    kernel = look()
    assert kernel.landlock >= 0
    assert kernel.filters


def test_a_place_has_its_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(strategy, "_choose", lambda *_: strategy.Place("chroot"))
    monkeypatch.setattr(strategy.walls, "look", lambda: NEW)
    (note,) = strategy.prepare("chroot", {}, tmp_path).notes  # type: ignore[arg-type]
    assert "root here as the builder is" in note.message
