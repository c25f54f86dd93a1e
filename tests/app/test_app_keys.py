"""`kpy keygen` as a whole: where the password comes from, and that no key is without one by accident."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from kpy.app.keys import passphrase
from kpy.cli.keygen import HELP, run
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from kpy.signing.keys import PrivateKey, PublicKey

ROOT = Path(__file__).resolve().parents[2]


def terminal_of(directory: Path, variables: dict[str, str]) -> Terminal:
    return Terminal(io.BytesIO(), io.BytesIO(), io.BytesIO(), variables, str(directory))


def keygen(directory: Path, **variables: str) -> str:
    """What it says on standard error."""
    terminal = terminal_of(directory, variables)
    assert run([], terminal) == 0
    assert terminal.stdout.getvalue() == b"kpy.key\nkpy.pub\n"  # type: ignore[attr-defined]
    return str(terminal.stderr.getvalue(), "utf-8")  # type: ignore[attr-defined]


def password_is(directory: Path, password: bytes) -> None:
    key = PrivateKey.load(directory / "kpy.key", lambda: password)
    assert PublicKey.load(directory / "kpy.pub").key_id == key.key_id


@pytest.mark.parametrize(
    ("variables", "password"),
    [
        ({"KPY_KEY_PASSWORD": "a"}, b"a"),
        ({"COSIGN_PASSWORD": "b"}, b"b"),
        ({"KPY_KEY_PASSWORD": "a", "COSIGN_PASSWORD": "b"}, b"a"),
        ({"KPY_KEY_PASSWORD": "", "COSIGN_PASSWORD": "b"}, b"b"),
        ({"KPY_KEY_PASSWORD": "\udce9\u00e9"}, b"\xe9\xc3\xa9"),  # bytes that are not UTF-8 are those that cosign takes
    ],
)
def test_the_password_of_the_environment(tmp_path: Path, variables: dict[str, str], password: bytes) -> None:
    assert keygen(tmp_path, **variables) == ""
    password_is(tmp_path, password)
    assert passphrase(terminal_of(tmp_path, variables).environment()) == password


@pytest.mark.parametrize("name", ["KPY_KEY_PASSWORD", "COSIGN_PASSWORD"])
def test_an_empty_password_that_was_set_is_taken_with_a_warning(tmp_path: Path, name: str) -> None:
    assert keygen(tmp_path, **{name: ""}) == f"warning: {name} is empty: whoever can read kpy.key can sign with it\n"
    password_is(tmp_path, b"")


def test_without_a_password_there_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a password") as refused:
        keygen(tmp_path, HOME="/")
    assert "KPY_KEY_PASSWORD or COSIGN_PASSWORD" in refused.value.hint
    assert os.listdir(tmp_path) == []


def test_the_help_names_both_variables() -> None:
    for text in (HELP, (ROOT / "README.md").read_text()):
        assert "KPY_KEY_PASSWORD" in text
        assert "COSIGN_PASSWORD" in text


def typed(directory: Path, keys: bytes, **variables: str) -> tuple[int, str]:
    """The exit code and all that the terminal shows, when somebody types these keys. `|`: at the next question."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(
        [sys.executable, "-m", "kpy", "keygen"], cwd=directory, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as child:  # fmt: skip
        os.close(theirs)
        shown, waiting = b"", keys.split(b"|")
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # EIO: the other side is closed
                break
            shown += data
            if data.endswith(b": "):
                os.write(ours, waiting.pop(0))
    os.close(ours)
    return child.returncode, shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_it_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    code, shown = typed(tmp_path, b"s3cret\n|s3cret\n")
    assert (code, shown) == (0, "Password for the private key: \nThe same again: \nkpy.key\nkpy.pub\n")
    password_is(tmp_path, b"s3cret")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (b"one\n|two\n", "error: the passwords are not the same"),
        (b"\n", "error: the password is empty\nhint: if that is meant, set KPY_KEY_PASSWORD to nothing"),
        (b"\x04", "error: no password was typed"),
    ],
)
def test_what_is_typed_wrong_makes_no_key(tmp_path: Path, keys: bytes, said: str) -> None:
    code, shown = typed(tmp_path, keys)
    assert (code, said in shown) == (2, True), shown
    assert os.listdir(tmp_path) == []


def test_nobody_is_asked_in_vain(tmp_path: Path) -> None:
    (tmp_path / "kpy.pub").write_text("precious")
    code, shown = typed(tmp_path, b"")
    assert (code, "kpy.pub exists already" in shown) == (2, True)
    assert typed(tmp_path, b"", KPY_KEY_PASSWORD="x")[0] == 2
    (tmp_path / "kpy.pub").unlink()
    assert typed(tmp_path, b"", KPY_KEY_PASSWORD="x") == (0, "kpy.key\nkpy.pub\n")
