"""SSH agents for `RUN --mount=type=ssh` (R18): the user's own or key files, behind a socket that a RUN may use.

A RUN can list the keys and have things signed, nothing else: what adds, removes or locks keys, and every extension,
is refused, as BuildKit refuses it. The keys themselves never leave this process or the agent.
"""

import os
import secrets
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Protocol

from kpy.app.options import Environment, SshSpec
from kpy.errors import SandboxError, UsageError
from kpy.solver.values import SocketFor
from kpy.util import fs

FAILURE, REQUEST_IDENTITIES, SIGN_REQUEST = 5, 11, 13  # draft-miller-ssh-agent, 6.1
_ALLOWED = (REQUEST_IDENTITIES, SIGN_REQUEST)
_REFUSED = bytes([FAILURE])
_MAX_MESSAGE = 256 << 10  # OpenSSH's AGENT_MAX_LEN
_MAX_KEY = 100 << 10  # BuildKit's limit of a key file
_MAX_CLIENTS = 64

class Agent(Protocol):
    """Something that answers the two requests that are allowed."""

    def answer(self, message: bytes, upstream: "Upstream", /) -> bytes:
        """The answer to an identities or a sign request."""
        ...


class Upstream:
    """The connection to the user's own agent that belongs to one connection of a RUN; made when it is needed."""

    def __init__(self, opened: Callable[[socket.socket], None]) -> None:
        self._opened = opened
        self._socket: socket.socket | None = None

    def ask(self, path: str, message: bytes) -> bytes:
        """The answer of the agent at `path`."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self._opened(self._socket)
            _connect(self._socket, path)
        _send(self._socket, message)
        answer = _receive(self._socket)
        if answer is None:
            raise ConnectionError("the agent hung up")
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()


class UserAgent:
    """The agent that listens at a path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def answer(self, message: bytes, upstream: Upstream, /) -> bytes:
        """See Agent."""
        return upstream.ask(self._path, message)


def read_agent(spec: SshSpec, environment: Environment) -> Agent:
    """What `--ssh` names: SSH_AUTH_SOCK, a socket, or key files. Raises UsageError that says what is wrong with it."""
    paths = spec.paths
    if not paths:
        own = environment.variables.get("SSH_AUTH_SOCK", "")
        if not own:
            raise UsageError(
                f"--ssh {spec.id}: there is no SSH agent: SSH_AUTH_SOCK is not set",
                hint=f"start one and add a key (eval $(ssh-agent); ssh-add), or use --ssh {spec.id}=KEYFILE",
            )
        paths = (own,)
    sockets: list[str] = []
    keys: list[tuple[str, bytes]] = []
    for path in paths:
        full = os.path.join(environment.directory, os.path.expanduser(path))
        try:
            if stat.S_ISSOCK(os.stat(full).st_mode):
                sockets.append(full)
            else:
                keys.append((path, _read_key(spec, path, full)))
        except OSError as error:
            raise UsageError(f"--ssh {spec.id}: cannot read {path}: {fs.reason(error)}") from error
    if sockets and (keys or len(sockets) > 1):
        raise UsageError(f"--ssh {spec.id}: an agent's socket cannot be combined with others", hint="give each an id of its own")
    if sockets:
        _probe(spec, sockets[0])
        return UserAgent(sockets[0])
    from kpy.signing.sshkeys import KeyAgent  # cryptography takes a while to load

    return KeyAgent.load(spec.id, keys)


def _read_key(spec: SshSpec, path: str, full: str) -> bytes:
    with open(full, "rb") as stream:
        data = stream.read(_MAX_KEY + 1)
    if len(data) > _MAX_KEY:
        raise UsageError(f"--ssh {spec.id}: {path} is larger than {_MAX_KEY >> 10} KiB, it is no private key")
    return data


