"""The program: argv to verb, errors to messages and exit codes. The only place that catches KpyError.

`kpy --version` must stay as fast as Python itself, so modules are imported when a verb needs them.
"""

import sys
from collections.abc import Mapping, Sequence

from kpy import __version__
from kpy.errors import InterruptedBuildError, KpyError, UsageError

# verb: module, what it does. A module has `run(argv, terminal) -> int` and HELP.
VERBS: Mapping[str, tuple[str, str]] = {
    "build": ("kpy.cli.build", "build an image from a Dockerfile, and push it"),
    "doctor": ("kpy.cli.doctor", "tell what this place allows a build, and what to change"),
    "executor": ("kpy.cli.executor", "build with kaniko's flags, in a Job that was kaniko's"),
    "explain": ("kpy.cli.explain", "tell about a build check: why it matters, and how to mend what it finds"),
    "import": ("kpy.cli.import_", "make an image from a tar of a root file system"),
    "images": ("kpy.cli.images", "list the images in the local store"),
    "kube": ("kpy.cli.kube", "print a Kubernetes Job that builds and pushes an image"),
    "keygen": ("kpy.cli.keygen", "make a pair of keys for signing"),
    "verify": ("kpy.cli.verify", "check the signature of an image in a registry"),
}
_KANIKO = ("--destination", "--no-push", "--context", "--dockerfile", "--tar-path", "--oci-layout-path")
_INTERNAL = 70  # EX_SOFTWARE
_PATIENCE = 0.3  # seconds
_BROKEN_PIPE = 141  # what a shell shows for a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Prints; never raises but SystemExit."""
    code = _caught(list(sys.argv[1:] if argv is None else argv))
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = code or _BROKEN_PIPE
        _forget_output()
    except (OSError, ValueError) as error:
        code = code or _fail(_full(error))
        _forget_output()  # else the interpreter tries once more, and says so in its own words and exit code
    return code


def _caught(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except BrokenPipeError:
        _forget_output()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail(InterruptedBuildError("interrupted"))
    except KpyError as error:
        return _fail(error)
    except Exception as error:
        return _internal(error)


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"], ["version"]):
        try:  # without Terminal, whose imports take time
            print(f"kpy {__version__}", flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _full(error) from error
        return 0
    import importlib

    # What an error needs, too: at the end of a build in a live root, these files may be what a RUN made of them.
    import kpy.cli.failure  # noqa: F401
    from kpy.cli.terminal import standard

    if _debug():
        import traceback  # noqa: F401

    terminal = standard()
    if not words:
        terminal.err(overview())
        return UsageError.exit_code
    if words[0] in ("-h", "--help") or words == ["help"]:
        terminal.out(overview())
        return 0
    if _is_kaniko(words):
        words = ["executor", *words]
    wants_help = words[0] == "help"
    verb = words[1] if wants_help else words[0]
    rest = words[1:]
    if verb not in VERBS:
        raise _unknown(verb)
    module = importlib.import_module(VERBS[verb][0])
    flags = rest[: rest.index("--")] if "--" in rest else rest
    if wants_help or "--help" in flags or "-h" in flags:
        terminal.out(module.HELP.rstrip("\n"))
        return 0
    return int(module.run(rest, terminal))


def _is_kaniko(words: list[str]) -> bool:
    """Are these the arguments of a kaniko Job whose image alone was changed? No verb, and flags that only kaniko has."""
    names = {word.partition("=")[0] for word in words}
    return words[0].startswith("-") and not names.isdisjoint(_KANIKO)


def overview() -> str:
    """The help of the program."""
    rows = [f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: kpy VERB [flags] ...",
            "",
            "Builds container images from a Dockerfile, without a daemon and without root.",
            "",
            *rows,
            "",
            "`kpy help VERB` tells more; `kpy --version` prints the version.",
        ]
    )


def _full(error: Exception) -> KpyError:
    reason = (getattr(error, "strerror", None) or "it is closed").lower()
    return KpyError(f"cannot write to standard output: {reason}")


def _unknown(verb: str) -> UsageError:
    from kpy.dockerfile.span import suggest

    if verb.startswith("-"):
        return UsageError(f"unknown flag: {verb}", hint="a verb comes first, such as `kpy build .`")
    return UsageError(f"unknown verb {verb!r}", hint=suggest(verb, VERBS) or "`kpy help` lists the verbs")


def _fail(error: KpyError) -> int:
    from kpy.cli.failure import render
    from kpy.cli.terminal import encode

    # Who wanted the end does not wait for whoever reads.
    seconds = _PATIENCE if isinstance(error, InterruptedBuildError) else None
    _write_error(encode(render(error) + "\n"), seconds)
    if _debug():
        _trace(seconds)
    return int(error.exit_code)


def _internal(error: Exception) -> int:
    from kpy.cli.failure import one_line

    kind = type(error).__name__
    text = one_line(str(error))[:500]
    line = f"error: internal error: {kind}: {text}" if text else f"error: internal error: {kind}"
    _write_error(
        f"{line}\nhint: please report this; KPY_DEBUG=1 shows where it happened\n".encode(
            "utf-8", "backslashreplace"
        )
    )
    if _debug():
        _trace()
    return _INTERNAL


def _debug() -> bool:
    import os

    return os.environ.get("KPY_DEBUG", "") not in ("", "0")


def _trace(seconds: float | None = None) -> None:
    import traceback

    from kpy.cli.failure import harmless
    from kpy.cli.terminal import encode

    _write_error(encode(harmless(traceback.format_exc())), seconds)


def _write_error(data: bytes, seconds: float | None = None) -> None:
    """Write to standard error, waiting so long for whoever reads; when nobody reads it there is nobody to tell."""
    import os

    from kpy.cli import runners

    if runners.listens(os.environ):
        data = runners.unheard(data)
    try:
        if sys.stderr is None:
            return
        sys.stderr.flush()
        if seconds is None:
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()
        else:
            _write_soon(data, seconds)
    except (OSError, ValueError):
        _forget_output()


def _write_soon(data: bytes, seconds: float) -> None:
    from kpy.util.cancel import Cancel
    from kpy.util.outlet import Outlet

    try:
        descriptor = sys.stderr.fileno()
    except OSError:  # it is in memory
        sys.stderr.buffer.write(data)
        return
    with Cancel() as ended:
        ended.set()
        try:
            with Outlet(descriptor, ended, grace=seconds) as outlet:
                outlet.write(data)
        except InterruptedBuildError:
            pass  # nobody reads


def _forget_output() -> None:
    """Point both streams nowhere, so that the interpreter's own flush at exit does not fail again."""
    import os

    nowhere = os.memfd_create("nowhere")  # not /dev/null: in a live root, a RUN may have put a pipe or a link there
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
