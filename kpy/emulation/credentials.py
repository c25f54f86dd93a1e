"""Users and capabilities of a process, and how system calls change them. Pure: Linux's rules (credentials(7),
capabilities(7), kernel/sys.c, security/commoncap.c), for processes that no kernel ever gave these ids.

Ids of a call are 32 bits; `NOBODY`, all ones, means "leave it".
"""

import errno
import os
from typing import NamedTuple

NOBODY = 0xFFFFFFFF
GROUPS_LIMIT = 65536  # NGROUPS_MAX

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID = (1 << bit for bit in range(5))
CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_LINUX_IMMUTABLE = 1 << 6, 1 << 7, 1 << 8, 1 << 9
CAP_MKNOD, CAP_SETFCAP, CAP_MAC_OVERRIDE = 1 << 27, 1 << 31, 1 << 32
_OF_FILES = (
    CAP_CHOWN | CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH | CAP_FOWNER | CAP_FSETID | CAP_LINUX_IMMUTABLE | CAP_MKNOD | CAP_MAC_OVERRIDE
)  # fmt: skip

BOUND = 0xA80425FB
"""What docker leaves to the root of a container, and so the most that a RUN sees."""


class Credentials(NamedTuple):
    """Real, effective, saved and file system ids; supplementary groups, sorted as getgroups(2) gives them;
    capability sets; `keep` is PR_SET_KEEPCAPS."""

    ruid: int
    euid: int
    suid: int
    fsuid: int
    rgid: int
    egid: int
    sgid: int
    fsgid: int
    groups: tuple[int, ...]
    effective: int
    permitted: int
    inheritable: int
    keep: bool

    def may(self, capability: int) -> bool:
        """Has it the capability?"""
        return bool(self.effective & capability)

    def in_group(self, gid: int) -> bool:
        """As file permissions ask it."""
        return gid == self.fsgid or gid in self.groups


def of_user(uid: int, gid: int, groups: "tuple[int, ...]" = ()) -> Credentials:
    """Those of a process that a container runtime starts as this user."""
    capabilities = BOUND if uid == 0 else 0
    ids = (uid,) * 4 + (gid,) * 4
    return Credentials(*ids, tuple(sorted(groups)), capabilities, capabilities, 0, False)


def _refused() -> OSError:
    return OSError(errno.EPERM, os.strerror(errno.EPERM))


def _valid(number: int) -> int:
    if number == NOBODY:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return number


def setuid(old: Credentials, uid: int) -> Credentials:
    """setuid(2)."""
    _valid(uid)
    if old.may(CAP_SETUID):
        return _users(old, uid, uid, uid)
    if uid not in (old.ruid, old.suid):
        raise _refused()
    return _users(old, old.ruid, uid, old.suid)


def setreuid(old: Credentials, ruid: int, euid: int) -> Credentials:
    """setreuid(2)."""
    allowed = ruid in (NOBODY, old.ruid, old.euid) and euid in (NOBODY, old.ruid, old.euid, old.suid)
    if not allowed and not old.may(CAP_SETUID):
        raise _refused()
    real = old.ruid if ruid == NOBODY else ruid
    effective = old.euid if euid == NOBODY else euid
    saved = effective if ruid != NOBODY or euid not in (NOBODY, old.ruid) else old.suid
    return _users(old, real, effective, saved)


def setresuid(old: Credentials, ruid: int, euid: int, suid: int) -> Credentials:
    """setresuid(2)."""
    given = [number for number in (ruid, euid, suid) if number != NOBODY]
    if not old.may(CAP_SETUID) and not all(number in (old.ruid, old.euid, old.suid) for number in given):
        raise _refused()
    if ruid in (NOBODY, old.ruid) and suid in (NOBODY, old.suid) and (euid == NOBODY or euid == old.euid == old.fsuid):
        return old  # nothing to do: leaves a file system id of its own, too
    return _users(
        old,
        old.ruid if ruid == NOBODY else ruid,
        old.euid if euid == NOBODY else euid,
        old.suid if suid == NOBODY else suid,
    )


def setfsuid(old: Credentials, uid: int) -> Credentials:
    """setfsuid(2), which never fails."""
    if uid == NOBODY or not (uid in (old.ruid, old.euid, old.suid, old.fsuid) or old.may(CAP_SETUID)):
        return old
    effective = old.effective
    if old.fsuid == 0 and uid != 0:
        effective &= ~_OF_FILES
    elif old.fsuid != 0 and uid == 0:
        effective |= old.permitted & _OF_FILES
    return old._replace(fsuid=uid, effective=effective)


