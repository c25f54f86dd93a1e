"""interrupt.py: a signal where there is no room for another thread."""

import subprocess
import sys

CODE = """
import _thread, select, signal, time
from kpy.cli.interrupt import caught

start, refused = _thread.start_new_thread, []
def full(*arguments):
    if len(refused) < 2:
        refused.append(1)
        raise RuntimeError("can't start new thread")
    return start(*arguments)
_thread.start_new_thread = full

with caught(terminal=False) as interrupt:
    signal.raise_signal(signal.SIGTERM)
    print(bool(select.select([interrupt.cancel], [], [], 0)[0]), interrupt.cancel.is_set, interrupt.exit_code)
    print(interrupt.cancel.wait(20), len(refused))
"""


def test_a_build_is_cancelled_where_a_run_has_taken_all_processes() -> None:
    """What waits for the flag's descriptor, as who follows a RUN does, is told at once; the flag is set when there is room."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True False 143", "True 2"]
