"""COPY and ADD: flags, sources, heredocs, destination (1.7)."""

from kpy.dockerfile.arguments import Line, words_or_json
from kpy.dockerfile.flags import Kind
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.heredoc import is_file_name, parse_heredoc
from kpy.dockerfile.instructions import Add, Copy, Heredoc

_COPY_FLAGS = {
    "from": Kind.STRING, "chown": Kind.STRING, "chmod": Kind.STRING, "link": Kind.BOOL, "parents": Kind.BOOL,
    "exclude": Kind.LIST,
}  # fmt: skip
_ADD_FLAGS = {
    "chown": Kind.STRING, "chmod": Kind.STRING, "link": Kind.BOOL, "exclude": Kind.LIST, "checksum": Kind.STRING,
    "keep-git-dir": Kind.BOOL, "unpack": Kind.BOOL,
}  # fmt: skip


def _sources(line: Line, rest: str) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
    """Sources, destination and heredocs of COPY and ADD (H06)."""
    words, is_json = words_or_json(rest)
    if len(words) < 2:
        count = "only one was" if words else "none were"
        raise FormError(
            f"{line.name} requires at least two arguments, but {count} provided",
            hint="write source and destination",
        )
    *sources, dest = words
    if is_json:
        return tuple(sources), dest, ()
    if _heredoc_name(dest):
        raise FormError(f"{line.name} cannot have a heredoc as a destination")
    # By name, as BuildKit: of two heredocs with one name the last counts for both.
    bodies = {heredoc.name: heredoc for heredoc in line.line.heredocs}
    paths, heredocs = [], []
    for source in sources:
        heredoc = bodies.get(_heredoc_name(source) or "")
        if heredoc:
            if not is_file_name(heredoc.name):
                raise FormError(f"invalid heredoc: {heredoc.name!r} cannot be the name of a file")
            heredocs.append(heredoc)
        else:
            paths.append(source)
    return tuple(paths), dest, tuple(heredocs)


def _heredoc_name(word: str) -> str | None:
    try:
        found = parse_heredoc(word)
    except FormError:
        return None
    return found.name if found else None


def parse_copy(line: Line) -> Copy:
    flags, rest = line.flags(_COPY_FLAGS)
    sources, dest, heredocs = _sources(line, rest)
    return Copy(
        line.span,
        line.original,
        sources,
        dest,
        heredocs,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        parents=flags.boolean("parents") or False,
        exclude=flags.list("exclude"),
    )


def parse_add(line: Line) -> Add:
    flags, rest = line.flags(_ADD_FLAGS)
    sources, dest, heredocs = _sources(line, rest)
    return Add(
        line.span,
        line.original,
        sources,
        dest,
        heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        exclude=flags.list("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
    )
