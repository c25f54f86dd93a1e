"""May somebody with these credentials do that to a file with this mode and owner? Pure: path_resolution(7), inode(7),
fs/namei.c and fs/attr.c of Linux. ACLs are not looked at.
"""

import stat

from kpy.emulation.credentials import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    Credentials,
)

READ, WRITE, EXECUTE = 4, 2, 1


def granted(who: Credentials, mode: int, uid: int, gid: int) -> int:
    """The bits of rwx that `who` has (generic_permission)."""
    if who.fsuid == uid:
        bits = mode >> 6 & 7
    elif who.in_group(gid):
        bits = mode >> 3 & 7
    else:
        bits = mode & 7
    if stat.S_ISDIR(mode):
        if who.may(CAP_DAC_OVERRIDE):
            bits = 7
        elif who.may(CAP_DAC_READ_SEARCH):
            bits |= READ | EXECUTE
    elif who.may(CAP_DAC_OVERRIDE):
        bits |= READ | WRITE | (1 if mode & 0o111 else 0)
    elif who.may(CAP_DAC_READ_SEARCH):
        bits |= READ
    return bits


def owns(who: Credentials, uid: int) -> bool:
    """May it do what is the owner's: change modes and times?"""
    return who.fsuid == uid or who.may(CAP_FOWNER)


def may_chown(who: Credentials, owner: int, group: int, uid: int | None, gid: int | None) -> bool:
    """May it give a file of `owner` and `group` to `uid` and `gid` (None: leave it)?"""
    if who.may(CAP_CHOWN):
        return True
    if uid is not None and not (who.fsuid == owner and uid == owner):
        return False
    return gid is None or (who.fsuid == owner and (gid == group or who.in_group(gid)))


def after_chown(who: Credentials, mode: int, gid: int) -> int:
    """The mode after a chown of a file in `gid`: set-id bits are gone (chown_common), also for root."""
    if stat.S_ISDIR(mode):
        return mode
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP or not (who.in_group(gid) or who.may(CAP_FSETID)):
        mode &= ~stat.S_ISGID
    return mode


def after_chmod(who: Credentials, mode: int, wanted: int, gid: int) -> int:
    """The mode after chmod to the permissions `wanted` of a file in `gid` (setattr_prepare)."""
    wanted &= 0o7777
    if not (who.in_group(gid) or who.may(CAP_FSETID)):
        wanted &= ~stat.S_ISGID
    return stat.S_IFMT(mode) | wanted


def may_remove(who: Credentials, directory_mode: int, directory_owner: int, owner: int) -> bool:
    """Does the sticky bit of the directory let it remove or rename a file of `owner`? (The directory must be writable,
    too.)"""
    return not directory_mode & stat.S_ISVTX or who.fsuid in (owner, directory_owner) or who.may(CAP_FOWNER)
