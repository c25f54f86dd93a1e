"""What is fuzzed: each target takes bytes, and either returns or raises what its callers expect (`EXPECTED`).

Anything else that is raised is a finding: a traceback that a user would see. AssertionErrors are properties that fail.
Imported by `fuzz` under atheris's instrumentation; needs no more than kpy and the standard library.
"""

import io
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import tarnumbers

from kpy.cli import failure
from kpy.dockerfile import dump as ast_dump
from kpy.dockerfile import expose, heredoc, mounts, parser, remotes, words
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.globs import match
from kpy.dockerfile.instructions import Run
from kpy.errors import KpyError
from kpy.layer import decompress, index
from kpy.layer.entry import Kind
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.header import encode_header
from kpy.layer.tarread import TarLimits, read_tar
from kpy.layer.tree import Tree
from kpy.oci import config, manifest, mediatype
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.plan import dump as plan_dump
from kpy.plan.convert import convert
from kpy.plan.model import BaseImage, PlanOptions
from kpy.registry import challenge
from kpy.util import modes

EXPECTED = (KpyError, FormError)
LAYER = Digest("sha256", "1" * 64)


def _shown(error: KpyError) -> None:
    """What the command line shows of an error can be written to a terminal, and makes it do nothing."""
    assert error.message, "an error without words"
    text = failure.render(error)
    text.encode("utf-8", "replace")
    assert all(letter.isprintable() or letter in "\n\t" or not letter.isascii() for letter in text), repr(text)


def _resolver(onbuild: tuple[str, ...]) -> Callable[[str, Platform], BaseImage]:
    def resolve(name: str, platform: Platform) -> BaseImage:
        runtime = config.RuntimeConfig(env=("PATH=/bin", "A=b"), onbuild=onbuild)
        described = Descriptor(mediatype.OCI_CONFIG, LAYER, 2)
        made = manifest.build_manifest(described, [])
        # Nobody reads a content while a plan is made.
        return BaseImage(name, Image(made, config.ImageConfig(platform, runtime), (), cast(BlobSource, None)), LAYER)

    return resolve


def dockerfile(data: bytes) -> None:
    """Parse, print, plan."""
    try:
        found = parser.parse(data)
        ast_dump.dump(found).encode()
        options = PlanOptions(build_args=(("A", "x"), ("B", "")), contexts=(("ctx", "local", ""),), every_stage=True)
        plan_dump.dump(convert(found, options, _resolver(()))).encode("utf-8", "surrogateescape")
    except KpyError as error:
        _shown(error)


def triggers(data: bytes) -> None:
    """ONBUILD triggers of a base image."""
    lines = data.decode("utf-8", "replace").split("\0")
    found = parser.parse(b"FROM base\nRUN a\n")
    try:
        plan_dump.dump(convert(found, PlanOptions(), _resolver(tuple(lines))))
    except KpyError as error:
        _shown(error)


def expansion(data: bytes) -> None:
    """Words, in all their modes."""
    text = data[1:].decode("utf-8", "replace")
    flags = data[0] if data else 0
    env = {"A": "b", "LONG": "x" * 300, "P": "a/b.c.d", "E": "", "é": "ü"}
    options = {"escape": "`" if flags & 1 else "\\", "raw_quotes": bool(flags & 2), "raw_escapes": bool(flags & 4)}
    for function in (
        lambda: words.expand(text, env, **options, skip_quotes=bool(flags & 8), skip_unset=bool(flags & 16)),
        lambda: words.expand_words(text, env, **options, skip_unset=bool(flags & 16)),
        lambda: words.expand_heredoc(text, env),
    ):
        try:
            function()
        except FormError as error:
            assert error.message


def heredocs(data: bytes) -> None:
    """A RUN with heredocs: what it starts, and what is run."""
    text = data.decode("utf-8", "replace")
    try:
        heredoc.heredocs_of(text)
        heredoc.parse_heredoc(text)
    except FormError:
        pass
    try:
        found = parser.parse(b"FROM a\nRUN <<" + data)
        for item in found.stages[0].instructions:
            if isinstance(item, Run):
                heredoc.heredoc_shell_text(item)
    except KpyError as error:
        _shown(error)


# --- .dockerignore against a reference: moby/patternmatcher said again, by going back instead of by one expression -----


def _fits(pattern: str, path: str) -> bool:
    """`*` `?` `**` by trying everything; no classes, no escapes."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        if not rest:
            return True
        return _fits(rest, path) or any(
            path[at] == "/" and _fits(rest, path[at + 1 :]) for at in range(len(path))
        )
    if pattern[0] == "*":
        end = path.find("/")
        return any(_fits(pattern[1:], path[at:]) for at in range((len(path) if end < 0 else end) + 1))
    if not path:
        return False
    return (path[0] != "/" if pattern[0] == "?" else path[0] == pattern[0]) and _fits(pattern[1:], path[1:])


def _one(pattern: str, path: str) -> bool:
    """A pattern with a single `**` at an end is a plain suffix or prefix in moby, whatever the components."""
    others = pattern.replace("**", "", 1)
    if "*" not in others and "?" not in others:
        if pattern.startswith("**"):
            suffix = pattern[2:]
            return path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])
        if pattern.endswith("**"):
            return path.startswith(pattern[:-2])
    return _fits(pattern, path)


def _expected(patterns: list[str], path: str) -> bool:
    """moby's MatchesUsingParentResults: a `!` counts for a directory only if something had excluded it."""
    heads = [path[:at] for at, letter in enumerate(path) if letter == "/"] + [path]
    above: set[int] = set()
    excluded = False
    for head in heads:
        excluded = False
        for number, text in enumerate(patterns):
            keep = text.startswith("!")
            pattern = posixpath.normpath(text.removeprefix("!").strip()).lstrip("/")
            if number in above or (keep == excluded and _one(pattern, head)):
                above.add(number)
                excluded = not keep
    return excluded


def ignore(data: bytes) -> None:
    """Any ignore file; a walk and single questions agree; simple patterns do what moby says they do."""
    text, _, names = data.partition(b"\0")
    try:
        found = Ignore.parse(text)
    except KpyError as error:
        _shown(error)
        return
    for name in names.split(b"\0")[:20]:
        path = posixpath.normpath("/" + name.decode("utf-8", "surrogateescape")).strip("/")
        if not path:
            continue
        state: tuple[bool, ...] = ()
        whole, excluded = "", False
        for part in path.split("/"):
            above = excluded
            whole = f"{whole}/{part}" if whole else part
            excluded, state = found.excluded(whole, state)
            assert excluded == found.matches(whole)
            if above and not excluded:
                parent = whole.rpartition("/")[0]
                assert found.may_include_below(parent), f"{whole!r} is included, {parent!r} says nothing below is"
    try:
        match(text.decode("utf-8", "surrogateescape")[:200], names.decode("utf-8", "surrogateescape")[:200])
    except FormError:
        pass


_ALPHABET = "ab*?/.!"


def ignore_simple(data: bytes) -> None:
    """The same with patterns of a few letters, against the reference."""
    text = "".join(_ALPHABET[byte % 7] if byte < 224 else "\n" for byte in data[:40])
    path = "".join("ab/."[byte % 4] for byte in data[40:54])
    path = posixpath.normpath("/" + path).strip("/")
    patterns = [line for line in text.split("\n") if line.strip("!")]
    cleaned = [posixpath.normpath(line.removeprefix("!")).lstrip("/") for line in patterns]
    # What the reference does not say: three stars, patterns that leave the context, two marks.
    if not path or any("***" in line or line.startswith(("..", "!")) or line in ("", ".") for line in cleaned):
        return
    if any(line.startswith("!!") for line in patterns):
        return
    try:
        found = Ignore.parse("\n".join(patterns).encode())
    except KpyError:
        return
    expected = _expected(patterns, path)
    assert found.matches(path) == expected, (patterns, path, expected)


# --- tar -----------------------------------------------------------------------------------------------------------


def with_checksums(data: bytes) -> bytes:
    """The blocks that look like headers get the checksum that lets a reader look further."""
    blocks = []
    for at in range(0, len(data), 512):
        block = data[at : at + 512]
        if len(block) == 512 and block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            block = block[:148] + f"{total:06o}\0 ".encode() + block[156:]
        blocks.append(block)
    return b"".join(blocks)


