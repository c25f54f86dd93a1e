"""Part of a tree of files as a real directory, for mounts that no snapshot can serve."""

import os
import tempfile
from contextlib import ExitStack, suppress

from kpy.layer.entry import Entry, Kind
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.tree import Tree
from kpy.layer.write import stream_tar
from kpy.linux.ledger import Ledger
from kpy.linux.namespaces import gives_owners
from kpy.snapshot.recorder import Recorder
from kpy.solver.copy import Copier, Rules
from kpy.solver.target import LayerTarget, needed, opens
from kpy.solver.values import FilesValue, Services
from kpy.util import fs
from kpy.util.erase import LeftError, in_time, remove


def materialise(
    value: FilesValue, path: str, services: Services, stack: ExitStack, ledger: Ledger | None = None
) -> str:
    """Write the file or directory at `path` of the source to disk; it goes when `stack` ends. Gives where it is.
    With a `ledger`, what only root can give files is written there."""
    notes = Recorder(ledger) if ledger is not None else None
    directory = tempfile.mkdtemp(dir=services.spool)
    stack.callback(_remove, directory)
    entry = value.source.lookup(path)
    is_dir = entry is None or entry.kind is Kind.DIR
    with LayerTarget(Tree.empty(), services.spool) as target:
        copier = Copier(value.source, target, Rules(None, None, keep_owner=True, exclude=None, now=0))
        copier.copy_path(path, "/content" if is_dir else "/content/file")
        with value.source.reading(needed(target, 0)) as opener, tempfile.TemporaryFile(dir=services.spool) as tar:

            def write(data: bytes) -> None:
                tar.write(data)

            stream_tar(target.items(lambda put: opens(put, [opener])), write)
            tar.seek(0)
            extract(tar, directory, seen=lambda _: None, options=ExtractOptions(owners=gives_owners(), notes=notes))
    if not is_dir:
        return f"{directory}/content/file"
    if entry is not None:
        _dress(f"{directory}/content", entry, notes)  # a copy of a directory is of what is in it
    return f"{directory}/content"


def _remove(directory: str) -> None:
    with suppress(LeftError):  # it is in the spool, which goes with all in it
        remove(directory, look=in_time())


def _dress(directory: str, entry: Entry, notes: Recorder | None) -> None:
    with fs.io_errors("make", directory):
        if notes is not None:
            place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fchmod(place, notes.permissions(entry.mode, directory=True))
                os.utime(place, ns=(entry.mtime, entry.mtime))
                notes.note(place, "", entry)
            finally:
                os.close(place)
            return
        if gives_owners():
            os.chown(directory, entry.uid, entry.gid)
        os.chmod(directory, entry.mode)
        os.utime(directory, ns=(entry.mtime, entry.mtime))
