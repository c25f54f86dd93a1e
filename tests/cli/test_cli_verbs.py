"""The verbs, with the work faked: what they hand on, what they print."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpy.app.options import BuildOptions, Environment, StoredImage
from kpy.cli import build, images, import_, keygen, verify
from kpy.cli.terminal import Terminal
from kpy.errors import InterruptedBuildError, StepFailedError, UsageError
from kpy.events import Reporter, StepFinished, StepStarted
from kpy.oci.digest import Digest
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.util.cancel import Cancel

DIGEST = Digest.of(b"x")


@dataclass(frozen=True)
class Built:
    digest: Digest | None


def says(terminal: Terminal) -> tuple[str, str]:
    return terminal.stdout.getvalue().decode(), terminal.stderr.getvalue().decode()  # type: ignore[attr-defined]


def test_build_prints_the_digest_and_nothing_else_on_stdout(terminal: Terminal) -> None:
    seen: list[Any] = []

    def fake(options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> Built:
        seen.extend([options, environment])
        report(StepStarted("a", "[1/1] COPY . ."))
        report(StepFinished("a", "done"))
        return Built(DIGEST)

    assert build.run(["-t", "app", "."], terminal, fake) == 0
    out, err = says(terminal)
    assert out == f"{DIGEST}\n"
    assert err.startswith("#1 [1/1] COPY . .\n#1 DONE ")
    assert seen[0] == BuildOptions(context=".", tags=("app",))
    assert seen[1].directory == terminal.directory


def test_quiet_prints_the_digest_only(terminal: Terminal) -> None:
    def fake(options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> Built:
        report(StepStarted("a", "x"))
        return Built(DIGEST)

    assert build.run(["-q", "."], terminal, fake) == 0
    assert says(terminal) == (f"{DIGEST}\n", "")


def test_an_archive_on_stdout_is_not_followed_by_a_digest(terminal: Terminal) -> None:
    def fake(options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> Built:
        environment.stdout.write(b"TAR")
        return Built(DIGEST)

    assert build.run(["-o", "type=oci,dest=-", "."], terminal, fake) == 0
    assert says(terminal) == ("TAR", f"{DIGEST}\n")


def test_no_image_no_digest(terminal: Terminal) -> None:
    assert build.run(["-o", "out", "."], terminal, lambda *_: Built(None)) == 0
    assert says(terminal) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_names_itself(terminal: Terminal, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def fake(options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> Built:
        os.kill(os.getpid(), number)
        assert cancel.wait(10)
        raise StepFailedError("killed", step="x")

    with pytest.raises(InterruptedBuildError) as caught:
        build.run(["."], terminal, fake)
    assert (caught.value.message, caught.value.exit_code) == ("interrupted", 128 + number)
    assert signal.getsignal(number) == before


def test_an_error_flies_on(terminal: Terminal) -> None:
    def fake(*_: Any) -> Built:
        raise StepFailedError("no", step="x")

    with pytest.raises(StepFailedError):
        build.run(["."], terminal, fake)


def test_import(terminal: Terminal) -> None:
    seen: list[Any] = []

    def fake(*given: Any) -> Digest:
        seen.extend(given[:3])
        return DIGEST

    assert import_.run(["--platform=linux/arm64", "r.tar", "kpy.local/base:1"], terminal, fake) == 0
    assert seen == ["r.tar", Reference("kpy.local", "base", "1"), Platform("linux", "arm64")]
    assert says(terminal)[0] == f"{DIGEST}\n"


def test_images(terminal: Terminal) -> None:
    stored = [
        StoredImage("app:1", DIGEST, 1_500_000, (Platform("linux", "amd64"), Platform("linux", "arm64")))
    ]
    assert images.run([], terminal, lambda _: stored) == 0
    assert says(terminal)[0] == (
        f"NAME   {'DIGEST':<71}  SIZE   PLATFORMS\napp:1  {DIGEST}  1.5MB  linux/amd64,linux/arm64\n"
    )


def test_images_quiet(terminal: Terminal) -> None:
    images.run(["-q"], terminal, lambda _: [StoredImage("a", DIGEST, 1)])
    assert says(terminal)[0] == f"{DIGEST}\n"


def test_keygen(terminal: Terminal) -> None:
    assert (
        keygen.run(
            ["--output-key-prefix", "ci"], terminal, lambda prefix, *_: (f"{prefix}.key", f"{prefix}.pub")
        )
        == 0
    )
    assert says(terminal)[0] == "ci.key\nci.pub\n"


def test_verify(terminal: Terminal) -> None:
    seen: list[Any] = []

    def fake(*given: Any) -> Digest:
        seen.extend(given[:3])
        return DIGEST

    assert verify.run(["--key", "k.pub", "--insecure-registry=r:5000", "r:5000/app:1"], terminal, fake) == 0
    assert seen == [Reference("r:5000", "app", "1"), "k.pub", ("r:5000",)]
    assert says(terminal)[0] == f"{DIGEST}\n"


@pytest.mark.parametrize(
    ("run", "argv"),
    [
        (import_.run, ["a.tar"]),
        (import_.run, ["a.tar", "BAD"]),
        (import_.run, ["--platform=linux/amd64,linux/arm64", "a.tar", "b"]),
        (images.run, ["x"]),
        (keygen.run, ["x"]),
        (verify.run, ["app"]),
        (verify.run, ["--key=k"]),
        (verify.run, ["--key=k", "A!"]),
        (verify.run, ["--no-such", "a"]),
    ],
)
def test_wrong_words(
    terminal: Terminal, run: Callable[[list[str], Terminal], int], argv: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        run(argv, terminal)
