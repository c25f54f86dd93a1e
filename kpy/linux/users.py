"""passwd and group files as bytes: who a USER or --chown names. Never asks the C library: that would read the files
of whichever root it is in, and load the modules that nsswitch.conf names there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kpy.errors import SandboxError

_LARGEST = (1 << 31) - 1  # as runc, whose ids fit a signed int
_LONGEST = 1 << 16  # of a line: hostile ones are skipped


@dataclass(frozen=True, slots=True)
class Identity:
    """Numeric ids of a process in the root file system (R03). `groups` are the supplementary ones."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def lookup_user(spec: str, passwd: bytes | None, group: bytes | None) -> Identity:
    """Who `USER spec` is, by the content of the root's /etc/passwd and /etc/group (None: there is no such file).

    `uid:gid` needs no file. A user alone gets his primary and supplementary groups; with a group, only that one.
    An unknown uid alone has gid 0. "" is uid 0. Raises SandboxError for unknown names and ids out of range (R03).
    """
    name, _, group_name = spec.partition(":")
    name = name or "0"
    uid, gid = _number(name, spec), _number(group_name, spec)
    if uid is not None and gid is not None:
        return Identity(uid, gid)
    user = _find_user(name, uid, passwd)
    if user is None and uid is None:
        raise SandboxError(
            f"unable to find user {name}: no matching entries in passwd file",
            hint="create it in an earlier RUN, or give a numeric id",
        )
    found_uid = user.uid if user else uid or 0
    if group_name:
        return Identity(found_uid, gid if gid is not None else _group_id(group_name, group))
    if user is None:
        return Identity(found_uid, 0)
    member_of = (entry.gid for entry in _groups(group) if user.name in entry.members)
    return Identity(found_uid, user.gid, tuple(dict.fromkeys(member_of)))


def lookup_owner(spec: str, passwd: bytes | None, group: bytes | None) -> tuple[int, int]:
    """The uid and gid that `--chown=spec` means (C08): a number without group is the group too, a name without group
    has its primary group. `root` is 0 without being looked up, and so is what is empty: `name:` has the group 0.
    Raises SandboxError for unknown names."""
    name, colon, group_name = spec.partition(":")
    name = "0" if name in ("", "root") else name
    group_name = "0" if group_name == "root" or (colon and not group_name) else group_name
    uid = _number(name, spec)
    primary = uid or 0
    if uid is None:
        user = _find_user(name, None, passwd)
        if user is None:
            raise SandboxError(
                f"unable to find user {name}: no matching entries in passwd file",
                hint="--chown looks in the /etc/passwd of this stage; create the user before, or give a numeric id",
            )
        uid, primary = user.uid, user.gid
    if not group_name:
        return uid, primary
    gid = _number(group_name, spec)
    return uid, _group_id(group_name, group) if gid is None else gid


def home_of(uid: int, passwd: bytes | None) -> str:
    """The home directory of the first user with this uid, which may be empty; `/` if there is no such user (R04)."""
    user = _find_user("", uid, passwd)
    return user.home if user else "/"


def _number(text: str, spec: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 10 or int(text) > _LARGEST:
        raise SandboxError(f"user {spec!r}: uids and gids must be in range 0-{_LARGEST}")
    return int(text)


def _group_id(name: str, group: bytes | None) -> int:
    for entry in _groups(group):
        if entry.name == name:
            return entry.gid
    raise SandboxError(
        f"unable to find group {name}: no matching entries in group file",
        hint="create it in an earlier RUN, or give a numeric id",
    )


def _find_user(name: str, uid: int | None, passwd: bytes | None) -> _User | None:
    # What is a number is an id, even if a user has that name (runc, user.GetExecUser).
    wanted: Callable[[_User], bool] = (lambda user: user.name == name) if uid is None else lambda user: user.uid == uid
    return next((user for user in _users(passwd) if wanted(user)), None)


def _users(passwd: bytes | None) -> Iterator[_User]:
    for fields in _lines(passwd):
        ids = [_id(field) for field in fields[2:4]]
        if len(ids) == 2 and ids[0] is not None and ids[1] is not None:
            yield _User(fields[0], ids[0], ids[1], fields[5] if len(fields) > 5 else "")


def _groups(group: bytes | None) -> Iterator[_Group]:
    for fields in _lines(group):
        gid = _id(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _Group(fields[0], gid, tuple(member.strip() for member in members))


def _lines(data: bytes | None) -> Iterator[list[str]]:
    for line in (data or b"").split(b"\n"):
        line = line.strip()
        if line and len(line) <= _LONGEST and not line.startswith(b"#"):
            yield line.decode("utf-8", "surrogateescape").split(":")


def _id(text: str) -> int | None:
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST:
        return int(text)
    return None
