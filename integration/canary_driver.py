"""Builds one after another where kpy is, and what became of the builder's files meanwhile: run by canaries.py, as the
builder's user, in a container of the builder image or on a host. Standard library only.

Its one argument is a file with a job: `{"kpy": path, "places": {name: directory}, "tokens": {name: text}, "dockerfiles":
directory, "builds": [{"dockerfile": text, "argv": [..]}]}`. The first build is an honest one; after it, canaries are put
into the places. It prints `{"looks": [...], "builds": [{"status", "out", "err"}]}`: a look after the first build, and
one after each of the others.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

OLD = 1_000_000_000
# What kpy itself makes, changes and removes in its store.
CHANGING = ("tmp", "locks", "cachemounts", "snapshots", "scratch")


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    places = {name: Path(path) for name, path in job["places"].items()}
    looks, builds = [], []
    for number, build in enumerate(job["builds"]):
        dockerfile = Path(job["dockerfiles"], f"{number}.Dockerfile")
        dockerfile.write_text(build["dockerfile"])
        done = subprocess.run(
            [job["kpy"], "build", "--progress", "plain", "-f", dockerfile, *build["argv"], places["context"]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, cwd=job["dockerfiles"],
        )  # fmt: skip
        builds.append({"status": done.returncode, "out": done.stdout, "err": done.stderr})
        if not number:
            for name, place in places.items():
                plant(place, job["tokens"][name])
        looks.append({name: (of_store if name == "store" else whole)(place) for name, place in places.items()})
    json.dump({"looks": looks, "builds": builds}, sys.stdout)


def plant(place: Path, token: str) -> None:
    """Files that no build may read, change, move or remove. Tokens are in names, too; `hosts` and the like are names that kpy
    itself uses, and a line is one of /etc/passwd, too."""
    held = place / "held"
    held.mkdir()
    files = [held / "inner", held / f"named-{token}", *(place / name for name in ("value", "hosts", "resolv.conf"))]
    for path in files:
        path.write_text(f"root:x:0:0:{token}:/{token}:/bin/sh\n")
        path.chmod(0o640)
    for path in (*files, held):
        os.utime(path, (OLD, OLD))


def whole(place: Path) -> dict[str, list[object]]:
    """All that is there, with all that is known of it."""
    return {str(path.relative_to(place)): times(path) for path in [place, *sorted(place.rglob("*"))]}


def of_store(place: Path) -> dict[str, list[object]]:
    """The canaries of the store in the same way, and which file everything of it is that stays as it is."""
    found: dict[str, list[object]] = {}
    for path in [place, *sorted(place.rglob("*"))]:
        name = str(path.relative_to(place))
        top = name.partition("/")[0]
        if top in ("held", "value", "hosts", "resolv.conf"):
            found[name] = times(path)
        elif stat.S_ISDIR(path.lstat().st_mode):
            if top not in CHANGING or name == top:
                found[name] = known(path)
        elif top not in CHANGING and ("sha256" in name or top in ("trees", "layers")):
            found[name] = known(path)[1:]  # kpy writes the same again
        elif top not in CHANGING and "planted" in name:
            found[name] = ["not ours"]
    return found


def times(path: Path) -> list[object]:
    """What is known of it, and when it was changed; what was moved away and back has another time of change."""
    status = path.lstat()
    return [*known(path), status.st_mtime_ns, status.st_ctime_ns]


def known(path: Path) -> list[object]:
    status = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return [status.st_ino, status.st_mode, status.st_uid, status.st_gid, content, link]


if __name__ == "__main__":
    main()
