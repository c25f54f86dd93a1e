"""Shared memory, semaphores and message queues of System V (sysvipc(7)) in this process's namespace: which there are, and
their removal. Knows nothing of whose they should be."""

import ctypes

from kpy.linux.libc import check

_libc = ctypes.CDLL(None, use_errno=True)
_RMID = 0
_IDS = {"shm": "shmid", "sem": "semid", "msg": "msqid"}


class Object:
    """One of them. `pid` is that of its creator, 0 if that is in another namespace, -1 where the kernel does not say."""

    __slots__ = ("ident", "kind", "pid", "uid")

    def __init__(self, kind: str, ident: int, uid: int, pid: int) -> None:
        self.kind = kind
        self.ident = ident
        self.uid = uid
        self.pid = pid


def objects() -> dict[tuple[str, int], Object]:
    """All, by kind and id. An id is not given again before 32,768 others were (ipc_buildid in ipc/util.c)."""
    found = {}
    for kind, ident in _IDS.items():
        try:
            with open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
                lines = [line.split() for line in file]
        except OSError:
            continue  # a kernel without them
        for line in lines[1:]:
            row = dict(zip(lines[0], line, strict=False))
            number = int(row[ident])
            found[kind, number] = Object(kind, number, int(row["cuid"]), int(row.get("cpid", -1)))
    return found


def remove(found: Object) -> None:
    """IPC_RMID. Raises OSError: EPERM for another user's."""
    if found.kind == "shm":
        result = _libc.shmctl(found.ident, _RMID, None)
    elif found.kind == "sem":
        result = _libc.semctl(found.ident, 0, _RMID)
    else:
        result = _libc.msgctl(found.ident, _RMID, None)
    check(int(result), f"{found.kind}ctl")
