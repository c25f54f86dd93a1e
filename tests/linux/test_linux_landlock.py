"""landlock.py: files out of reach, in a process of its own, where this kernel has Landlock."""

import subprocess
import sys
from pathlib import Path

import kpy

_CODE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from kpy.linux import landlock, libc, seccomp, syscalls
os.chdir(sys.argv[2])
seccomp.no_new_privs()
if not landlock.only(syscalls.native(), ["open", "file", "link", "missing"], ["programs"]):
    sys.exit("none")

def attempt(name, action):
    try:
        action()
        print(name)
    except OSError:  # EACCES, and EXDEV for a link
        pass

for place in ("open", "programs", "closed"):
    attempt("read " + place, lambda: open(place + "/f").read())
    attempt("write " + place, lambda: open(place + "/f", "a").write("x"))
    attempt("make " + place, lambda: os.mkdir(place + "/d"))
    attempt("unlink " + place, lambda: os.unlink(place + "/g"))
    attempt("see " + place, lambda: (os.listdir(place), os.stat(place + "/f")))
attempt("write file", lambda: open("file", "w").write("x"))
attempt("through a link", lambda: open("open/l").read())
attempt("through a name", lambda: open("link/f").read())
attempt("move", lambda: (os.mkdir("open/e"), os.rename("open/f", "open/e/f")))
attempt("take", lambda: os.rename("closed/f", "open/taken"))
attempt("link", lambda: os.link("closed/f", "open/linked"))
landlock.keep_apart(syscalls.native())  # as a RUN is, below its supervisor
attempt("move again", lambda: os.rename("open/e/f", "open/f"))
attempt("link again", lambda: os.link("open/f", "open/e/g"))
"""


def test_files_of_other_directories_are_out_of_reach(tmp_path: Path) -> None:
    for name in ("open", "programs", "closed"):
        (tmp_path / name).mkdir()
        for file in ("f", "g"):
            (tmp_path / name / file).write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "open" / "l").symlink_to(tmp_path / "closed" / "f")
    (tmp_path / "link").symlink_to("closed")
    package = str(Path(kpy.__file__).parents[1])

    done = subprocess.run(
        [sys.executable, "-c", _CODE, package, str(tmp_path)], capture_output=True, text=True, check=False
    )

    if done.stderr == "none\n":
        return  # nothing to promise
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "read open", "write open", "make open", "unlink open", "see open",
        "read programs", "see programs", "see closed", "write file", "move", "move again", "link again",
    ]  # fmt: skip
