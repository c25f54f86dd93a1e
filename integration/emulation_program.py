"""Random programs of file operations and changes of user, each from a seed. Run as root, real or emulated: prints what
each call returned and what each program left, in lines to be compared. Standard library only; runs in containers.

    emulation_program.py DIRECTORY FIRST COUNT
"""

import ctypes
import errno
import json
import os
import random
import stat
import sys
from collections.abc import Callable

IDS = (0, 0, 1, 33, 1234)
NAMES = ("a", "b", "c", "d")
FILE_MODES = (0o644, 0o600, 0o640, 0o444, 0o400, 0o000, 0o755, 0o4755, 0o2755, 0o2644, 0o6711, 0o222, 0o060)
DIRECTORY_MODES = (0o755, 0o700, 0o750, 0o711, 0o777, 0o555, 0o000, 0o2775, 0o2750, 0o1755, 0o733)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
OPERATIONS = 40
_libc = ctypes.CDLL(None, use_errno=True)


class Program:
    """One of them. Names are in the working directory or a directory below it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []

    def path(self) -> str:
        return "/".join(self.random.choice(NAMES) for _ in range(self.random.choice((1, 1, 2, 2, 3))))

    def call(self, name: str, function: Callable[..., object], *args: object, **more: object) -> object:
        try:
            result: object = function(*args, **more)
        except OSError as error:
            result = errno.errorcode[error.errno or 0]
        self.lines.append(f"{name} {args} {more}: {result}")
        return result

    def chown(self) -> None:
        ids = self.random.choice((*IDS, -1)), self.random.choice((*IDS, -1))
        self.call("chown", os.chown, self.path(), *ids, follow_symlinks=self.random.random() < 0.7)

    def fchown(self) -> None:
        def change(path: str, uid: int, gid: int, mode: int) -> None:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, mode)
            finally:
                os.close(descriptor)

        path = self.path()
        if not _is_special(path):
            self.call("fchown", change, path, self.random.choice(IDS), self.random.choice(IDS), self.random.choice(FILE_MODES))

    def chmod(self) -> None:
        path = self.path()
        modes = DIRECTORY_MODES if os.path.isdir(path) else FILE_MODES
        self.call("chmod", os.chmod, path, self.random.choice(modes))

    def mkdir(self) -> None:
        self.call("mkdir", os.mkdir, self.path(), self.random.choice(DIRECTORY_MODES))

    def mknod(self) -> None:
        kind, device = self.random.choice(((stat.S_IFIFO, 0), (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFREG, 0)))
        self.call("mknod", os.mknod, self.path(), kind | self.random.choice(FILE_MODES), device)

    def open(self) -> None:
        def use(path: str, flags: int, mode: int) -> object:
            descriptor = os.open(path, flags | os.O_NONBLOCK, mode)
            try:
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    os.write(descriptor, b"text")
                return _shown(os.fstat(descriptor))
            finally:
                os.close(descriptor)

        path = self.path()
        if _is_special(path):
            return
        flags = self.random.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR))
        flags |= self.random.choice((0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_NOFOLLOW))
        if flags & os.O_ACCMODE:
            flags |= self.random.choice((0, os.O_TRUNC, os.O_APPEND))
        self.call("open", use, path, flags, self.random.choice(FILE_MODES))

    def unnamed(self) -> None:
        def make(path: str, mode: int) -> object:
            descriptor = os.open(path, os.O_TMPFILE | os.O_RDWR, mode)
            try:
                return _shown(os.fstat(descriptor))
            finally:
                os.close(descriptor)

        self.call("unnamed", make, self.random.choice((".", self.path())), self.random.choice(FILE_MODES))

    def symlink(self) -> None:
        self.call("symlink", os.symlink, self.random.choice(("a", "b", "../a", "c/d", "/nowhere/x")), self.path())

    def link(self) -> None:
        self.call("link", os.link, self.path(), self.path(), follow_symlinks=False)

    def rename(self) -> None:
        self.call("rename", os.rename, self.path(), self.path())

    def unlink(self) -> None:
        self.call("unlink", os.unlink, self.path())

    def rmdir(self) -> None:
        self.call("rmdir", os.rmdir, self.path())

    def truncate(self) -> None:
        path = self.path()
        if not _is_special(path):
            self.call("truncate", os.truncate, path, 2)

    def umask(self) -> None:
        self.call("umask", os.umask, self.random.choice((0o022, 0o022, 0o077, 0o027, 0o002, 0, 0o277, 0o777)))

    def look(self) -> None:
        follow = self.random.random() < 0.5
        self.call("stat", lambda path, follow: _shown(os.stat(path, follow_symlinks=follow)), self.path(), follow)

    def access(self) -> None:
        self.call("access", os.access, self.path(), self.random.randrange(8), effective_ids=self.random.random() < 0.5)

    def times(self) -> None:
        ns = self.random.choice((None, (10**18, 10**18)))
        self.call("utime", os.utime, self.path(), ns=ns) if ns else self.call("utime", os.utime, self.path())

    def attribute(self) -> None:
        path, name = self.path(), self.random.choice(("security.capability", "user.x"))
        if name == "user.x" and (not os.path.isfile(path) or os.path.islink(path)):
            return
        value = CAPABILITY if name == "security.capability" else b"v"
        self.call("setxattr", os.setxattr, path, name, value, self.random.choice((0, 0, 1, 2)))

    def attributes(self) -> None:
        path = self.path()
        self.call("listxattr", lambda path: sorted(os.listxattr(path, follow_symlinks=False)), path)
        self.call("getxattr", os.getxattr, path, "security.capability")
        if self.random.random() < 0.3:
            self.call("removexattr", os.removexattr, path, "security.capability")

    def names(self) -> None:
        self.call("listdir", lambda path: sorted(os.listdir(path)), self.random.choice((".", self.path())))
        self.call("readlink", os.readlink, self.path())

    def become(self) -> None:
        """Another user: for a while, mostly."""
        choice = self.random.randrange(6)
        number = self.random.choice(IDS)
        if choice <= 1:
            self.call("seteuid", os.seteuid, number)
        elif choice == 2:
            self.call("setegid", os.setegid, number)
        elif choice == 3:
            self.call("setgroups", os.setgroups, [self.random.choice(IDS) for _ in range(2)])
        elif choice == 4:
            self.call("setfsuid", _libc.setfsuid, number)
        elif self.random.random() < 0.3:
            self.call("setresuid", os.setresuid, *(self.random.choice((*IDS, -1)) for _ in range(3)))
        self.whoami()

    def whoami(self) -> None:
        self.call("ids", lambda: (os.getresuid(), os.getresgid(), sorted(os.getgroups()), _capabilities()))

    def back(self) -> None:
        self.call("seteuid", os.seteuid, 0)
        self.call("setegid", os.setegid, 0)

    def execute(self) -> None:
        """A copy of a program, whose set-id bits have been changed perhaps."""
        path = self.random.choice(("id", "d/id"))
        owner, group, mode = self.random.choice(IDS), self.random.choice(IDS), self.random.choice(FILE_MODES)
        if self.random.random() < 0.5:
            self.call("chown id", os.chown, path, owner, group)
            self.call("chmod id", os.chmod, path, mode)

        def run() -> object:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(write, 1)
                os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
                try:
                    os.execv(path, ["id"])
                except OSError as error:
                    os._exit(error.errno or 0)
            os.close(write)
            with os.fdopen(read, "rb") as file:
                said = file.read()
            return said, os.waitpid(pid, 0)[1]

        self.call("execute", run)

    def run(self) -> None:
        """All of it: things made by root, then all kinds of calls."""
        first = (self.mkdir, self.open, self.chown, self.chmod, self.symlink)
        for _ in range(12):
            self.random.choice(first)()
        operations = (
            self.chown, self.chown, self.fchown, self.chmod, self.chmod, self.mkdir, self.mkdir, self.mknod, self.open,
            self.open, self.open, self.unnamed, self.symlink, self.link, self.rename, self.unlink, self.rmdir,
            self.truncate, self.umask, self.look, self.look, self.access, self.access, self.times, self.attribute,
            self.attributes, self.names, self.become, self.become, self.become, self.back, self.execute,
        )  # fmt: skip
        for _ in range(OPERATIONS):
            self.random.choice(operations)()


def _shown(status: os.stat_result) -> tuple[object, ...]:
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
    return oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, size, links


def _is_special(path: str) -> bool:
    """A device or FIFO, which is opened for what is behind it?"""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _capabilities() -> list[int]:
    data = (ctypes.c_uint32 * 6)()
    _libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), data)
    return [number & 0xA80425FB for number in data]


def _tree() -> list[str]:
    """What is there, as root sees it."""
    lines = []
    for directory, directories, files in os.walk("."):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = os.path.join(directory, name)
            found = os.lstat(path)
            more: object = ""
            if stat.S_ISLNK(found.st_mode):
                more = os.readlink(path)
            elif stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    more = hash(file.read()) & 0 if name == "id" else file.read()
            names = [] if stat.S_ISLNK(found.st_mode) else sorted(os.listxattr(path))
            lines.append(f"{path} {_shown(found)} {more} {[(key, os.getxattr(path, key)) for key in names]}")
    return lines


def one(directory: str, seed: int) -> dict[str, object]:
    """The results of one program, which runs in a process of its own."""
    os.mkdir(directory, 0o755)
    os.chdir(directory)
    for path in ("id", "d/id"):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open("/usr/bin/id", "rb") as source, open(path, "wb") as target:
            target.write(source.read())
        os.chmod(path, 0o755)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        program = Program(seed)
        try:
            program.run()
        except BaseException as error:
            program.lines.append(f"{type(error).__name__}: {error}")
        with os.fdopen(write, "w") as pipe:
            pipe.write("\n".join(program.lines))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().split("\n")
    os.waitpid(pid, 0)
    return {"seed": seed, "calls": lines, "tree": _tree()}


def main() -> None:
    """The program of programs."""
    base, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.umask(0o022)
    for seed in range(first, first + count):
        result = one(os.path.join(base, str(seed)), seed)
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
