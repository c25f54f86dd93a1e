"""Copying files and trees as they are: modes, owners, times, links, devices, xattrs. Follows no symlink, skips
sockets. Refuses to write over anything."""

import errno
import os
import stat
from collections.abc import Callable

_BLOCK = 1 << 20


def _nothing(old: str, new: str) -> None:
    del old, new


def copy(source: str, target: str, *, made: Callable[[str, str], None] = _nothing) -> None:
    """Copy a file or a tree to a new name. Owners and devices need the rights to make them; without, owners stay
    ours and devices are left out. `made` is called with both names of all that was copied. No process may be changing
    either side. Raises OSError."""
    links: dict[tuple[int, int], str] = {}
    directories: list[tuple[str, str, os.stat_result]] = []
    pending = [(source, target)]
    while pending:
        old, new = pending.pop()
        found = os.lstat(old)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(new, 0o700)
            directories.append((old, new, found))
            _xattrs(old, new)
            pending += [(os.path.join(old, name), os.path.join(new, name)) for name in os.listdir(old)]
            continue
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in links:
            os.link(links[key], new, follow_symlinks=False)
            continue
        if not _leaf(old, new, found):
            continue
        _metadata(new, found)
        made(old, new)
        if found.st_nlink > 1:
            links[key] = new
    for old, new, found in reversed(directories):
        _metadata(new, found)
        made(old, new)


def _leaf(old: str, new: str, found: os.stat_result) -> bool:
    if stat.S_ISREG(found.st_mode):
        _content(old, new)
        _xattrs(old, new)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(old), new)
    elif stat.S_ISFIFO(found.st_mode):
        os.mkfifo(new)
    elif stat.S_ISSOCK(found.st_mode):
        return False
    else:
        try:
            os.mknod(new, found.st_mode, found.st_rdev)
        except PermissionError:
            return False
    return True


def _content(old: str, new: str) -> None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    source = os.open(old, os.O_RDONLY | flags)
    try:
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
        try:
            try:
                while os.copy_file_range(source, target, _BLOCK * 64):
                    pass
            except OSError as error:
                if error.errno not in {
                    errno.EXDEV,
                    errno.EINVAL,
                    errno.EOPNOTSUPP,
                    errno.ENOSYS,
                    errno.EPERM,
                }:
                    raise
                while block := os.read(source, _BLOCK):
                    view = memoryview(block)
                    while view:
                        view = view[os.write(target, view) :]
        finally:
            os.close(target)
    finally:
        os.close(source)


def _metadata(new: str, found: os.stat_result) -> None:
    try:
        os.chown(new, found.st_uid, found.st_gid, follow_symlinks=False)
    except PermissionError:
        pass
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(new, stat.S_IMODE(found.st_mode))  # after the owner: chown clears setuid
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def _xattrs(old: str, new: str) -> None:
    try:
        names = os.listxattr(old, follow_symlinks=False)
    except OSError:
        return
    for name in names:
        try:
            os.setxattr(new, name, os.getxattr(old, name, follow_symlinks=False), follow_symlinks=False)
        except OSError:
            continue  # not ours to set (trusted.*), or not for this file system
