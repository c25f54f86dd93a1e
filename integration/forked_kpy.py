"""A kpy that starts fast, for hundreds of builds: a process that has imported kpy forks for each, and does nothing else.

Each build is a process of its own, with the arguments, directory, environment, output and session of the program that was
called; they share the imported modules as they were before the first of them. The builds of all other tests are processes
from their start on.

Or such processes in containers of the builder image, whose root file system each build empties: those build one at a time,
with the environment of the container, and each begins with an empty store.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False  # in the containers there is nothing else of these tests
if TYPE_CHECKING:
    import servers

# Python without its site is up in a moment. It waits for the exit code: a build that ends without one was killed.
CLIENT = """#!/usr/bin/python3 -IS
import fcntl, os, socket, sys, time
def free(addresses):
    # one that nobody uses, while this process lives
    while True:
        for address in addresses:
            lock = os.open(address + ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return address
            except BlockingIOError:
                os.close(lock)
        time.sleep(0.02)
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    contained = {contained!r}
    server.connect(free(contained) if contained else {address!r})
    words = [b"" if contained else os.getcwdb(), str(len(sys.argv)).encode(), *map(os.fsencode, sys.argv)]
    words += [] if contained else [key + b"=" + value for key, value in os.environb.items()]
    message = b"\\0".join(words)
    socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(message)
    sys.exit(int(server.makefile().read() or 255))
"""


@contextmanager
def forked(directory: Path, spawn: dict[str, object]) -> Iterator[Path]:
    """A program in `directory` to be called like kpy, by whom `spawn` makes the builds run."""
    address = directory / "socket"
    program = _client(directory, CLIENT.format(address=str(address), contained=()))
    # As text, because the user of the builds may not be able to read the checkout.
    server = subprocess.Popen([sys.executable, "-I", "-c", Path(__file__).read_text(), address], cwd="/", **spawn)  # type: ignore[call-overload]
    try:
        while not address.exists():
            assert server.poll() is None, "it did not start"
            time.sleep(0.05)
        yield program
    finally:
        server.terminate()
        server.wait()


@contextmanager
def contained(directory: Path, docker: "servers.Docker", image: str, *options: str) -> Iterator[Path]:
    """The same for builds in two containers of an image, which have `directory` at its own path: all files of the builds
    must be there, and who is in the containers must be able to make files in it."""
    addresses = [directory / f"socket{number}" for number in range(2)]
    program = _client(directory, CLIENT.format(address="", contained=tuple(map(str, addresses))))
    names: list[str] = []
    try:
        for address in addresses:
            names.append(docker(
                "run", "--detach", "--network", "host", "--volume", f"{directory}:{directory}", *options,
                "--entrypoint", "/kpy/bin/python3", image, "-ISXutf8", "-c", Path(__file__).read_text(), str(address),
            ).strip())  # fmt: skip
        for name, address in zip(names, addresses, strict=True):
            for _ in range(600):
                if address.exists():
                    break
                time.sleep(0.05)
            else:
                raise AssertionError(f"it did not start: {docker('logs', name)}")
        yield program
    finally:
        if names:
            docker("rm", "--force", "--volumes", *names)


def _client(directory: Path, text: str) -> Path:
    program = directory / "kpy"
    program.write_text(text)
    program.chmod(0o755)
    return program


def _serve(address: str) -> None:
    # What a build needs: `python -X importtime -m kpy build` tells.
    import requests.adapters  # noqa: F401

    import kpy.app.build
    import kpy.cli.build
    import kpy.cli.terminal  # noqa: F401

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(address + ".new")
        server.listen(16)
        os.rename(address + ".new", address)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _build(connection)
            connection.close()
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass


def _build(connection: socket.socket) -> None:
    code, home = 255, ""
    try:
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        size = int.from_bytes(head, "big")
        message = b""
        while len(message) < size:
            message += connection.recv(1 << 20)
        cwd, count, *rest = message.split(b"\0")
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if cwd:
            os.chdir(cwd)
            os.environb.clear()
            os.environb.update(word.split(b"=", 1) for word in rest[int(count) :])
        else:
            os.chdir("/")  # where it was, an earlier build may have emptied
            os.environ["KPY_HOME"] = home = f"/kpy/tmp/home-{os.getpid()}"
        sys.argv = [os.fsdecode(word) for word in rest[: int(count)]]
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from kpy.__main__ import main

        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if home:
            shutil.rmtree(home, ignore_errors=True)
        connection.sendall(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
