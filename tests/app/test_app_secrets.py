"""secrets.py: a file is read where it was before the build; links of a Kubernetes volume may change below it."""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.app.options import Environment, SecretSpec
from kpy.app.secrets import secret_readers
from kpy.errors import UsageError


def _reader(top: Path, src: str) -> Callable[[], bytes]:
    return secret_readers([SecretSpec("a", src=src)], Environment({}, str(top), io.BytesIO(), io.BytesIO()))["a"]


def test_what_a_run_put_in_its_place_is_not_read(tmp_path: Path) -> None:
    for name in ("mine", "builder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "value").write_text(name)
    read = _reader(tmp_path, "mine/value")
    assert read() == b"mine"

    (tmp_path / "mine").rename(tmp_path / "old")
    (tmp_path / "mine").symlink_to("builder")
    with pytest.raises(UsageError, match="mine/value is another file now, which a RUN put there"):
        read()
    (tmp_path / "mine").unlink()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "value").symlink_to(tmp_path / "builder" / "value")
    with pytest.raises(UsageError, match="another file now"):
        read()
    (tmp_path / "mine" / "value").unlink()
    os.mkfifo(tmp_path / "mine" / "value")
    with pytest.raises(UsageError, match="another file now"):
        read()


def test_a_volume_of_kubernetes_may_change_its_links(tmp_path: Path) -> None:
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    read = _reader(tmp_path, "token")
    assert read() == b"..1"

    (tmp_path / "..data").unlink()
    (tmp_path / "..data").symlink_to("..2")
    assert read() == b"..2"


def test_a_pipe_that_the_user_named_is_read(tmp_path: Path) -> None:
    """`--secret id=a,src=<(pass show a)`, which is /dev/fd/63."""
    reading, writing = os.pipe()
    try:
        read = _reader(tmp_path, f"/dev/fd/{reading}")
        os.write(writing, b"from a pipe")
        os.close(writing)
        assert read() == b"from a pipe"
    finally:
        os.close(reading)
    os.mkfifo(tmp_path / "fifo")
    read = _reader(tmp_path, "fifo")
    threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(b"from a fifo")).start()
    assert read() == b"from a fifo"
