"""Overlay snapshots, for real: as root of a host and as an ordinary user (L01-L05, R07)."""

import hashlib
import io
import os
import signal
import socket
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from inside import BUSYBOX, inside, place_of

from kpy.errors import ContentError, StoreError
from kpy.layer.entry import Kind
from kpy.layer.extract import extract
from kpy.linux import libc
from kpy.linux.namespaces import CLONE_NEWNS
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.sandbox.base import Mount, Process
from kpy.sandbox.userns import UsernsSandbox
from kpy.snapshot.overlay import OverlaySnapshotter
from kpy.snapshot.stack import Stack
from kpy.util.cancel import Cancel

pytestmark = pytest.mark.parametrize("user", ["root", "dev"])

OLD = 1_500_000_000


@pytest.fixture
def place(user):
    with place_of(user) as path:
        yield path


class Layers:
    """A LayerContent of tars in memory; counts what is opened."""

    def __init__(self) -> None:
        self.tars: dict[Digest, bytes] = {}
        self.opened: list[Digest] = []

    def extract(self, layers, root, options):
        self.opened += [layer.diff_id for layer in layers]
        return [extract(io.BytesIO(self.tars[layer.diff_id]), root, options=options).tree for layer in layers]

    def add(self, *members) -> Layer:
        """Members are (name, kind and options)."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, options in members:
                options = dict(options)
                data = options.pop("data", b"")
                info = tarfile.TarInfo(name)
                info.mode, info.mtime, info.size = 0o644, OLD, len(data)
                for key, value in options.items():
                    setattr(info, key, value)
                if info.type == tarfile.DIRTYPE and "mode" not in options:
                    info.mode = 0o755
                tar.addfile(info, io.BytesIO(data))
        raw = out.getvalue()
        digest = Digest("sha256", hashlib.sha256(raw).hexdigest())
        self.tars[digest] = raw
        return Layer(Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(raw)), digest)

    def busybox(self) -> Layer:
        links = [(f"bin/{name}", {"type": tarfile.SYMTYPE, "linkname": "busybox"}) for name in BUSYBOX]
        return self.add(
            directory("bin"),
            ("bin/busybox", {"data": Path("/bin/busybox").read_bytes(), "mode": 0o755}),
            *links,
            directory("etc"),
            ("etc/passwd", {"data": b"root:x:0:0::/root:/bin/sh\n"}),
            directory("d"),
            file("d/a"),
            file("d/b"),
            directory("d/sub"),
            file("d/sub/c", uid=33, gid=33),
            directory("empty"),
            file("f"),
            file("one"),
            ("two", {"type": tarfile.LNKTYPE, "linkname": "one"}),
            ("link", {"type": tarfile.SYMTYPE, "linkname": "f"}),
            ("dirlink", {"type": tarfile.SYMTYPE, "linkname": "d/sub"}),
            ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
        )


def file(name, data=b"x\n", **options):
    return name, {"data": data, **options}


def directory(name, **options):
    return name, {"type": tarfile.DIRTYPE, **options}


class Bench:
    def __init__(self, place: Path) -> None:
        self.layers = Layers()
        self.place = place
        self.base = (self.layers.busybox(),)
        self.open()

    def open(self):
        self.stack = Stack(str(self.place / "snapshots"))
        self.shots = OverlaySnapshotter(self.stack, self.layers)
        self.sandbox = UsernsSandbox(str(self.place / "scratch"))

    def shell(self, snapshot, script, *mounts):
        out = bytearray()
        with Cancel() as cancel:
            process = Process(("/bin/sh", "-c", script), ("PATH=/bin",))
            status = self.sandbox.run(process, snapshot.root, mounts, out.extend, cancel)
        assert status == 0, out.decode()
        return out.decode()

    def changes(self, script, *mounts, chain=None):
        with self.shots.prepare(chain or self.base, 1) as snapshot:
            self.shell(snapshot, script, *mounts)
            return [summary(item) for item in self.shots.changes(snapshot)]


def summary(item):
    entry = item.entry
    text = f"{entry.kind.value} {entry.path}"
    if entry.kind is Kind.HARDLINK or entry.kind is Kind.SYMLINK:
        text += f" -> {entry.link}"
    if item.open:
        with item.open() as stream:
            assert len(stream.read()) == entry.size
    return text


def test_nothing_changed(user, place):
    def body(ids):
        bench = Bench(place)
        assert bench.changes("true") == []
        assert bench.changes("mkdir -p /gone/x; touch /gone/x/y; rm -r /gone; touch /d/t; rm /d/t") == []
        assert bench.changes("chown 0:0 /f; chmod 644 /d/a; cp -p /f /f2; mv /f2 /f") == []
        stubs = [Mount("tmpfs", "/d/new/deep"), Mount("file", "/run/secrets/s", data=b"s"), Mount("file", "/etc/x", data=b"y")]
        assert bench.changes("true", *stubs) == []
        assert bench.changes("echo y > /m/b", Mount("bind", "/m", source=str(place), discard=True)) == []
        assert bench.layers.opened == [bench.base[0].diff_id]

    inside(user, body)


def test_changes(user, place):
    def body(ids):
        bench = Bench(place)
        cases = {
            "echo y > /d/sub/c": ["d d", "d d/sub", "f d/sub/c"],
            "echo y > /d/new; rm /d/a": ["d d", "w d/a", "f d/new"],
            "rm -r /d": ["w d"],
            "rm -r /d; mkdir /d; echo n > /d/n": ["d d", "o d", "f d/n"],
            "rm -r /empty; mkdir /empty": ["d empty"],
            "rm -r /d; echo x > /d": ["f d"],
            "rm /link; mkdir /link; touch /link/x": ["d link", "f link/x"],
            "mv /d /e": ["w d", "d e", "f e/a", "f e/b", "d e/sub", "f e/sub/c"],
            "chmod 600 /f": ["f f"],
            "chown -h 5:6 /link": ["l link -> f"],
            "chmod 711 /d": ["d d"],
            "touch -d '2011-11-11 11:11:11' /f": ["f f"],
            "ln /f /f2": ["f f2"],
            "echo y >> /two": ["f two"],
            "touch /x; ln /x /d/y": ["d d", "f d/y", "h x -> d/y"],
            "mkfifo /p; ln -s nowhere /s": ["p p", "l s -> nowhere"],
            "chmod 700 /": [],
            "chmod 600 /null": ["c null"],
            "rm /null": ["w null"],
            "echo > /dirlink/n": ["d d", "d d/sub", "f d/sub/n"],
            "touch /b /a-b /a /a.c; mkdir /ab; touch /ab/c": ["f a", "f a-b", "f a.c", "d ab", "f ab/c", "f b"],
        }
        for script, expected in cases.items():
            assert bench.changes(script) == expected, script

    inside(user, body)


def test_an_error_while_changes_are_read_is_what_is_said(user, place):
    """Such as a name that no layer can have: the reader stops, and what is mounted for it must not be in the way."""

    def body(ids):
        bench = Bench(place)
        with pytest.raises(ContentError, match="no such name"), bench.shots.prepare(bench.base, 1) as snapshot:
            bench.shell(snapshot, "touch /1 /2")
            reader = bench.shots.changes(snapshot)
            next(reader)
            raise ContentError("no such name")
        reader.close()
        assert bench.changes("touch /x") == ["f x"]

    inside(user, body)


def test_metadata_and_xattrs(user, place):
    capability = bytes.fromhex("0100000200040000000000000000000000000000")

    def body(ids):
        bench = Bench(place)
        with bench.shots.prepare(bench.base, 1) as snapshot:
            root = Path(snapshot.root)
            (root / "cap").write_bytes(b"")
            os.setxattr(root / "cap", "security.capability", capability)
            os.setxattr(root / "cap", "user.mine", b"1")
            os.setxattr(root / "f", "user.mine", b"2")
            os.mkdir(root / "own")
            os.chown(root / "own", 12, 34)
            os.chmod(root / "own", 0o3751)
            (root / os.fsdecode(b"\xff")).write_bytes(b"")
            with socket.socket(socket.AF_UNIX) as server:
                os.chdir(root)
                server.bind("sock")
                os.chdir("/")
            found = {item.entry.path: item.entry for item in bench.shots.changes(snapshot)}
        assert dict(found["cap"].xattrs) == {"security.capability": capability, "user.mine": b"1"}
        assert dict(found["f"].xattrs) == {"user.mine": b"2"}
        own = found["own"]
        assert (own.uid, own.gid, own.mode) == (12, 34, 0o3751)
        assert list(found) == ["cap", "f", "own", "\udcff"]

    inside(user, body)


def test_layers_stand_on_each_other(user, place):
    def body(ids):
        bench = Bench(place)
        add = bench.layers.add
        chain = (
            *bench.base,
            add(file("dirlink/new", b"1"), file("d/.wh.a", b"")),
            add(("hard", {"type": tarfile.LNKTYPE, "linkname": "f"}), directory("d"), file("d/.wh..wh..opq", b""), file("d/z")),
            add(file(".wh.link", b""), directory("", mode=0o711)),
        )
        with bench.shots.view(chain) as root:
            assert root is None
        with bench.shots.prepare(chain, 1) as snapshot:
            root = Path(snapshot.root)
            assert sorted(os.listdir(root / "d")) == ["z"]
            assert os.stat(root / "hard").st_ino == os.stat(root / "f").st_ino
            assert not os.path.lexists(root / "link")
            assert os.stat(root).st_mode & 0o777 == 0o711
            assert os.stat(root / "etc").st_mtime == OLD
            assert list(bench.shots.changes(snapshot)) == []
        bench.open()
        opened = len(bench.layers.opened)
        with bench.shots.prepare(chain, 1) as snapshot, bench.shots.view(chain[:2]) as view:
            assert sorted(os.listdir(view + "/d")) == ["b", "sub"]
            assert Path(view + "/d/sub/new").read_bytes() == b"1"
            with pytest.raises(OSError, match="Read-only"):
                Path(view + "/x").touch()
        assert len(bench.layers.opened) == opened
        with bench.shots.view(()) as view:
            assert os.listdir(view) == []
        with bench.shots.view(bench.base) as view, pytest.raises(OSError, match="Read-only"):
            Path(view + "/x").touch()

    inside(user, body)


def test_commit_keeps_what_is_on_disk(user, place):
    def body(ids):
        bench = Bench(place)
        layer = bench.layers.add(file("never-read"))
        with bench.shots.prepare(bench.base, 1) as snapshot:
            bench.shell(snapshot, "rm -r /d /f; mkdir /d; echo n > /d/n")
            list(bench.shots.changes(snapshot))
            bench.shots.commit(snapshot, layer)
        chain = (*bench.base, layer)
        bench.open()
        with bench.shots.prepare(chain, 1) as snapshot:
            root = Path(snapshot.root)
            assert os.listdir(root / "d") == ["n"]
            assert not (root / "f").exists()
            assert list(bench.shots.changes(snapshot)) == []
        with bench.shots.prepare(chain, 1) as snapshot:
            bench.shell(snapshot, "echo > /d/m; rm /d/n")
            found = [summary(item) for item in bench.shots.changes(snapshot)]
            assert found == ["d d", "f d/m", "w d/n"]
        assert layer.diff_id not in bench.layers.opened

    inside(user, body)


def test_scratch(user, place):
    def body(ids):
        bench = Bench(place)
        with bench.shots.prepare((), 0) as snapshot:
            assert os.listdir(snapshot.root) == []
            Path(snapshot.root, "x").write_bytes(b"")
            assert [summary(item) for item in bench.shots.changes(snapshot)] == ["f x"]
            layer = bench.layers.add(file("x"))
            bench.shots.commit(snapshot, layer)
        with bench.shots.view((layer,)) as view:
            assert os.listdir(view) == ["x"]

    inside(user, body)


def test_very_many_layers(user, place):
    def body(ids):
        bench = Bench(place)
        more = [bench.layers.add(file(f"l{number}"), file("top", str(number).encode())) for number in range(260)]
        begin = time.monotonic()
        for count in (130, 260):
            chain = (*bench.base, *more[:count])
            with bench.shots.prepare(chain, 1) as snapshot:
                assert Path(snapshot.root, "top").read_text() == str(count - 1)
                assert Path(snapshot.root, "l0").exists()
                assert bench.shell(snapshot, "cat /top") == str(count - 1)
        begin = time.monotonic()
        with bench.shots.prepare(chain, 1):
            pass
        assert time.monotonic() - begin < 1

    inside(user, body)


def test_two_processes_and_threads_at_once(user, place):
    def body(ids):
        bench = Bench(place)
        chain = (*bench.base, *[bench.layers.add(file(f"l{number}")) for number in range(5)])
        pids = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    with bench.shots.prepare(chain, 1) as snapshot:
                        status = 0 if Path(snapshot.root, "l4").exists() else 2
                        bench.shell(snapshot, "echo x > /mine; sleep 0.1")
                finally:
                    os._exit(status)
            pids.append(pid)
        errors = []

        def one():
            try:
                with bench.shots.prepare(chain, 1) as snapshot:
                    bench.shell(snapshot, "test ! -e /mine; echo x > /mine")
                    assert [summary(item) for item in bench.shots.changes(snapshot)] == ["f mine"]
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]

    inside(user, body)


def test_a_killed_build_is_cleaned_up(user, place):
    def body(ids):
        bench = Bench(place)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            libc.unshare(CLONE_NEWNS)  # as another kpy has
            with bench.shots.prepare(bench.base, 1) as snapshot:
                Path(snapshot.root, "x").write_bytes(b"")
                os.write(write, b"x")
                time.sleep(60)
        os.read(read, 1)
        left = list((place / "snapshots").glob("*/tmp/*.d"))
        assert len(left) == 1
        bench.open()
        with bench.shots.prepare(bench.base, 1):
            assert left[0].exists()  # its lock is held
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        bench.open()
        bench.stack.open()
        assert list((place / "snapshots").glob("*/tmp/*")) == []

    inside(user, body)


def test_broken_layers_leave_nothing(user, place):
    def body(ids):
        bench = Bench(place)
        good = bench.layers.add(file("x"))
        bad = bench.layers.add(("x", {"type": tarfile.LNKTYPE, "linkname": "missing"}))
        with pytest.raises(ContentError), bench.shots.prepare((*bench.base, bad, good), 1):
            pass
        assert list((place / "snapshots").glob("*/tmp/*")) == []
        with bench.shots.view((*bench.base, bad)) as view:
            assert view is None
        other = replace(good, diff_id=Digest("sha256", "0" * 64))
        bench.layers.tars[other.diff_id] = b"junk" * 1000
        with pytest.raises(ContentError), bench.shots.prepare((other,), 1):
            pass

    inside(user, body)


def test_prune(user, place):
    def body(ids):
        bench = Bench(place)
        chain = (*bench.base, bench.layers.add(file("x")), bench.layers.add(file("y")))
        with bench.shots.prepare(chain, 1):
            held = bench.stack.held()
            assert len(held) == 3
            assert all(one.bytes > 0 for one in held)
            with pytest.raises(StoreError, match="locked"):
                bench.stack.remove([held[0].chain_id])
        middle = next(one for one in held if any(other.parent == one.chain_id for other in held) and one.parent)
        bench.stack.remove([middle.chain_id])
        assert [one.parent for one in bench.stack.held()] == [""]
        assert list((place / "snapshots").glob("*/tmp/*")) == []

    inside(user, body)
