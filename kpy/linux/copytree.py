"""Copying files and trees as they are: modes, owners, times, links, devices, xattrs. Follows no symlink, skips
sockets. Refuses to write over anything. Works by descriptors of directories, on either side."""

import errno
import os
import stat
from collections.abc import Callable
from typing import TypeAlias

from kpy.linux.beneath import LIST, At, Beneath, join, link_path
from kpy.util.checkpoint import checked, checkpoint
from kpy.util.nesting import Paths

Made: TypeAlias = Callable[[At, At], None]
_BLOCK = 1 << 20
_SELF = b"."


def _nothing(old: At, new: At) -> None:
    del old, new


def copy(source: At, target: At, *, made: Made = _nothing) -> None:
    """Copy a file or a tree to a new name. Owners and devices need the rights to make them; without, owners stay
    ours and devices are left out. `made` is called with both places of all that was copied. No process may be changing
    either side. Raises OSError."""
    links: dict[tuple[int, int], bytes] = {}
    found = os.stat(source[1], dir_fd=source[0], follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        if _leaf(source, target, found):
            _metadata(target, found)
            made(source, target)
        return
    os.mkdir(target[1], 0o700, dir_fd=target[0])
    old, new = -1, -1
    try:
        old, new = os.open(source[1], LIST, dir_fd=source[0]), os.open(target[1], LIST, dir_fd=target[0])
        with Beneath(new) as tree:
            _tree(old, tree, links, made)
    finally:
        for descriptor in (old, new):
            if descriptor >= 0:
                os.close(descriptor)


def _tree(source: int, tree: Beneath, links: dict[tuple[int, int], bytes], made: Made) -> None:
    directories: list[bytes] = []
    paths = Paths()
    with Beneath(source) as reading:
        for path, old, entries in reading.directories():
            new = tree.open(path, LIST)
            try:
                for name, found in checked(entries):
                    _entry((old, name), (new, name), found, tree, paths.add(join(path, name)), links, made)
            finally:
                os.close(new)
            directories.append(path)
        for path in reversed(directories):  # now that nothing is made in it any more
            _directory(reading, tree, path, made)


def _directory(reading: Beneath, tree: Beneath, path: bytes, made: Made) -> None:
    old, new = reading.open(path, LIST), -1
    try:
        new = tree.open(path, LIST)
        _xattrs((old, _SELF), (new, _SELF))
        _metadata((new, _SELF), os.fstat(old))
        made((old, _SELF), (new, _SELF))
    finally:
        for descriptor in (old, new):
            if descriptor >= 0:
                os.close(descriptor)


def _entry(
    old: At, new: At, found: os.stat_result, tree: Beneath, path: bytes, links: dict[tuple[int, int], bytes], made: Made
) -> None:
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(new[1], 0o700, dir_fd=new[0])
        return
    key = (found.st_dev, found.st_ino)
    if found.st_nlink > 1 and key in links:
        first = tree.at(links[key])
        os.link(first[1], new[1], src_dir_fd=first[0], dst_dir_fd=new[0], follow_symlinks=False)
        return
    if not _leaf(old, new, found):
        return
    _metadata(new, found)
    made(old, new)
    if found.st_nlink > 1:
        links[key] = path


def _leaf(old: At, new: At, found: os.stat_result) -> bool:
    if stat.S_ISREG(found.st_mode):
        _content(old, new)
        _xattrs(old, new)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(old[1], dir_fd=old[0]), new[1], dir_fd=new[0])
    elif stat.S_ISFIFO(found.st_mode):
        os.mkfifo(new[1], dir_fd=new[0])
    elif stat.S_ISSOCK(found.st_mode):
        return False
    else:
        try:
            os.mknod(new[1], found.st_mode, found.st_rdev, dir_fd=new[0])
        except PermissionError:
            return False
    return True


def _content(old: At, new: At) -> None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    source = os.open(old[1], os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=old[0])
    try:
        target = os.open(new[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=new[0])
        try:
            _bytes(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _bytes(source: int, target: int) -> None:
    """All of one file into another, in the kernel where it can."""
    try:
        while os.copy_file_range(source, target, _BLOCK * 64):
            checkpoint()
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
            checkpoint()
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]


def _metadata(new: At, found: os.stat_result) -> None:
    directory, name = new
    try:
        os.chown(name, found.st_uid, found.st_gid, dir_fd=directory, follow_symlinks=False)
    except PermissionError:
        pass
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=directory)  # after the owner: chown clears setuid
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=directory, follow_symlinks=False)


def _xattrs(old: At, new: At) -> None:
    source, target = link_path(old), link_path(new)
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError:
        return
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        except OSError:
            continue  # not ours to set (trusted.*), or not for this file system
