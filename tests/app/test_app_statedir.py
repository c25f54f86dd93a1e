"""Whose the state directory is: nobody else may own it or write to it; in kpy's image it may be a volume of root's."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kpy.app import statedir
from kpy.app.options import Environment
from kpy.app.world import open_store, state_directory
from kpy.errors import StoreError
from kpy.store.store import Store
from tests.privileges import needs_root

ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path) -> Environment:
    return Environment({"KPY_HOME": str(home)}, str(home.parent), io.BytesIO(), io.BytesIO())


def opened(home: Path, *, mounted: bool) -> Path:
    """As `open_store` does it, in kpy's image or not."""
    directory = statedir.place(home, mounted=mounted)
    statedir.claim(directory, mounted=mounted)
    return Store(directory).directory


def made(home: Path, mode: int, uid: int = -1) -> Path:
    home.mkdir()
    os.chown(home, uid, -1)
    home.chmod(mode)
    return home


@pytest.mark.parametrize("mounted", [True, False])
def test_a_directory_that_is_not_there_is_made_for_us_alone(tmp_path: Path, mounted: bool) -> None:
    home = tmp_path / "a" / "state"
    for _ in range(2):
        assert opened(home, mounted=mounted) == home
        assert home.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2750])
@pytest.mark.parametrize("mounted", [True, False])
def test_a_directory_of_ours_is_used(tmp_path: Path, mode: int, mounted: bool) -> None:
    home = made(tmp_path / "state", mode)
    assert opened(home, mounted=mounted) == home


@pytest.mark.parametrize(("mode", "said"), [(0o777, "0777"), (0o1777, "1777"), (0o775, "0775"), (0o2770, "2770")])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int, said: str) -> None:
    home = made(tmp_path / "state", mode)
    with pytest.raises(StoreError, match=f"state is not safe: others can write to it .mode {said}") as refused:
        open_store(environment(home))
    assert "set KPY_HOME" in refused.value.hint
    assert os.listdir(home) == []


def test_a_store_of_ours_in_such_a_directory_is_refused_too(tmp_path: Path) -> None:
    home = tmp_path / "state"
    open_store(environment(home))
    home.chmod(0o777)
    with pytest.raises(StoreError, match="others can write to it"):
        open_store(environment(home))


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    home = made(tmp_path / "state", 0o700, 1234)
    with pytest.raises(StoreError, match="state is not safe: it belongs to uid 1234"):
        open_store(environment(home))
    (tmp_path / "link").symlink_to("state")
    with pytest.raises(StoreError, match="it belongs to uid 1234"):
        open_store(environment(tmp_path / "link"))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775])
def test_a_volume_that_others_can_write_to_holds_a_directory_of_ours(tmp_path: Path, mode: int) -> None:
    home = made(tmp_path / "state", mode)
    for _ in range(2):
        assert opened(home, mounted=True) == home / "own"
        assert (home / "own").stat().st_mode & 0o777 == 0o700
        assert os.listdir(home) == ["own"]


@pytest.mark.parametrize("mode", [0o777, 0o2775])
def test_a_store_that_was_made_in_the_volume_itself_goes_on_working(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "state"
    Store(home)
    (home / "lost+found").mkdir()
    home.chmod(mode)
    assert opened(home, mounted=True) == home


@needs_root
def test_such_a_store_is_left_alone_when_others_put_something_there(tmp_path: Path) -> None:
    home = tmp_path / "state"
    Store(home)
    home.chmod(0o777)
    made(home / "cachemounts", 0o777, 1234)
    assert opened(home, mounted=True) == home / "own"


@needs_root
def test_the_directory_of_another_uid_in_a_volume_is_refused(tmp_path: Path) -> None:
    home = made(tmp_path / "state", 0o777)
    made(home / "own", 0o777, 1234)
    with pytest.raises(StoreError, match=f"own belongs to uid 1234, and not to {os.geteuid()}"):
        opened(home, mounted=True)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    home = made(tmp_path / "state", 0o777)
    (tmp_path / "elsewhere").mkdir()
    (home / "own").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="own is not a directory"):
        opened(home, mounted=True)
    assert os.listdir(tmp_path / "elsewhere") == []


CODE = """
import os, pathlib, sys
os.setgid(1234), os.setuid(1234)
sys.path.insert(0, sys.argv[2])
from kpy.app import statedir
from kpy.store.store import Store
directory = statedir.place(pathlib.Path(sys.argv[1]), mounted=True)
statedir.claim(directory, mounted=True)
print(Store(directory).directory)
"""


@needs_root
@pytest.mark.parametrize(("owner", "mode"), [(0, 0o777), (0, 0o1777), (1234, 0o777), (1234, 0o755)])
def test_a_user_in_a_volume_of_roots(owner: int, mode: int, request: pytest.FixtureRequest) -> None:
    top = Path(tempfile.mkdtemp(prefix="kpy-statedir-"))
    request.addfinalizer(lambda: shutil.rmtree(top))
    top.chmod(0o755)
    home = made(top / "state", mode, owner)
    expected = home if (owner, mode) == (1234, 0o755) else home / "own"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", CODE, home, ROOT], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (f"{expected}\n", "")
    assert expected.stat().st_uid == 1234


def test_outside_the_image_there_is_no_directory_in_it(tmp_path: Path) -> None:
    home = made(tmp_path / "state", 0o777)
    assert state_directory(environment(home)) == home


def test_the_store_stays_where_it_is_when_the_mode_of_the_volume_changes(tmp_path: Path) -> None:
    home = made(tmp_path / "state", 0o777)
    assert opened(home, mounted=True) == home / "own"
    home.chmod(0o700)
    assert opened(home, mounted=True) == home / "own"
