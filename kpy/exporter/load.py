"""`--load`, `type=docker` without a file: into the engine of the docker or podman of this machine (FEATURES 3.1).

By their own programs, which know where the engine is (contexts, ssh, TLS), and take the archive on standard input.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from kpy.errors import StoreError, UsageError
from kpy.events import Reporter, silent
from kpy.exporter.base import Artifact, ExportResult
from kpy.exporter.docker import DockerArchiveExporter
from kpy.linux.null import null
from kpy.oci.reference import Reference
from kpy.util import waiting
from kpy.util.cancel import Cancel

_PATIENCE = 30  # seconds for an engine to say that it is there
_SAID = 2000


@dataclass(frozen=True, slots=True)
class Loader:
    """A program that loads archives, found and asked whether it can. `name` is docker or podman."""

    name: str
    path: str
    variables: Mapping[str, str] = field(repr=False)

    @staticmethod
    def find(variables: Mapping[str, str]) -> "Loader":
        """docker's, or else podman's. Raises UsageError if there is neither, or the engine does not answer."""
        for name in ("docker", "podman"):
            path = shutil.which(name, path=variables.get("PATH", ""))
            if path is not None:
                found = Loader(name, path, variables)
                found.check()
                return found
        raise UsageError(
            "--load needs docker or podman, and neither is on PATH", hint="use -o type=docker,dest=image.tar, and load that where it is wanted"
        )

    def check(self) -> None:
        """Raise UsageError if its engine does not answer."""
        argv = [self.path, "version", "--format", "{{.Server.Version}}"] if self.name == "docker" else [self.path, "version"]
        try:
            done = waiting.run(argv, _PATIENCE, env=dict(self.variables))
            said = "" if done.returncode == 0 else _last(done.stderr) or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            said = f"no answer within {_PATIENCE} seconds"
        except OSError as error:
            said = error.strerror or str(error)
        if said:
            raise UsageError(f"--load: {self.name} cannot be used: {said}", hint="use -o type=docker,dest=image.tar")


@dataclass(frozen=True, slots=True)
class LoadExporter:
    """Streams the archive to the engine. What it had under the names stays if that fails."""

    loader: Loader
    names: tuple[Reference, ...] = ()
    report: Reporter = field(default=silent)
    cancel: Cancel | None = None

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Load it. Raises StoreError with what the engine says."""
        name = self.loader.name
        try:
            with null() as nowhere:
                program = subprocess.Popen(
                    [self.loader.path, "load"], stdin=subprocess.PIPE, stdout=nowhere, stderr=subprocess.PIPE,
                    env=dict(self.loader.variables),
                )  # fmt: skip
        except OSError as error:
            raise StoreError(f"cannot start {name}: {error.strerror or error}") from error
        with program:
            if self.cancel is not None:
                self.cancel.then(program.kill)
            stdin, stderr = cast(BinaryIO, program.stdin), cast(BinaryIO, program.stderr)
            try:
                result = self._send(artifact, stdin)
                said = waiting.source(stderr).read(_SAID)
                code = waiting.wait(program)
            except BaseException:
                program.kill()
                _close(stdin)
                raise
        if code or result is None:
            raise StoreError(f"{name} load failed: {_last(said) or f'exit code {code}'}")
        return result

    def _send(self, artifact: Artifact, stdin: BinaryIO) -> ExportResult | None:
        """None if the program closed its end: it says why."""
        try:
            result = DockerArchiveExporter(stdin, self.names, self.report, self.cancel).export(artifact)
            stdin.close()
        except StoreError as error:
            if not isinstance(error.__cause__, BrokenPipeError):
                raise
            _close(stdin)
            return None
        except BrokenPipeError:
            return None
        return result


def _close(stream: BinaryIO) -> None:
    try:
        stream.close()
    except OSError:
        pass  # what was left to write; nobody reads it


def _last(text: bytes) -> str:
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(char if char.isprintable() else "?" for char in lines[-1])[:500] if lines else ""