def _probe(spec: SshSpec, path: str) -> None:
    """Somebody has to listen: a build must not find out after twenty minutes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            _connect(probe, path)
        except OSError as error:
            raise UsageError(
                f"--ssh {spec.id}: no SSH agent answers at {path}: {fs.reason(error)}", hint="is it still running?"
            ) from error


@contextmanager
def listening(agent: Agent, path: str, *, uid: int, gid: int, mode: int) -> Iterator[str]:
    """Have a socket at `path`, with this owner and mode, that speaks for the agent while the block runs.

    Raises SandboxError when it cannot be made.
    """
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        try:
            _bind(server, path)
            stack.callback(_unlink, path)
            os.chown(path, uid, gid)
            os.chmod(path, mode)
            server.listen(16)
        except OSError as error:
            raise SandboxError(
                f"cannot make the socket of an SSH agent for {uid}:{gid}: {fs.reason(error)}", errno=error.errno or 0
            ) from error
        clients = _Clients(server, agent)
        stack.callback(clients.stop)
        clients.start()
        yield path


class _Clients:
    """The threads that serve one socket: one accepts, and each connection has its own."""

    def __init__(self, server: socket.socket, agent: Agent) -> None:
        self._server = server
        self._agent = agent
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._slots = threading.BoundedSemaphore(_MAX_CLIENTS)
        self._stopped = False

    def start(self) -> None:
        self._spawn(self._accept)

    def stop(self) -> None:
        """Hang up on everybody, and wait until nothing of it runs."""
        with self._lock:
            self._stopped = True
            for item in (self._server, *self._open):
                with suppress(OSError):
                    item.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept or recv
        while self._threads:
            self._threads.pop().join()

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="ssh-agent", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # stopped
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            with self._lock:
                if self._stopped:
                    connection.close()
                    return
                self._open.append(connection)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                self._spawn(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _adopt(self, upstream: socket.socket) -> None:
        with self._lock:
            if self._stopped:
                raise ConnectionError("the RUN has ended")
            self._open.append(upstream)

    def _serve(self, connection: socket.socket) -> None:
        opened: list[socket.socket] = [connection]

        def adopt(item: socket.socket) -> None:
            self._adopt(item)
            opened.append(item)

        upstream = Upstream(adopt)
        try:
            while (message := _receive(connection)) is not None:
                _send(connection, self._answer(message, upstream))
        except OSError:
            pass  # the other side is gone, or said what is no message
        finally:
            with self._lock:
                self._open = [item for item in self._open if item not in opened]
            upstream.close()
            connection.close()
            self._slots.release()

    def _answer(self, message: bytes, upstream: Upstream) -> bytes:
        if not message or message[0] not in _ALLOWED:
            return _REFUSED
        try:
            return self._agent.answer(message, upstream)
        except (OSError, ValueError):
            return _REFUSED


def _send(to: socket.socket, message: bytes) -> None:
    to.sendall(len(message).to_bytes(4, "big") + message)


def _receive(connection: socket.socket) -> bytes | None:
    """The next message, None at the end. Raises OSError for one that is too long or cut off."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if not 0 < size <= _MAX_MESSAGE:
        raise ConnectionError(f"a message of {size} bytes")
    body = _exactly(connection, size)
    if body is None:
        raise ConnectionError("cut off")
    return body


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            if data:
                raise ConnectionError("cut off")
            return None
        data += more
    return bytes(data)


def _connect(client: socket.socket, path: str) -> None:
    _short(path, client.connect)


def _bind(server: socket.socket, path: str) -> None:
    _short(path, server.bind)


def _short(path: str, use: Callable[[str], None]) -> None:
    """Use a path of a socket whatever its length: an address has room for 107 bytes only."""
    directory, name = os.path.split(path)
    descriptor = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def agent_sockets(specs: Sequence[SshSpec], environment: Environment, spool: str) -> dict[str, SocketFor]:
    """The agents of a build by id; sockets are made in `spool` when a RUN asks for one.

    Reads the keys now: one that cannot be used is an error before anything is built. Raises UsageError.
    """
    return {spec.id: _socket_for(read_agent(spec, environment), spool) for spec in specs}


def _socket_for(agent: Agent, spool: str) -> SocketFor:
    def make(*, uid: int, gid: int, mode: int) -> AbstractContextManager[str]:
        return _in_own_directory(agent, os.path.join(spool, f"ssh-{secrets.token_hex(8)}"), uid=uid, gid=gid, mode=mode)

    return make


@contextmanager
def _in_own_directory(agent: Agent, directory: str, *, uid: int, gid: int, mode: int) -> Iterator[str]:
    """A socket that nothing else is beside: who links it to a RUN has rights in its directory."""
    with fs.io_errors("make", directory):
        os.mkdir(directory, 0o711)
    try:
        with listening(agent, os.path.join(directory, "agent"), uid=uid, gid=gid, mode=mode) as path:
            yield path
    finally:
        with suppress(OSError):
            os.rmdir(directory)
