"""Answers to the calls about users, groups and capabilities: the rules of credentials.py at the system call's seam."""

import errno
import struct

from kpy.emulation import credentials
from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.credentials import BOUND, GROUPS_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kpy.emulation.call import Handler

_CAPABILITY_WORDS = {0x19980330: 1, 0x20071026: 2, 0x20080522: 2}  # versions of capget's header, and their halves
_NEWEST = 0x20080522
_ALL = 0xFFFFFFFF

PR_GET_KEEPCAPS, PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP = 7, 8, 23, 24
PR_GET_SECUREBITS, PR_SET_SECUREBITS, PR_CAP_AMBIENT = 27, 28, 47
_AMBIENT_IS_SET, _AMBIENT_RAISE = 1, 2


def _id(call: Call, index: int) -> int:
    return call.args[index] & _ALL


def _getresuid(call: Call) -> int:
    who = call.who
    for address, number in zip(call.args, (who.ruid, who.euid, who.suid), strict=False):
        call.write(address, struct.pack("<I", number))
    return 0


def _getresgid(call: Call) -> int:
    who = call.who
    for address, number in zip(call.args, (who.rgid, who.egid, who.sgid), strict=False):
        call.write(address, struct.pack("<I", number))
    return 0


def _setuid(call: Call) -> int:
    call.become(credentials.setuid(call.who, _id(call, 0)))
    return 0


def _setreuid(call: Call) -> int:
    call.become(credentials.setreuid(call.who, _id(call, 0), _id(call, 1)))
    return 0


def _setresuid(call: Call) -> int:
    call.become(credentials.setresuid(call.who, _id(call, 0), _id(call, 1), _id(call, 2)))
    return 0


def _setfsuid(call: Call) -> int:
    before = call.who.fsuid
    call.become(credentials.setfsuid(call.who, _id(call, 0)))
    return before


def _setgid(call: Call) -> int:
    call.become(credentials.setgid(call.who, _id(call, 0)))
    return 0


def _setregid(call: Call) -> int:
    call.become(credentials.setregid(call.who, _id(call, 0), _id(call, 1)))
    return 0


def _setresgid(call: Call) -> int:
    call.become(credentials.setresgid(call.who, _id(call, 0), _id(call, 1), _id(call, 2)))
    return 0


def _setfsgid(call: Call) -> int:
    before = call.who.fsgid
    call.become(credentials.setfsgid(call.who, _id(call, 0)))
    return before


def _getgroups(call: Call) -> int:
    groups = call.who.groups
    room = call.args[0] & _ALL
    if room >= 1 << 31:
        raise refuse(errno.EINVAL)
    if room:
        if room < len(groups):
            raise refuse(errno.EINVAL)
        if groups:
            call.write(call.args[1], struct.pack(f"<{len(groups)}I", *groups))
    return len(groups)


def _setgroups(call: Call) -> int:
    count = call.args[0] & _ALL
    credentials.setgroups(call.who, ())  # privileged at all? Before the arguments are looked at, as in the kernel.
    if count > GROUPS_LIMIT:
        raise refuse(errno.EINVAL)
    groups = struct.unpack(f"<{count}I", call.read(call.args[1], 4 * count))
    call.become(credentials.setgroups(call.who, groups))
    return 0


def _capability_words(call: Call) -> tuple[int, int]:
    """How many halves the caller's version has, 0 if it is unknown; and whom it is about."""
    version, pid = struct.unpack("<Ii", call.read(call.args[0], 8))
    words = _CAPABILITY_WORDS.get(version, 0)
    if not words:
        call.write(call.args[0], struct.pack("<I", _NEWEST))
    return words, pid


def _capget(call: Call) -> int:
    words, pid = _capability_words(call)
    if not words:
        if call.args[1]:
            raise refuse(errno.EINVAL)
        return 0
    if not call.args[1]:
        return 0
    if pid < 0:
        raise refuse(errno.EINVAL)
    who = call.world.identities.of(pid) if pid else call.who
    sets = (who.effective, who.permitted, who.inheritable)
    halves = [part >> 32 * word & _ALL for word in range(words) for part in sets]
    call.write(call.args[1], struct.pack(f"<{len(halves)}I", *halves))
    return 0


