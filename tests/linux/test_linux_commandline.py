"""What others see of a command line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """import sys
sys.path.insert(0, ROOT)
from kpy.linux.commandline import hide
hide()
print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").split(b"\\0")[1:])
print(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("argv", "shown"),
    [(["build", "--build-arg", "T=s3cret", "https://u:s3cret@h/x"], ["build"]), (["--context=git://s3cret@h"], []), ([], []), (["build"], ["build"])],
)
def test_it_ends_with_the_verb(tmp_path: Path, argv: list[str], shown: list[str]) -> None:
    program = tmp_path / "kpy"
    program.write_text(PROGRAM.replace("ROOT", repr(str(ROOT))))

    done = subprocess.run([sys.executable, "-I", program, *argv], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [str([b"-I", str(program).encode(), *(word.encode() for word in shown)]), str(argv)]


def test_a_kernel_that_does_not_say_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from kpy.linux import commandline

    monkeypatch.setattr(commandline, "_place", lambda: (0, 0))
    commandline.hide()
