"""Work for a RUN in a thread of its own: what happens where there are no more threads."""

import subprocess
import sys
from pathlib import Path

from tests.privileges import needs_root

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from kpy.errors import SandboxError
from kpy.sandbox.deputy import confined
from kpy.sandbox.spawn import Reach
os.setgid(23456), os.setuid(23456)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    confined(Reach(("/",), ()), lambda: print("done"))
except SandboxError as error:
    print(error.message, error.hint, sep="\\n")
"""


@needs_root
def test_no_more_threads_is_an_error_with_a_hint() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, ROOT], capture_output=True, text=True, check=False)
    message, hint = done.stdout.splitlines()
    assert (message, done.stderr) == ("cannot start a thread: there may be no more of them", "")
    assert "pids.max" in hint
