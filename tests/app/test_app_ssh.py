"""SSH agents for RUN (R18): what a RUN can ask for over the socket, and what it cannot."""

import base64
import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kpy.app.options import Environment, SshSpec
from kpy.app.ssh import agent_sockets
from kpy.errors import UsageError

IDENTITIES, SIGN = b"\x0b", 13
FAILURE = b"\x05"


class Client:
    """A connection to an agent."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        directory = os.open(os.path.dirname(path), os.O_PATH)  # the path may be too long for an address
        self.socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        os.close(directory)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, message: bytes) -> bytes:
        self.socket.sendall(len(message).to_bytes(4, "big") + message)
        head = self.socket.recv(4, socket.MSG_WAITALL)
        return self.socket.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)

    def sign(self, blob: bytes, data: bytes, flags: int = 0) -> list[bytes]:
        """The fields of the signature, none if it was refused."""
        answer = self.ask(bytes([SIGN]) + string(blob) + string(data) + flags.to_bytes(4, "big"))
        return strings(strings(answer[1:])[0]) if answer[0] == 14 else []


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def strings(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def environment(directory: Path, **variables: str) -> Environment:
    return Environment(variables, str(directory), BytesIO(), BytesIO())


def write(path: Path, key: object, *, pem: bool = False, password: bytes = b"") -> bytes:
    """Write the private key; its public blob."""
    form = serialization.PrivateFormat.TraditionalOpenSSL if pem else serialization.PrivateFormat.OpenSSH
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))  # type: ignore[attr-defined]
    public = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return base64.b64decode(public.split()[1])


@contextlib.contextmanager
def connected(directory: Path, *paths: str, **variables: str) -> Iterator[Client]:
    sockets = agent_sockets([SshSpec("default", paths)], environment(directory, **variables), str(directory))
    with sockets["default"](uid=-1, gid=-1, mode=0o600) as path:
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        with Client(path) as client:
            yield client
    assert not Path(path).exists()


def test_keys_are_listed_with_the_names_of_their_files(tmp_path: Path) -> None:
    first = write(tmp_path / "one", ed25519.Ed25519PrivateKey.generate())
    second = write(tmp_path / "two", ec.generate_private_key(ec.SECP256R1()))
    with connected(tmp_path, "one", "two") as client:
        answer = client.ask(IDENTITIES)
        assert answer[:5] == b"\x0c\0\0\0\x02"
        assert strings(answer[5:]) == [first, b"one", second, b"two"]


def test_ed25519_signs(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    blob = write(tmp_path / "key", key)
    with connected(tmp_path, "key") as client:
        name, signature = client.sign(blob, b"data")
    assert name == b"ssh-ed25519"
    key.public_key().verify(signature, b"data")


@pytest.mark.parametrize("pem", [False, True])
@pytest.mark.parametrize(("flags", "name", "algorithm"), [
    (2, b"rsa-sha2-256", hashes.SHA256()), (4, b"rsa-sha2-512", hashes.SHA512()), (6, b"rsa-sha2-512", hashes.SHA512()),
])  # fmt: skip
def test_rsa_signs_with_sha2(tmp_path: Path, flags: int, name: bytes, algorithm: hashes.HashAlgorithm, *, pem: bool) -> None:
    key = rsa.generate_private_key(65537, 2048)
    blob = write(tmp_path / "key", key, pem=pem)
    with connected(tmp_path, "key") as client:
        found, signature = client.sign(blob, b"data", flags)
        assert client.sign(blob, b"data", 0) == []  # SHA-1
    assert found == name
    key.public_key().verify(signature, b"data", padding.PKCS1v15(), algorithm)


@pytest.mark.parametrize(("curve", "name", "algorithm"), [
    (ec.SECP256R1(), b"ecdsa-sha2-nistp256", hashes.SHA256()), (ec.SECP384R1(), b"ecdsa-sha2-nistp384", hashes.SHA384()),
    (ec.SECP521R1(), b"ecdsa-sha2-nistp521", hashes.SHA512()),
])  # fmt: skip
def test_ecdsa_signs(tmp_path: Path, curve: ec.EllipticCurve, name: bytes, algorithm: hashes.HashAlgorithm) -> None:
    key = ec.generate_private_key(curve)
    blob = write(tmp_path / "key", key)
    with connected(tmp_path, "key") as client:
        for number in range(20):  # r and s with and without a leading zero
            found, signature = client.sign(blob, b"%d" % number)
            assert found == name
            r, s = (int.from_bytes(item, "big", signed=True) for item in strings(signature))
            key.public_key().verify(encode_dss_signature(r, s), b"%d" % number, ec.ECDSA(algorithm))


@pytest.mark.parametrize("message", [
    bytes([17]) + string(b"ssh-ed25519"), b"\x12", b"\x13", b"\x16" + string(b"x"), b"\x1b" + string(b"query"), b"\xff",
    bytes([SIGN]), bytes([SIGN]) + b"\xff\xff\xff\xff", bytes([SIGN]) + string(b"unknown") + string(b"") + b"\0\0\0\0",
])  # fmt: skip
def test_all_else_is_refused_and_the_connection_lives(tmp_path: Path, message: bytes) -> None:
    write(tmp_path / "key", ed25519.Ed25519PrivateKey.generate())
    with connected(tmp_path, "key") as client:
        assert client.ask(message) == FAILURE
        assert client.ask(IDENTITIES)[0] == 12


@pytest.mark.parametrize("raw", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\x10\0\0" + b"x" * 100])
def test_what_is_no_message_ends_the_connection_only(tmp_path: Path, raw: bytes) -> None:
    write(tmp_path / "key", ed25519.Ed25519PrivateKey.generate())
    sockets = agent_sockets([SshSpec("a", ("key",))], environment(tmp_path), str(tmp_path))
    with sockets["a"](uid=-1, gid=-1, mode=0o666) as path:
        with Client(path) as client:
            client.socket.sendall(raw)
            with contextlib.suppress(ConnectionResetError):  # it need not have read all of it
                assert client.socket.recv(10) == b""
        with Client(path) as client:
            assert client.ask(IDENTITIES)[0] == 12


class FakeAgent:
    """An agent that says what it was asked."""

    def __init__(self, path: Path) -> None:
        self.asked: list[bytes] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> "FakeAgent":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                thread = threading.Thread(target=self._serve, args=[connection])
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while head := connection.recv(4, socket.MSG_WAITALL):
                message = connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                self.asked.append(message)
                connection.sendall(string(b"\x0cecho:" + message))


def test_the_users_agent_is_asked_what_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with FakeAgent(path) as agent, connected(tmp_path, SSH_AUTH_SOCK=str(path)) as client:
        assert client.ask(IDENTITIES) == b"\x0cecho:" + IDENTITIES
        assert client.ask(b"\x13") == FAILURE  # remove all identities
        assert client.ask(bytes([SIGN]) + b"xyz") == b"\x0cecho:\x0dxyz"
        assert agent.asked == [IDENTITIES, b"\x0dxyz"]


def test_a_socket_by_its_path_however_long(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    write(deep / "key", ed25519.Ed25519PrivateKey.generate())
    with connected(deep, "key"):
        pass  # the socket that is made is in `deep`
    with FakeAgent(tmp_path / "agent"):
        (tmp_path / "agent").rename(deep / "agent")
        with connected(tmp_path, str(deep / "agent")) as client:
            assert client.ask(IDENTITIES).startswith(b"\x0cecho")


def test_the_end_of_a_run_ends_waiting_clients(tmp_path: Path) -> None:
    write(tmp_path / "key", ed25519.Ed25519PrivateKey.generate())
    before = threading.active_count()
    sockets = agent_sockets([SshSpec("a", ("key",))], environment(tmp_path), str(tmp_path))
    with contextlib.ExitStack() as stack:
        with sockets["a"](uid=-1, gid=-1, mode=0o600) as path:
            clients = [stack.enter_context(Client(path)) for _ in range(5)]
            assert clients[-1].ask(IDENTITIES)[0] == 12
        assert threading.active_count() == before
        assert clients[0].socket.recv(1) == b""


def refused(directory: Path, *paths: str, **variables: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        agent_sockets([SshSpec("default", paths)], environment(directory, **variables), str(directory))
    return caught.value


def test_what_cannot_be_used_is_said_before_the_build(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    write(tmp_path / "rsa-locked", rsa.generate_private_key(65537, 2048), pem=True, password=b"x")
    write(tmp_path / "key", key)
    pkcs8 = serialization.PrivateFormat.PKCS8
    for name, other in (("dsa", dsa.generate_private_key(2048)), ("odd", ec.generate_private_key(ec.SECP256K1()))):
        pem = other.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
        (tmp_path / name).write_bytes(pem)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "large").write_bytes(b"x" * 200_000)
    (tmp_path / "cut").write_bytes((tmp_path / "key").read_bytes()[:120])
    assert "SSH_AUTH_SOCK is not set" in refused(tmp_path).message
    assert "cannot read missing: no such file" in refused(tmp_path, "missing").message
    assert "is a directory" in refused(tmp_path, ".").message
    assert "rsa-locked is protected by a passphrase" in refused(tmp_path, "rsa-locked").message
    assert "larger than 100 KiB" in refused(tmp_path, "large").message
    for name in ("text", "cut"):
        assert f"{name} is no private key" in refused(tmp_path, name).message
    for name in ("dsa", "odd"):
        assert f"{name} is a key of a type that is not supported" in refused(tmp_path, name).message
    with FakeAgent(tmp_path / "agent"):
        assert "cannot be combined" in refused(tmp_path, "agent", "key").message
    assert "no SSH agent answers" in refused(tmp_path, "agent").message


def test_a_locked_key_in_the_format_of_openssh(tmp_path: Path) -> None:
    blob = string(b"ssh-ed25519") + string(b"p" * 32)
    kdf = string(string(b"s" * 16) + (16).to_bytes(4, "big"))
    body = b"openssh-key-v1\0" + string(b"aes256-ctr") + string(b"bcrypt") + kdf + b"\0\0\0\x01" + string(blob) + string(b"c" * 160)
    text = base64.encodebytes(body).decode()
    (tmp_path / "locked").write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n")
    error = refused(tmp_path, "locked")
    assert "locked is protected by a passphrase" in error.message
    assert "ssh-add" in error.hint


def test_no_key_is_ever_shown(tmp_path: Path) -> None:
    write(tmp_path / "key", ed25519.Ed25519PrivateKey.generate())
    from kpy.signing.sshkeys import KeyAgent

    assert repr(KeyAgent.load("x", [("key", (tmp_path / "key").read_bytes())])) == "KeyAgent()"
