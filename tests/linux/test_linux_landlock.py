"""landlock.py: files out of reach, in a process of its own, where this kernel has Landlock."""

import subprocess
import sys
from pathlib import Path

import pytest

import kpy
from kpy.linux import landlock
from kpy.linux.syscalls import native

_ARCH = native()
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


_REFUSED = """
import sys
sys.path.insert(0, sys.argv[1])
from kpy.errors import SandboxError
from kpy.linux import landlock, seccomp, syscalls
from kpy.sandbox import deputy, spawn
from kpy.sandbox.base import Process
from kpy.util.cancel import Cancel

arch = syscalls.native()
if landlock.version(arch) < 2:
    sys.exit("none")
seccomp.no_new_privs()
for _ in range(16):  # LANDLOCK_MAX_NUM_LAYERS
    landlock.keep_apart(arch)

def attempt(action):
    try:
        print("went on:", action())
    except (OSError, SandboxError) as error:
        print(error)

reach = spawn.Reach(("/",), ())
attempt(lambda: landlock.only(arch, ["/"], []))
attempt(lambda: landlock.keep_apart(arch))
attempt(lambda: deputy.confined(reach, lambda: "unconfined"))
with Cancel() as cancel:
    job = spawn.Job(Process(("/bin/true",), ()), "/", (), reach=reach)
    attempt(lambda: spawn.run(job, print, cancel))
"""


def test_a_wall_that_cannot_be_put_up_is_an_error(tmp_path: Path) -> None:
    """Landlock nests to a depth of 16; deeper, it refuses. Nothing runs then less confined than was said."""
    package = str(Path(kpy.__file__).parents[1])

    done = subprocess.run([sys.executable, "-c", _REFUSED, package], capture_output=True, text=True, check=False)

    if done.stderr == "none\n":
        return  # nothing to promise
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[Errno 7] landlock_restrict_self: Argument list too long",
        "[Errno 7] landlock_restrict_self: Argument list too long",
        "cannot confine what is done for a RUN: landlock_restrict_self: Argument list too long",
        "cannot keep the builder's files from the RUN: argument list too long",
    ]


def test_a_thread_is_confined_and_no_other(tmp_path: Path) -> None:
    """What is done for a RUN is done in a thread of its own; the builder goes on as before."""
    from kpy.sandbox.deputy import confined
    from kpy.sandbox.spawn import Reach

    (tmp_path / "image").mkdir()
    (tmp_path / "login").write_text("secret")
    reach = Reach((str(tmp_path / "image"),), ())
    (tmp_path / "image" / "link").symlink_to(tmp_path / "login")

    assert confined(reach, lambda: (tmp_path / "image" / "file").write_text("x")) == 1
    if _ARCH is not None and landlock.version(_ARCH) >= 2:
        for attempt in (
            (tmp_path / "image" / "link").read_text, lambda: (tmp_path / "login").write_text("evil"),
            lambda: (tmp_path / "image" / "file").rename(tmp_path / "out"), lambda: (tmp_path / "login").rename(tmp_path / "image" / "in"),
            (tmp_path / "login").unlink, (tmp_path / "image").rmdir,
        ):  # fmt: skip
            with pytest.raises(OSError):
                confined(reach, attempt)
    assert (tmp_path / "login").read_text() == "secret"
