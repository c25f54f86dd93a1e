"""`kpy executor`: kaniko's command line, so that a kaniko Job works with its image name changed.

`main` is the entry point of the builder image's `executor`; exit codes are kpy's.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from kpy.app.options import BuildOptions, Environment
from kpy.cli.build import BuildThen, BuiltImage, builder
from kpy.cli.failure import one_line
from kpy.cli.flags import usage
from kpy.cli.kaniko import Request, environment, read
from kpy.cli.kaniko_flags import NOTES, SHOWN
from kpy.cli.terminal import Terminal
from kpy.cli.working import work
from kpy.errors import ContextError, UsageError
from kpy.events import Reporter, Warned
from kpy.oci.digest import Digest
from kpy.util import fs
from kpy.util.cancel import Cancel

HELP = f"""\
usage: kpy executor [flags]

Build and push an image, with the flags of kaniko's executor: a kaniko Job works with its image name changed.
The digest of the image goes to standard output, everything else to standard error. The Dockerfile means what it means to
BuildKit: COPY and ADD give files to root, whatever USER says.

{usage(SHOWN)}

Accepted, with a line that says why they have no effect:
  {", ".join(f"--{name}" for name in NOTES)}

Read from the environment: KANIKO_DIR, KANIKO_NO_PUSH, KANIKO_REGISTRY_MIRROR, KANIKO_REGISTRY_MAP, GIT_TOKEN, GIT_USERNAME,
GIT_PASSWORD, GIT_PULL_METHOD, and what `kpy build` reads. Logins are found in /kaniko/.docker/config.json, too.
"""
_NO_VERB = {
    "login": "put a config.json into $DOCKER_CONFIG, for example from an image-pull secret",
    "push": "build and push in one go: leave out --no-push",
    "bake": "build one target at a time",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program `executor`. Prints; never raises but SystemExit."""
    import sys

    from kpy.cli.main import main as kpy

    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["version"]:
        return kpy(["--version"])
    return kpy(["executor", *words])


def run(argv: Sequence[str], terminal: Terminal, build: BuildThen | None = None) -> int:
    """Build. Raises KpyError."""
    if argv and argv[0] in _NO_VERB:
        raise UsageError(f"executor {argv[0]} is not supported yet", hint=_NO_VERB[argv[0]])
    request = read(argv, terminal)
    make = build or builder()
    if request.mode != "rawjson":  # those are lines of JSON, all of them
        for note in request.notes:
            terminal.err(f"note: {one_line(note)}")
    world = environment(request, terminal)
    # A live root becomes that of the image: a link in it must not lead us to other files than those that were meant.
    places = {path: os.path.realpath(os.path.join(terminal.directory, path)) for path in request.options.written_later}
    special = {path for path, place in places.items() if os.path.exists(place) and not os.path.isfile(place)}

    def write(built: BuiltImage) -> None:
        if built.digest is not None:
            _write_files(request, built.digest, places, special)

    try:
        built = work(request.mode, terminal, lambda report, cancel: _build(request, make, world, report, cancel, write))
    finally:
        if request.tar:
            world.stdin.close()
    if built.digest is not None:
        terminal.out(str(built.digest))
    return 0


def _build(
    request: Request, make: BuildThen, world: Environment, report: Reporter, cancel: Cancel, done: Callable[[BuiltImage], None]
) -> BuiltImage:
    if request.mode == "rawjson":
        for note in request.notes:
            report(Warned(note))
    options: BuildOptions = request.options
    return make(options, world, report, cancel, done)


def _write_files(request: Request, digest: Digest, places: Mapping[str, str], special: AbstractSet[str]) -> None:
    """Write them in kaniko's form: the digest without a newline, the names one a line."""
    names = [f"{name.registry}/{name.repository}" for name in request.names]
    tagged = [f"{place}:{name.tag}" for place, name in zip(names, request.names, strict=True)]
    for path, text in (
        (request.files.digest, str(digest)),
        (request.files.names, "".join(f"{name}@{digest}\n" for name in names)),
        (request.files.tagged_names, "".join(f"{name}@{digest}\n" for name in tagged)),
    ):
        if path:
            _write(path, places[path], text, special=path in special)


def _write(path: str, place: str, text: str, *, special: bool) -> None:
    """In place: it may be a device, or a file that is mounted, such as /dev/termination-log. `special`: it was no file before
    the build."""
    if os.path.exists(place) and not os.path.isfile(place) and not special:
        raise ContextError(f"the image is made, but {path} is no file any more", hint="the image has a pipe there: write to a volume of its own")
    if os.path.realpath(place) != place:
        raise ContextError(
            f"the image is made, but {path} leads elsewhere now: to {os.path.realpath(place)}",
            hint="the image has a link there: write to a volume of its own",
        )
    try:
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ContextError(f"the image is made, but cannot write {path}: {fs.reason(error)}") from error
