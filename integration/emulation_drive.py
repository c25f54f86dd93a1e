"""Runs commands under the emulated root, one after the other with one ledger, as a user without rights. Told by JSON
on standard input, answers in JSON; needs kpy where it can be imported, and no more.

With `occupied`, this process is watched by a listener of its own, and there can be no second. With `old`, it is under a
filter that refuses what kernels before 5.19 do not know (see `_before_5_19`).
"""

import errno
import json
import logging
import os
import sys
import time

from kpy.linux import seccomp
from kpy.linux.ledger import Ledger
from kpy.linux.syscalls import Arch, native
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
    if told.get("old"):
        _before_5_19()
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


def _before_5_19() -> None:
    """WAIT_KILLABLE_RECV (5.19), a flag of seccomp(2), and SYNC_WAKE_UP (6.6), which SECCOMP_IOCTL_NOTIF_SET_FLAGS sets, are
    EINVAL for this process and all that comes of it. (ADDFD_SEND is in memory, where a filter cannot look.)"""
    arch = native()
    assert arch is not None
    ioctl = {"x86_64": 16, "aarch64": 29}[arch.name]
    calls = Arch(arch.name, arch.audit, arch.stat, f"seccomp {arch.numbers['seccomp']} ioctl {ioctl}")
    refused = seccomp.fail(errno.EINVAL)
    rules = {
        "seccomp": [seccomp.Rule(refused, seccomp.Argument(1, "any", 32))],
        "ioctl": [seccomp.Rule(refused, seccomp.Argument(1, "is", 0x40082104))],
    }
    seccomp.no_new_privs()
    seccomp.install(seccomp.assemble(calls, rules), calls)


if __name__ == "__main__":
    main()
