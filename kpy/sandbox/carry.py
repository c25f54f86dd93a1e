"""What a ledger says of the files of mounts: brought to where root is emulated, and back to who keeps the mount. The records
of files that are copied on the way. Knows nothing of how mounts are made."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kpy.linux.beneath import LIST, At, Beneath, join
from kpy.linux.birth import identify, recorded
from kpy.linux.copytree import Made
from kpy.linux.ledger import Ledger, Record
from kpy.sandbox.attend import LeftRunningError
from kpy.sandbox.base import Mount
from kpy.util.fs import io_errors


@contextmanager
def brought(mounts: Sequence[Mount], ledger: Ledger | None) -> Iterator[None]:
    """Have what the mounts' ledgers say in `ledger` while the block runs; those of mounts that keep what is written have
    what it says of their files afterwards."""
    mine = [mount for mount in mounts if mount.ledger is not None]
    if ledger is None or not mine:
        yield
        return
    for mount in mine:
        assert mount.ledger is not None
        ledger.records.update(mount.ledger.records)
    try:
        yield
    except LeftRunningError:
        raise  # it is not back
    except BaseException:
        _take_back(mine, ledger)
        raise
    _take_back(mine, ledger)


def _take_back(mounts: Sequence[Mount], ledger: Ledger) -> None:
    for mount in mounts:
        if mount.kind == "bind" and not mount.read_only and not mount.discard:
            assert mount.ledger is not None
            with io_errors("read", mount.source):
                mount.ledger.records = of_tree(ledger, mount.source)


def of_tree(ledger: Ledger, top: str) -> dict[tuple[int, int], Record]:
    """What is recorded of a directory, or of a file, and of all that is in it. Nothing may be mounted in it. No link is
    followed."""
    found = os.stat(top, follow_symlinks=False)
    keys = {(found.st_dev, found.st_ino)}
    if stat.S_ISDIR(found.st_mode):
        with Beneath(top) as tree:
            pending = [b""]
            while pending:
                path = pending.pop()
                try:
                    directory = tree.open(path, LIST)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        raise
                    continue  # another RUN has the same cache, and changes it
                try:
                    with os.scandir(directory) as entries:
                        for entry in entries:
                            keys.add((found.st_dev, entry.inode()))  # no stat: caches are large
                            if entry.is_dir(follow_symlinks=False):
                                pending.append(join(path, os.fsencode(entry.name)))
                finally:
                    os.close(directory)
    return {key: record for key, record in ledger.records.items() if key in keys}


def carrying(ledger: Ledger | None) -> Made:
    """For `copy`: what is recorded of a file is recorded of its copy."""

    def made(old: At, new: At) -> None:
        if ledger is None or not ledger.records:
            return
        found = os.stat(old[1], dir_fd=old[0], follow_symlinks=False)
        told = recorded(ledger, (found.st_dev, found.st_ino), *old)
        if told is not None:
            key, born = identify(*new)
            ledger.records[key] = Record(told.mode, told.uid, told.gid, told.rdev, born, dict(told.xattrs))

    return made
