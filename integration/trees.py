"""Images in registries, taken apart by other people's tools: for comparing what two builds made."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import servers


def run(*argv: str | Path) -> str:
    """The standard output of a program that must succeed."""
    done = subprocess.run([servers.tool(str(argv[0])), *map(str, argv[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def inspect(name: str, *more: str) -> dict[str, Any]:
    """What `skopeo inspect` says of an image in a registry without TLS."""
    found: dict[str, Any] = json.loads(run("skopeo", "inspect", "--tls-verify=false", *more, f"docker://{name}"))
    return found


def layers(name: str) -> list[str]:
    """The digests of the layers."""
    return [layer["digest"] for layer in inspect(name, "--raw")["layers"]]


def unpack(name: str, directory: Path, *, credentials: str = "") -> Path:
    """The root file system, by `umoci unpack`. Needs root. `credentials` are user:password."""
    directory.mkdir()
    login = ["--src-creds", credentials] if credentials else []
    run("skopeo", "copy", "--src-tls-verify=false", *login, f"docker://{name}", f"oci:{directory}/layout:it")
    run("umoci", "unpack", "--image", f"{directory}/layout:it", directory / "bundle")
    return directory / "bundle" / "rootfs"


def described(name: str, directory: Path) -> dict[str, str]:
    """Every path of an image with all that is known of it but times: what two builds at different times have alike."""
    root = unpack(name, directory)
    names: dict[tuple[int, int], str] = {}
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        here = path.lstat()
        shown = str(path.relative_to(root))
        line = f"{stat.filemode(here.st_mode)} {here.st_uid}:{here.st_gid} {here.st_rdev}"
        if stat.S_ISLNK(here.st_mode):
            line += f" -> {os.readlink(path)}"
        elif stat.S_ISREG(here.st_mode):
            line += f" {here.st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            line += f" is {names.setdefault((here.st_dev, here.st_ino), shown)}"
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
        found[shown] = f"{line} {xattrs}"
    shutil.rmtree(directory)
    return found


def differences(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Two builds change passwords with salts of their own."""
    found = {
        path: (one.get(path, ""), other.get(path, "")) for path in {*one, *other} if one.get(path) != other.get(path)
    }
    for path in ("etc/shadow", "etc/shadow-"):
        if path in found and found[path][0].split(" ")[:2] == found[path][1].split(" ")[:2]:
            del found[path]
    return found


def members(name: str) -> list[dict[str, tuple[str, str]]]:
    """Each layer's paths with all that is known of them but times: the metadata, and for a regular file size and digest.
    From the tars, so that nothing is unpacked."""
    host, _, repository = name.rpartition(":")[0].partition("/")
    found = []
    for digest in layers(name):
        with (
            urllib.request.urlopen(f"http://{host}/v2/{repository}/blobs/{digest}", timeout=60) as blob,
            tarfile.open(fileobj=blob, mode="r|*") as tar,
        ):
            found.append({member.name: _member(tar, member) for member in tar})
    return found


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str]:
    data = tar.extractfile(member) if member.isreg() else None
    xattrs = {key: value for key, value in sorted(member.pax_headers.items()) if key.startswith("SCHILY.xattr.")}
    shown = f"{member.type.decode()} {member.mode:o} {member.uid}:{member.gid} {member.devmajor}:{member.devminor} {member.linkname} {xattrs}"
    return shown, f"{member.size} {hashlib.file_digest(data, 'sha256').hexdigest()}" if data else ""  # type: ignore[arg-type]
