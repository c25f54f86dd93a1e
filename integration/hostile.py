"""Hostile images, made by hand: what no builder makes. And a name server, which knows one address."""

import gzip
import io
import socket
import struct
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FILE, DIR, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
FIFO, CHAR, BLOCK = tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE
Member = tuple[tarfile.TarInfo, bytes]
SHELL = "/opt/b/sh"
"""Where `programs` has it: not where hostile links lead."""


def member(name: str, kind: bytes = FILE, data: bytes = b"", *, link: str = "", mode: int = 0o755, device: tuple[int, int] = (1, 3)) -> Member:
    """One entry of a layer, its name as it stands."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size, info.mtime = kind, mode, link, len(data), 1_600_000_000
    info.devmajor, info.devminor = device
    return info, data


def programs() -> list[Member]:
    """A busybox."""
    path = next(path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists())
    applets = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    found = [member("opt/b/busybox", data=Path(path).read_bytes())]
    return found + [member(f"opt/b/{name}", LINK, link="busybox") for name in sorted({*applets, "sh"} - {"busybox"})]


def layer(path: Path, members: Sequence[Member]) -> Path:
    """A gzipped tar of them."""
    with gzip.GzipFile(path, "wb", 1, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:  # type: ignore[call-overload]
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


@contextmanager
def name_server(address: str) -> Iterator[None]:
    """Every name is 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))

        def serve() -> None:
            while True:
                question, client = server.recvfrom(512)
                if not question:
                    return
                end = question.index(b"\0", 12) + 5
                is_address = question[end - 4 : end - 2] == b"\0\1"
                header = question[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_address), 0, 0)
                answer = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("127.0.0.1") if is_address else b""
                server.sendto(header + question[12:end] + answer, client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (address, 53))
        thread.join()