def _users(old: Credentials, ruid: int, euid: int, suid: int) -> Credentials:
    """The new ids, and what becomes of capabilities with them (cap_emulate_setxuid)."""
    effective, permitted = old.effective, old.permitted
    if 0 in (old.ruid, old.euid, old.suid) and 0 not in (ruid, euid, suid) and not old.keep:
        effective = permitted = 0
    if old.euid == 0 and euid != 0:
        effective = 0
    elif old.euid != 0 and euid == 0:
        effective = permitted
    return old._replace(ruid=ruid, euid=euid, suid=suid, fsuid=euid, effective=effective, permitted=permitted)


def setgid(old: Credentials, gid: int) -> Credentials:
    """setgid(2)."""
    _valid(gid)
    if old.may(CAP_SETGID):
        return _replace_groups(old, gid, gid, gid)
    if gid not in (old.rgid, old.sgid):
        raise _refused()
    return _replace_groups(old, old.rgid, gid, old.sgid)


def setregid(old: Credentials, rgid: int, egid: int) -> Credentials:
    """setregid(2)."""
    allowed = rgid in (NOBODY, old.rgid, old.egid) and egid in (NOBODY, old.rgid, old.egid, old.sgid)
    if not allowed and not old.may(CAP_SETGID):
        raise _refused()
    real = old.rgid if rgid == NOBODY else rgid
    effective = old.egid if egid == NOBODY else egid
    saved = effective if rgid != NOBODY or egid not in (NOBODY, old.rgid) else old.sgid
    return _replace_groups(old, real, effective, saved)


def setresgid(old: Credentials, rgid: int, egid: int, sgid: int) -> Credentials:
    """setresgid(2)."""
    given = [number for number in (rgid, egid, sgid) if number != NOBODY]
    if not old.may(CAP_SETGID) and not all(number in (old.rgid, old.egid, old.sgid) for number in given):
        raise _refused()
    if rgid in (NOBODY, old.rgid) and sgid in (NOBODY, old.sgid) and (egid == NOBODY or egid == old.egid == old.fsgid):
        return old
    return _replace_groups(
        old,
        old.rgid if rgid == NOBODY else rgid,
        old.egid if egid == NOBODY else egid,
        old.sgid if sgid == NOBODY else sgid,
    )


def setfsgid(old: Credentials, gid: int) -> Credentials:
    """setfsgid(2), which never fails."""
    if gid == NOBODY or not (gid in (old.rgid, old.egid, old.sgid, old.fsgid) or old.may(CAP_SETGID)):
        return old
    return old._replace(fsgid=gid)


def _replace_groups(old: Credentials, rgid: int, egid: int, sgid: int) -> Credentials:
    return old._replace(rgid=rgid, egid=egid, sgid=sgid, fsgid=egid)


def setgroups(old: Credentials, groups: "tuple[int, ...]") -> Credentials:
    """setgroups(2)."""
    if not old.may(CAP_SETGID):
        raise _refused()
    if len(groups) > GROUPS_LIMIT or NOBODY in groups:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return old._replace(groups=tuple(sorted(groups)))


def capset(old: Credentials, effective: int, permitted: int, inheritable: int) -> Credentials:
    """capset(2). Bits that no container has are taken away and not refused: the kernel knows the last capability, too."""
    allowed = old.inheritable | (BOUND if old.may(CAP_SETPCAP) else old.permitted)
    if inheritable & ~allowed or permitted & ~old.permitted or effective & ~permitted:
        raise _refused()
    return old._replace(effective=effective, permitted=permitted, inheritable=inheritable)


def execve(old: Credentials, setuid_to: int | None, setgid_to: int | None, file_permitted: int, file_inheritable: int,
           *, file_effective: bool) -> Credentials:  # fmt: skip
    """After execve(2) of a file with these set-id bits and capabilities (cap_bprm_creds_from_file)."""
    euid = old.euid if setuid_to is None else setuid_to
    egid = old.egid if setgid_to is None else setgid_to
    permitted = (old.inheritable & file_inheritable) | (file_permitted & BOUND)
    effective = permitted if file_effective else 0
    if old.ruid == 0 or euid == 0:
        permitted = BOUND | old.inheritable
        effective = permitted if euid == 0 else 0
    return old._replace(
        euid=euid, suid=euid, fsuid=euid, egid=egid, sgid=egid, fsgid=egid,
        effective=effective, permitted=permitted, keep=False,
    )  # fmt: skip


def for_access(old: Credentials) -> Credentials:
    """Those that access(2) asks with: the real ids, and capabilities only if the real user is root."""
    effective = old.permitted if old.ruid == 0 else 0
    return old._replace(fsuid=old.ruid, fsgid=old.rgid, effective=effective)
