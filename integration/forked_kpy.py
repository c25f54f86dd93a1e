"""A kpy that starts fast, for hundreds of builds: a process that has imported kpy forks for each, and does nothing else.

Each build is a process of its own, with the arguments, directory, environment, output and session of the program that was
called; they share the imported modules as they were before the first of them. The builds of the other conformance tests,
and of all other tests, are processes from their start on.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Python without its site is up in a moment. It waits for the exit code: a build that ends without one was killed.
CLIENT = """#!/usr/bin/python3 -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    server.connect({address!r})
    words = [os.getcwdb(), str(len(sys.argv)).encode(), *map(os.fsencode, sys.argv)]
    words += [key + b"=" + value for key, value in os.environb.items()]
    message = b"\\0".join(words)
    socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(message)
    sys.exit(int(server.makefile().read() or 255))
"""


@contextmanager
def forked(directory: Path, spawn: dict[str, object]) -> Iterator[Path]:
    """A program in `directory` to be called like kpy, by whom `spawn` makes the builds run."""
    address, program = directory / "socket", directory / "kpy"
    program.write_text(CLIENT.format(address=str(address)))
    program.chmod(0o755)
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
    code = 255
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
        os.chdir(cwd)
        os.environb.clear()
        os.environb.update(word.split(b"=", 1) for word in rest[int(count) :])
        sys.argv = [os.fsdecode(word) for word in rest[: int(count)]]
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from kpy.__main__ import main

        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
