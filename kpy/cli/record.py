"""`--progress-file`: what a build reports, for a program that reads it when the build is done."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kpy.app.options import BuildOptions
from kpy.app.outside import check_output
from kpy.cli.progress_json import JsonProgress
from kpy.errors import KpyError, UsageError
from kpy.events import Event, Reporter
from kpy.util import fs


class Record:
    """Lines of JSON: BuildKit's rawjson, and last `{"error": …}` if one ended the build."""

    def __init__(self, progress: JsonProgress) -> None:
        self._progress = progress

    def __call__(self, event: Event, /) -> None:
        """Write it down."""
        self._progress(event)

    def with_(self, shown: Reporter) -> Reporter:
        """A Reporter that shows events and writes them down."""

        def both(event: Event) -> None:
            shown(event)
            self(event)

        return both

    def error(self, error: KpyError) -> None:
        """Write down what ended the build. The lines of the Dockerfile are there if it came from some."""
        found = {"message": error.message, "hint": error.hint, "code": int(error.exit_code), "step": error.step}
        if error.first_line:
            found |= {"file": error.file, "line": error.first_line, "endLine": error.last_line}
        self._progress.write({"error": found})


@contextmanager
def recorded(options: BuildOptions, directory: str) -> Iterator[Record | None]:
    """The record in the file, if one is wanted. It is opened before anything is done: a RUN may have the name later, but
    not the file. Raises UsageError."""
    path = options.progress_file
    if not path:
        yield None
        return
    check_output(path, options, directory, replaced=False)
    try:
        stream = open(os.path.join(directory, path), "wb")
    except OSError as error:
        raise UsageError(f"cannot write --progress-file {path}: {fs.reason(error)}") from error
    with stream:
        record = Record(JsonProgress(stream))
        try:
            yield record
        except KpyError as error:
            record.error(error)
            raise
