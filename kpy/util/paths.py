"""Paths that stay inside a root: cleaning them by their text, and opening them from a directory descriptor.

Knows nothing of layers. Follows no symlink: whoever wants that resolves it before.
"""

import errno
import os
import posixpath
import stat

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def clean(path: str) -> str:
    """The path relative to the root, without `.`, `..`, empty components or slashes at its ends; "" is the root.

    `..` at the root stays there, as in `filepath.Join(root, filepath.Clean("/" + path))` of containerd. The text
    alone counts: `a/../b` is `b` even if `a` is a symlink. There must be no NUL in it (normpath would cut there).
    """
    return posixpath.normpath("/" + path.lstrip("/"))[1:]


def split(path: str) -> list[str]:
    """The components of a path, without empty ones and `.`; `..` stays, for who follows symlinks."""
    return [part for part in path.split("/") if part not in ("", ".")]


def join(directory: str, name: str) -> str:
    """The path of a name in a directory, where "" is the root."""
    return f"{directory}/{name}" if directory else name


def open_directory(root_fd: int, path: str) -> int:
    """Open the directory at a cleaned path below `root_fd` with O_PATH, following no symlink in any component.

    Raises OSError: ENOTDIR for a symlink or file on the way. The caller closes the descriptor.
    """
    fd = os.open(".", _DIRECTORY, dir_fd=root_fd)
    for part in split(path):
        if part == "..":
            os.close(fd)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        try:
            deeper = os.open(part, _DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def open_file(root_fd: int, path: str) -> int:
    """Open the regular file at a cleaned path below `root_fd` for reading, following no symlink in any component.

    Raises OSError: ELOOP for a symlink, EINVAL for what is no regular file. The caller closes the descriptor.
    """
    parent, _, name = path.rpartition("/")
    directory = open_directory(root_fd, parent)
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd
