"""COPY and ADD to steps: which sources, from where, to where (C01-C32, H06)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.remotes import (
    UNNAMED,
    GitRemote,
    is_git,
    is_http,
    parse_checksum,
    parse_git,
    url_filename,
)
from kpy.dockerfile.span import suggest
from kpy.dockerfile.words import expand, expand_heredoc
from kpy.errors import ContentError
from kpy.oci import digest as oci_digest
from kpy.plan.model import CopyOp, CopySource, GitOp, HttpOp
from kpy.plan.state import absolute
from kpy.util.modes import parse_mode

if TYPE_CHECKING:
    from kpy.plan.dispatch import Dispatcher

def plan_copy(dispatcher: "Dispatcher", item: ins.Copy | ins.Add) -> None:
    """Add the step of a COPY or ADD to the stage."""
    state, planner, span = dispatcher.state, dispatcher.planner, item.span
    process = dispatcher.expander(span)
    sources = [process(word) for word in item.sources]
    dest = process(item.dest)
    chown, chmod = process(item.chown), process(item.chmod)
    if chmod:
        try:
            parse_mode(chmod)
        except ValueError as error:
            raise span.error(
                f"invalid chmod parameter: {chmod!r}. it should be octal string and between 0 and 07777, or symbolic",
                hint="such as --chmod=755 or --chmod=u=rwX,go=rX",
            ) from error
    inputs = [state.step]
    if isinstance(item, ins.Copy):
        kind = _copy_sources(dispatcher, item, sources, inputs)
        groups = [CopySource(len(inputs) - 1, tuple(sources))] if sources else []
    else:
        kind = "context"
        groups = _add_sources(dispatcher, item, sources, inputs)
    op = CopyOp(
        dest=_destination(state.workdir, dest),
        sources=tuple(groups),
        heredocs=tuple((doc.name, _heredoc(dispatcher, doc, item)) for doc in item.heredocs),
        chown=chown,
        chmod=chmod,
        link=item.link and not chmod,  # as in BuildKit, --chmod makes it an ordinary copy (C09)
        parents=item.parents if isinstance(item, ins.Copy) else False,
        exclude=item.exclude,
        keep_owner=kind == "image",
        is_add=isinstance(item, ins.Add),
    )
    keyword = "ADD" if op.is_add else "COPY"
    state.step = planner.graph.add(
        op, inputs, name=state.next_name(item.original.strip() or keyword, alone=planner.alone),
        stage=state.stage.label, span=span,
    )  # fmt: skip
    state.note(_history(keyword, op, sources, item.heredocs, dest), layer=True)


def _destination(workdir: str, dest: str) -> str:
    """Absolute, cleaned; a trailing slash (also of `.`, of `dir/.` and of nothing) means a directory (C02)."""
    path = absolute(workdir, dest)
    if (dest in ("", ".") or dest.endswith(("/", "/."))) and path != "/":
        path += "/"
    return path


def _history(keyword: str, op: CopyOp, sources: list[str], heredocs: tuple[ins.Heredoc, ...], dest: str) -> str:
    """As BuildKit writes it: without --from, --link, --exclude (C32)."""
    words = [keyword]
    if op.parents:
        words.append("--parents")
    if op.chown:
        words.append(f"--chown={op.chown}")
    if op.chmod:
        words.append(f"--chmod={op.chmod}")
    return " ".join([*words, *sources, *(f"<<{doc.name}" for doc in heredocs), dest])


def _heredoc(dispatcher: "Dispatcher", doc: ins.Heredoc, item: ins.Copy | ins.Add) -> str:
    """The content of a file (H06): expanded unless the delimiter is quoted, quotes kept, escape always `\\`."""
    if not doc.expand:
        return doc.content
    try:
        text = expand_heredoc(doc.content, dispatcher.state.scope.env).text
    except FormError as error:
        raise item.span.error(f"failed to process the heredoc {doc.name}: {error.message}", hint=error.hint) from error
    dispatcher.planner.effort.spend(len(text) - len(doc.content), item.span)
    return text


def _copy_sources(dispatcher: "Dispatcher", item: ins.Copy, sources: list[str], inputs: list[str]) -> str:
    span = item.span
    name = _from(dispatcher, item)
    for word in sources:
        if is_http(word) or is_git(word):
            raise span.error(f"source can't be a URL or git repository for COPY: {word}", hint="use ADD")
    if not sources:
        return "context"
    step, kind = dispatcher.planner.source_step(name, dispatcher.state, span)
    inputs.append(step)
    return kind


def _from(dispatcher: "Dispatcher", item: ins.Copy) -> str:
    """What --from names; variables in it are arguments, global ones and those of the stage (X12). BuildKit has none there.

    ENV is not among them: what an image sets must not say which image is needed.
    """
    if "$" not in item.from_:
        return item.from_
    planner, scope = dispatcher.planner, dispatcher.state.scope
    known = dict(planner.globals.values)
    for argument in scope.args:
        known.pop(argument.key, None)
        value = scope.env.get(argument.key, argument.value)
        if value is not None:
            known[argument.key] = value
    try:
        found = expand(item.from_, known, escape=planner.escape)
    except FormError as error:
        raise item.span.error(f"failed to process --from={item.from_}: {error.message}", hint=error.hint) from error
    if found.unset or not found.text:
        name = min(found.unset, default="")
        raise item.span.error(
            f"invalid --from={item.from_}: " + (f"the argument {name} is not set" if name else "it is empty"),
            hint=(suggest(name, known) if name else "") or "variables in --from are those of ARG, with a value",
        )
    return found.text


def _add_sources(dispatcher: "Dispatcher", item: ins.Add, sources: list[str], inputs: list[str]) -> list[CopySource]:
    """Neighbouring local sources make one group; each URL and each repository is a source of its own."""
    process = dispatcher.expander(item.span)
    checksum = process(item.checksum)
    groups: list[CopySource] = []
    if checksum and (len(sources) != 1 or item.heredocs or not (is_http(sources[0]) or is_git(sources[0]))):
        raise item.span.error("checksum can't be specified for multiple or non-remote sources", hint="--checksum is for one URL or git repository")
    local = -1
    for word in sources:
        if is_git(word):
            if item.unpack is not None:
                raise item.span.error("--unpack can't be used with a git repository")
            inputs.append(_add_git(dispatcher, item, word, checksum))
            groups.append(CopySource(len(inputs) - 1, ("/",)))
        elif is_http(word):
            inputs.append(_add_http(dispatcher, item, word, checksum))
            groups.append(CopySource(len(inputs) - 1, ("/*",), unpack=item.unpack is True))
        else:
            if local < 0:
                inputs.append(dispatcher.planner.source_step("", dispatcher.state, item.span)[0])
                local = len(inputs) - 1
            groups.append(CopySource(local, (word,), unpack=item.unpack))
    return groups


def _add_http(dispatcher: "Dispatcher", item: ins.Add, url: str, checksum: str) -> str:
    if checksum:
        try:
            found = oci_digest.Digest.parse(checksum)
        except ContentError as error:
            raise item.span.error(f"invalid checksum {checksum!r}: {error.message}", hint="write --checksum=sha256:HEX") from error
        if found.algorithm != "sha256":
            raise item.span.error(f"invalid checksum {checksum!r}: unsupported algorithm {found.algorithm} for a URL", hint="use sha256")
    name = url_filename(url) or UNNAMED
    shown = url.partition("?")[0].partition("#")[0]
    scheme, _, rest = shown.partition("://")
    host, slash, path = rest.partition("/")
    shown = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return dispatcher.planner.graph.add(HttpOp(url, checksum, name), name=f"fetch {shown}", span=item.span)


def _add_git(dispatcher: "Dispatcher", item: ins.Add, text: str, checksum: str) -> str:
    try:
        remote = parse_git(text)
        if checksum:
            remote = _with_checksum(remote, parse_checksum(checksum))
    except FormError as error:
        raise item.span.error(error.message, hint=error.hint) from error
    keep = item.keep_git_dir
    if keep is not None and remote.keep_git_dir is not None and keep is not remote.keep_git_dir:
        raise item.span.error(f"--keep-git-dir={str(keep).lower()} conflicts with the query of the URL", hint="say it once")  # C27
    op = GitOp(replace(remote, keep_git_dir=None), keep_git_dir=bool(keep if keep is not None else remote.keep_git_dir))
    return dispatcher.planner.graph.add(op, name=f"fetch {remote.shown}", span=item.span)


def _with_checksum(remote: GitRemote, checksum: str) -> GitRemote:
    """`--checksum` beside one in the URL must be the same commit, said shorter or longer."""
    both = sorted((remote.checksum, checksum), key=len)
    if not both[1].startswith(both[0]):
        raise FormError(f"checksum conflicts: {remote.checksum!r} vs {checksum!r}")
    return replace(remote, checksum=both[1])
