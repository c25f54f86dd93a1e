"""A hostile build where kpy is, beside things of the builder's that it must not reach; run by test_promises.py and by the guest
of `machines`, as the builder's user. Standard library only.

Its one argument is a file with a job: `{"kpy": path, "flags": [..], "probe": path, "places": {name: directory}, "program":
directory of kpy itself, "volume": directory, "scratch": directory, "keyring": bool}`. It prints `{"could": {row: bool}, "status": [..],
"text": str,
"alone": {row: bool}}`: what the build could do, row by row of SECURITY.md, and what a program can do there without kpy.
"""

import ctypes
import json
import os
import platform
import pty
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

_KEYS = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl
_JOIN, _SESSION = 1, -3
ROWS = (
    "processes", "signals", "limits", "files", "volumes", "links", "harm", "program", "sockets", "abstract", "network", "no-network",
    "keyring", "kernel", "namespaces", "shared-memory", "outlive", "terminal", "termination", "use-up", "keep", "keep-elsewhere", "times",
)  # fmt: skip
TERMINATION = Path("/dev/termination-log")
SHOW = 'RUN ["/opt/probe", "files", "/opt/shown"]'
LINKED = (
    f"COPY leak /opt/shown\n{SHOW}", f"COPY up/value /opt/shown\n{SHOW}", f"COPY --from=all /opt/leak /opt/shown\n{SHOW}",
    f"COPY --from=all /opt/up /opt/shown\n{SHOW}", 'RUN --mount=from=all,source=/opt/up,target=/opt/shown ["/opt/probe", "files", "/opt/shown"]',
)  # fmt: skip
"""Ways in which kpy could be led by a link of the context; most are errors."""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    os.chdir(job["scratch"])
    tokens = {name: f"{name}-{secrets.token_hex(8)}" for name in (*job["places"], "volume", "environment", "key", "terminal", "cache", "argument")}
    scratch = Path(job["scratch"])
    _plant(job, tokens)
    sockets = Sockets(scratch / "agent.sock", f"@kpy-{tokens['key']}")
    port = sockets.listen()
    if job["keyring"]:
        _key(tokens["key"])
    context = scratch / "hostile"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    shutil.copy(job["probe"], context / "probe")
    (context / "leak").symlink_to(Path(job["places"]["outside"], "value"))
    (context / "up").symlink_to(os.path.relpath(job["places"]["outside"], context))
    (context / "Dockerfile").write_text(_dockerfile(job, tokens, sockets, port))
    before = _looks(job)
    # What anybody can do here, without kpy.
    alone = {row: "PROMISE" in said and "yes" in said.split() for row in ("kernel", "namespaces") for said in [_alone(job["probe"], row)]}
    argv = [job["kpy"], "build", "--progress", "plain", "--no-cache", *job["flags"], "-o", "type=cacheonly"]
    status, shown = _on_terminal([*argv, "--build-arg", f"UNUSED={tokens['argument']}", str(context)], tokens["environment"])
    time.sleep(0.2)
    could = {line.split()[-2]: line.split()[-1] == "yes" for line in shown.splitlines() if " PROMISE " in line}
    could.pop("leave", None)
    outside = [token for name, token in tokens.items() if name not in ("volume", "terminal", "environment", "key", "cache", "argument")]
    could["files"] = any(token in shown for token in outside)
    could["processes"] = could.get("processes", False) or tokens["environment"] in shown or tokens["argument"] in shown
    could["keyring"] = could.get("keyring", False) or tokens["key"] in _of(shown, "keyring")
    could["volumes"] = tokens["volume"] in shown
    could["termination"] = TERMINATION.exists() and "forged" in TERMINATION.read_text()
    could["terminal"] = f"\033]0;{tokens['terminal']}" in shown
    could["harm"] = could.pop("harm", False) or _looks(job) != before
    could["outlive"] = _left(context)
    said, could["links"] = [shown], False
    for step in LINKED:
        (context / "Dockerfile").write_text(f"FROM scratch AS all\nCOPY . /opt/\nFROM scratch\nCOPY probe /opt/probe\n{step}\n")
        said.append(_on_terminal([*argv, str(context)], "")[1])
        could["links"] = could["links"] or tokens["outside"] in said[-1]
    (context / "Dockerfile").unlink()
    (context / "Dockerfile").symlink_to(Path(job["places"]["outside"], "value"))
    said.append(_on_terminal([*argv, str(context)], "")[1])
    could["links"] = could["links"] or tokens["outside"] in said[-1]
    (context / "Dockerfile").unlink()
    for row, more in (("keep", []), ("keep-elsewhere", ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=trusted"])):
        (context / "Dockerfile").write_text(
            f"FROM scratch\nCOPY probe /opt/probe\n"
            f'RUN --mount=type=cache,id=deps,target=/opt/cache ["/opt/probe", "files", "/opt/cache/{tokens["cache"]}"]\n'
        )
        code, text = _on_terminal([*argv, *more, str(context)], "")
        said.append(text)
        status = status or code
        could[row] = "mine" in text
    print("\n" + json.dumps({"alone": alone, "could": {row: could.get(row) for row in ROWS}, "status": status, "text": "\n".join(said)}))


def _alone(probe: str, row: str) -> str:
    return subprocess.run([probe, row], capture_output=True, text=True, check=False).stdout.splitlines()[-1]


def _dockerfile(job: "dict[str, object]", tokens: "dict[str, str]", sockets: "Sockets", port: int) -> str:
    places = " ".join(job["places"].values())
    words = {
        "processes": "", "signals": "", "limits": "", "files": f"{places} {sockets.path.parent}/.kpy", "volumes": job["volume"],
        "sockets": sockets.path, "abstract": sockets.name, "network": f"127.0.0.1 {port}",
        "keyring": "", "kernel": "", "namespaces": "", "leave": "", "shared-memory": "", "outlive": "", "terminal": tokens["terminal"],
        "termination": "forged", "use-up": "", "program": job["program"], "times": places, "harm": places,
    }  # fmt: skip
    lines = ["FROM scratch", "COPY probe /opt/probe"]
    lines.append("RUN --network=none " + json.dumps(["/opt/probe", "no-network", "127.0.0.1", str(port)]))
    keep = json.dumps(["/opt/probe", "keep", f"/opt/cache/{tokens['cache']}"])
    lines.append(f"RUN --mount=type=cache,id=deps,target=/opt/cache {keep}")
    for row, more in words.items():
        lines.append("RUN " + json.dumps(["/opt/probe", row, *str(more).split()]))
    return "\n".join(lines) + "\n"


def _plant(job: "dict[str, object]", tokens: "dict[str, str]") -> None:
    for name, place in {**job["places"], "volume": job["volume"]}.items():
        os.makedirs(place, exist_ok=True)
        Path(place, "value").write_text(f"{tokens[name]}\n")
        Path(place, "value").chmod(0o600)


def _looks(job: "dict[str, object]") -> "list[object]":
    """What is in the places, and what of it is as it was. The store is what builds write to."""
    found = []
    for place in job["places"].values():
        status = os.stat(Path(place, "value")) if Path(place, "value").exists() else None
        planted = [name for name in os.listdir(place) if name.startswith("planted")]
        found.append([place, os.stat(place).st_mode, planted, status and [status.st_ino, status.st_mode, status.st_size]])
    return [found, [name for name in os.listdir(job["program"]) if name.startswith("planted")]]


def _of(shown: str, row: str) -> str:
    """What the probe of this row printed."""
    lines, inside = [], False
    for line in shown.splitlines():
        if f'"/opt/probe", "{row}"' in line:
            inside = True
        elif '"/opt/probe", "' in line:
            inside = False
        if inside:
            lines.append(line)
    return "\n".join(lines)


def _left(context: Path) -> bool:
    """Is a process of the RUNs there? They are all the probe."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if b"/opt/probe" in Path("/proc", entry, "cmdline").read_bytes():
                    os.kill(int(entry), signal.SIGKILL)
                    return True
            except OSError:
                continue
    return False


class Sockets:
    """Of the builder's: at a path, in the abstract name space, and on the loopback interface."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def listen(self) -> int:
        """Serve them all from now on; the number of the port."""
        for old in (self.path, Path(f"{self.path}.d")):
            old.unlink(missing_ok=True)
        for where in (str(self.path), "\0" + self.name[1:]):
            stream, packets = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            stream.bind(where)
            stream.listen(50)
            packets.bind(where + ".d")
            self._serve(stream)
            threading.Thread(target=lambda packets=packets: [packets.recv(10) for _ in iter(int, 1)], daemon=True).start()
        port = socket.create_server(("127.0.0.1", 0))
        self._serve(port)
        return int(port.getsockname()[1])

    @staticmethod
    def _serve(listening: socket.socket) -> None:
        threading.Thread(target=lambda: [listening.accept()[0].close() for _ in iter(int, 1)], daemon=True).start()


def _key(token: str) -> None:
    """Into a session keyring that kpy is started with. Where that is refused to us, it is to the RUN."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    add, control = _KEYS[platform.machine()]
    if call(control, _JOIN, None) >= 0:
        call(add, b"user", b"kpy-canary", token.encode(), len(token), _SESSION)


def _on_terminal(argv: "list[str]", canary: str) -> "tuple[int, str]":
    """Run it on a terminal of its own. Its exit code, and all that came to the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, {**os.environ, "KPY_CANARY": canary})
    out = bytearray()
    while True:
        try:
            if not select.select([terminal], [], [], 300)[0]:
                os.kill(pid, signal.SIGKILL)
            data = os.read(terminal, 1 << 16)
        except OSError:
            break
        if not data:
            break
        out += data
        print(ascii(data.decode(errors="replace")), file=sys.stderr, flush=True)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), out.decode(errors="replace").replace("\r\n", "\n")


if __name__ == "__main__":
    main()
