"""capabilities.py: what a thread holds, told without /proc."""

import re
from pathlib import Path

from kpy.linux import capabilities


def test_the_kernel_says_the_same_in_proc() -> None:
    text = Path("/proc/thread-self/status").read_text()
    shown = {name: int(value, 16) for name, value in re.findall(r"Cap(Prm|Eff):\s*(\w+)", text)}
    assert shown == {"Prm": capabilities.permitted(), "Eff": capabilities.effective()}
