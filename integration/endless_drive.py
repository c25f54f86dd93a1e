"""Runs kpy and looks, at the moment that it ends, who is still there. Standard library only: it runs in containers.

    endless_drive.py NAME TERM LIMIT ARGV...

NAME: of the program whose processes count. TERM: kpy gets SIGTERM half a second after it said this; may be empty. LIMIT: so
many processes, where the container sets none. Writes JSON: `code`, `alive`, `output`, `begun` and `ended` (CLOCK_MONOTONIC),
and `told`, when the signal was sent.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time


def alive(name: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        if head.partition("(")[2].startswith(name) and rest.split()[0] not in "ZX":
            found.append(pid)
    return found


def main() -> None:
    name, term, limit, *argv = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_NPROC, (int(limit), int(limit)))
    answer: dict[str, object] = {"begun": time.monotonic(), "told": 0}
    output = b""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as kpy:
        assert kpy.stdout is not None
        while block := os.read(kpy.stdout.fileno(), 1 << 16):
            output += block
            if term and not answer["told"] and term.encode() in output:
                time.sleep(0.5)
                answer["told"] = time.monotonic()
                kpy.send_signal(signal.SIGTERM)
        answer["code"] = kpy.wait()
    answer["ended"] = time.monotonic()
    left = alive(name)
    answer |= {"alive": len(left), "output": output.decode(errors="replace")}
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    json.dump(answer, sys.stdout)


main()
