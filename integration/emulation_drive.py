"""Runs commands under the emulated root, one after the other with one ledger, as a user without rights. Told by JSON
on standard input, answers in JSON; needs kpy where it can be imported, and no more.

With `occupied`, this process is watched by a listener of its own, and there can be no second.
"""

import json
import logging
import os
import sys
import time

from kpy.linux import seccomp
from kpy.linux.ledger import Ledger
from kpy.linux.syscalls import native
from kpy.sandbox.base import Identity, Process
from kpy.sandbox.handover import Emulation
from kpy.sandbox.spawn import Job, run
from kpy.util.cancel import Cancel

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    """The program."""
    told = json.load(sys.stdin)
    problems: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: problems.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("kpy").addHandler(handler)
    logging.getLogger("kpy").setLevel(logging.DEBUG)
    if told.get("occupied"):
        arch = native()
        assert arch is not None
        seccomp.no_new_privs()
        seccomp.install_with_listener(seccomp.assemble(arch, {}), arch)
    ledger, results, warnings = Ledger(), [], []
    for one in told["runs"]:
        output: list[bytes] = []
        identity = Identity(one.get("uid", 0), one.get("gid", 0), tuple(one.get("groups", ())))
        temporary = os.environ.get("TMPDIR", "/tmp")
        env = (PATH, "HOME=/root", "LC_ALL=C.UTF-8", f"TMPDIR={temporary}")
        process = Process(tuple(one["argv"]), env, one.get("cwd", "/"), identity, one.get("network", "default"))
        begun = time.monotonic()
        with Cancel() as cancel:
            status = run(Job(process, "/", env, Emulation(ledger, warnings.append)), output.append, cancel)
        text = b"".join(output).decode(errors="replace")
        results.append({"status": status, "output": text, "seconds": time.monotonic() - begun})
    json.dump({"results": results, "warnings": warnings, "records": len(ledger.records), "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