def _capset(call: Call) -> int:
    words, pid = _capability_words(call)
    if not words:
        raise refuse(errno.EINVAL)
    if pid not in (0, call.pid):
        raise refuse(errno.EPERM)
    halves = struct.unpack(f"<{3 * words}I", call.read(call.args[1], 12 * words))
    effective, permitted, inheritable = (
        sum(halves[3 * word + kind] << 32 * word for word in range(words)) for kind in range(3)
    )
    call.become(credentials.capset(call.who, effective, permitted, inheritable))
    return 0


def _prctl(call: Call) -> int | None:
    option, value = call.args[0] & _ALL, call.args[1]
    who = call.who
    if option == PR_GET_KEEPCAPS:
        return int(who.keep)
    if option == PR_SET_KEEPCAPS:
        if value > 1:
            raise refuse(errno.EINVAL)
        call.become(who._replace(keep=bool(value)))
        return 0
    if option == PR_CAPBSET_READ:
        return BOUND >> value & 1 if value <= 63 and _exists(value) else _invalid()
    if option == PR_CAPBSET_DROP:  # not kept: a program that a RUN starts anew is as capable as the RUN
        if not who.may(credentials.CAP_SETPCAP):
            raise refuse(errno.EPERM)
        return 0 if value <= 63 and _exists(value) else _invalid()
    if option == PR_GET_SECUREBITS:
        return 0
    if option == PR_SET_SECUREBITS:
        if not who.may(credentials.CAP_SETPCAP):
            raise refuse(errno.EPERM)
        return 0
    if option == PR_CAP_AMBIENT:
        return _ambient(call)
    return PROCEED


def _ambient(call: Call) -> int:
    """Ambient capabilities are taken and forgotten: no kernel would honour them."""
    operation, capability, who = call.args[1], call.args[2], call.who
    if operation == _AMBIENT_IS_SET:
        return 0 if _exists(capability) else _invalid()
    if operation == _AMBIENT_RAISE and not who.permitted & who.inheritable & 1 << min(capability, 63):
        raise refuse(errno.EPERM)
    return 0


def _exists(capability: int) -> bool:
    return capability <= 40  # CAP_CHECKPOINT_RESTORE, the last one in Linux 6


def _invalid() -> int:
    raise refuse(errno.EINVAL)


def _prlimit(call: Call) -> int | None:
    """Limits of another process: of the RUN's only. With a limit of the builder's processor time or descriptors, which has
    the same uid, a RUN would end it."""
    pid, _, new = call.args[:3]
    return _for(call, pid & 0x7FFFFFFF) if new else PROCEED


def _of_another(call: Call) -> int | None:
    """How another process is scheduled: of the RUN's only."""
    return _for(call, call.args[0] & 0x7FFFFFFF)


def _priority(call: Call, first: int) -> int | None:
    """The same, of a process, of a group (of a leader's number), or of a user, which would be the builder, too."""
    which, who = (call.args[0] & _ALL) - first, call.args[1] & 0x7FFFFFFF
    if which not in (0, 1):
        raise refuse(errno.EPERM if which == 2 else errno.EINVAL)
    return PROCEED if not who else _for(call, who)


def _for(call: Call, pid: int) -> int | None:
    if not call.world.identities.has(pid):
        raise refuse(errno.EPERM)
    return PROCEED


HANDLERS: "Mapping[str, Handler]" = {
    "sched_setparam": _of_another,
    "sched_setscheduler": _of_another,
    "sched_setattr": _of_another,
    "sched_setaffinity": _of_another,
    "setpriority": lambda call: _priority(call, 0),
    "ioprio_set": lambda call: _priority(call, 1),
    "prlimit64": _prlimit,
    "getuid": lambda call: call.who.ruid,
    "geteuid": lambda call: call.who.euid,
    "getgid": lambda call: call.who.rgid,
    "getegid": lambda call: call.who.egid,
    "old_getuid": lambda call: min(call.who.ruid, 65534),
    "old_geteuid": lambda call: min(call.who.euid, 65534),
    "old_getgid": lambda call: min(call.who.rgid, 65534),
    "old_getegid": lambda call: min(call.who.egid, 65534),
    "getresuid": _getresuid,
    "getresgid": _getresgid,
    "getgroups": _getgroups,
    "setuid": _setuid,
    "setreuid": _setreuid,
    "setresuid": _setresuid,
    "setfsuid": _setfsuid,
    "setgid": _setgid,
    "setregid": _setregid,
    "setresgid": _setresgid,
    "setfsgid": _setfsgid,
    "setgroups": _setgroups,
    "capget": _capget,
    "capset": _capset,
    "prctl": _prctl,
}