_LIMITS = TarLimits(entries=1000)
_MOST = 4 << 20  # a sparse file says that it is as large as it likes; nobody reads all of it here


def _entries(data: bytes, *, layer: bool) -> Iterator[Kind]:
    left = _MOST
    for entry, content in read_tar(io.BytesIO(data), layer=layer, limits=_LIMITS):
        parts = entry.path.split("/") if entry.path else []
        assert not {"", ".", ".."} & set(parts), f"a path that is not clean: {entry.path!r}"
        assert "\0" not in entry.path + entry.link
        assert not entry.mode & ~0o7777
        size = 0
        if entry.kind is Kind.FILE and entry.size <= left:
            for chunk in content.chunks():
                assert 0 < len(chunk) <= 1 << 20
                size += len(chunk)
            assert size == entry.size
            left -= size
        yield entry.kind


def tar(data: bytes) -> None:
    """Every entry is clean, and has the content that it says."""
    for given in (data, with_checksums(data)):
        for layer in (True, False):
            try:
                list(_entries(given, layer=layer))
            except KpyError as error:
                _shown(error)


def tar_numbers(data: bytes) -> None:
    """Numbers that fit their fields and nothing else: a tar is refused, or all can be said to the kernel."""
    given = tarnumbers.from_bytes(data)
    for layer in (True, False):
        try:
            for entry, _ in read_tar(io.BytesIO(given), layer=layer, limits=_LIMITS):
                assert 0 <= entry.uid < (1 << 32) - 1 and 0 <= entry.gid < (1 << 32) - 1 and 0 <= entry.size < 1 << 63
                datetime.fromtimestamp(entry.mtime // 1_000_000_000, UTC)
                os.makedev(*entry.device)
                encode_header(entry)
        except KpyError as error:
            _shown(error)
    tree(given)
    extraction(given)


def _indexed(data: bytes) -> index.LayerTree | None:
    given = with_checksums(data)
    try:
        # Sparse files of terabytes are legal, and hashing their zeros takes as long as it takes.
        if sum(entry.size for entry, _ in read_tar(io.BytesIO(given), layer=True, limits=_LIMITS)) > _MOST:
            return None
        return index.scan_layer(io.BytesIO(given), limits=_LIMITS)
    except KpyError as error:
        _shown(error)
        return None


def tree(data: bytes) -> None:
    """Index, store, read back; apply twice; ask for everything."""
    found = _indexed(data)
    if found is None:
        return
    assert index.LayerTree.decode(found.encode()) == found
    whole = Tree.empty()
    try:
        for number in "12":
            whole = whole.apply(found, Digest("sha256", number * 64))
    except KpyError as error:
        _shown(error)
        return
    for entry in whole.walk():
        assert whole.lookup(entry.path) == entry
        assert entry.kind not in (Kind.WHITEOUT, Kind.OPAQUE, Kind.HARDLINK)
        whole.resolve(entry.path)
        whole.link_id(entry)
        try:
            whole.resolve_missing(entry.path + "/x/../y")
            whole.resolve_missing(entry.link)
        except KpyError as error:
            _shown(error)


def stored_index(data: bytes) -> None:
    """An index file of a store that something wrote over."""
    list(index.LayerTree.decode(data).entries)


_AREA = None


def extraction(data: bytes) -> None:
    """Nothing outside the root is made, changed or removed, and what is on disk is what the tree says."""
    found = _indexed(data)
    if found is None:
        return
    area = tempfile.mkdtemp(prefix="kpy-fuzz-", dir="/dev/shm")
    try:
        root, beside = f"{area}/root", f"{area}/beside"
        os.mkdir(root)
        os.mkdir(beside)
        with open(f"{beside}/file", "wb") as file:
            file.write(b"untouched")
        os.utime(f"{beside}/file", ns=(1, 1))
        os.utime(beside, ns=(1, 1))
        os.symlink("../beside", f"{root}/out")
        os.symlink(beside, f"{root}/b")
        before = os.stat(f"{beside}/file")
        try:
            result = extract(io.BytesIO(with_checksums(data)), root, options=ExtractOptions(owners=False))
            assert [entry.path for entry in result.tree.entries] == [entry.path for entry in found.entries]
        except KpyError as error:
            _shown(error)
        assert sorted(os.listdir(area)) == ["beside", "root"], os.listdir(area)
        assert os.listdir(beside) == ["file"], os.listdir(beside)
        after = os.stat(f"{beside}/file")
        assert (before.st_ino, before.st_mode, before.st_size, before.st_nlink, before.st_mtime_ns) == (
            after.st_ino, after.st_mode, after.st_size, after.st_nlink, after.st_mtime_ns)  # fmt: skip
        assert os.stat(beside).st_mtime_ns == 1
    finally:
        for directory, below, _ in os.walk(area):
            for name in below:
                path = f"{directory}/{name}"
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(area, ignore_errors=True)


def compressed(data: bytes) -> None:
    """Every format, with a limit on what comes out."""
    for kind in ("none", "gzip", "zstd", "bzip2", "xz", None):
        try:
            with decompress.decompressor(io.BytesIO(data), kind=kind, limit=8 << 20, read_ahead=False) as stream:
                total = 0
                while chunk := stream.read(1 << 20):
                    total += len(chunk)
                assert total <= 8 << 20
        except KpyError as error:
            _shown(error)
    decompress.sniff_archive(data)


# --- small texts and JSON --------------------------------------------------------------------------------------------


def image_config(data: bytes) -> None:
    """A configuration can be written, and means the same then."""
    found = config.parse(data)
    again = config.parse(found.encode())
    assert again == found, (again, found)


def image_manifest(data: bytes) -> None:
    """Manifests and indexes, with and without a Content-Type."""
    for media_type in ("", "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v2+json"):
        try:
            found = manifest.parse(data, media_type)
        except KpyError as error:
            _shown(error)
            continue
        assert found.raw == data
        for item in found.layers if isinstance(found, manifest.Manifest) else found.manifests:
            assert Descriptor.from_json(item.to_json()) == item


def authenticate(data: bytes) -> None:
    """WWW-Authenticate never raises."""
    text = data.decode("latin-1")
    for item in challenge.parse(text):
        assert item.scheme == item.scheme.lower()
    challenge.format_scopes(challenge.parse_scope(text))


def reference(data: bytes) -> None:
    """What is printed can be read again, and is the same."""
    text = data.decode("utf-8", "replace")
    try:
        found = Reference.parse(text)
        assert Reference.parse(str(found)) == found
        assert Reference.parse(found.familiar) == found, found.familiar
    except KpyError as error:
        _shown(error)
    try:
        platform = replace(Platform.parse(text), os_version="")  # which `str` does not show
        assert Platform.parse(str(platform)) == platform
    except KpyError as error:
        _shown(error)


def _mode(text: str) -> None:
    try:
        found = modes.parse_mode(text)
    except ValueError:  # as it says
        return
    assert 0 <= found.apply(0o644, is_dir=True) <= 0o7777


def values(data: bytes) -> None:
    """The values of flags and arguments."""
    text = data.decode("utf-8", "replace")
    for function in (
        mounts.parse_mount, mounts.parse_size, mounts.parse_device, remotes.parse_git, remotes.is_git, remotes.is_http,
        remotes.url_filename, remotes.parse_checksum, expose.check_signal, lambda it: expose.parse_ports(it.split()),
        _mode,
    ):  # fmt: skip
        try:
            function(text)
        except KpyError as error:
            _shown(error)
        except FormError as error:
            assert error.message


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        dockerfile, triggers, expansion, heredocs, ignore, ignore_simple, tar, tar_numbers, tree, stored_index, extraction, compressed,
        image_config, image_manifest, authenticate, reference, values,
    )
}  # fmt: skip


def frame_of(text: str) -> str:
    """The last line of ours in a traceback: findings with the same one are the same."""
    found = re.findall(r'File "([^"]*(?:kpy|fuzz)/[^"]*)", line (\d+), in (\S+)', text)
    return ":".join(found[-1]) if found else "?"
