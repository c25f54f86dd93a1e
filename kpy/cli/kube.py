"""`kpy kube job`: the manifest of a Job that runs `kpy build` with the given flags. Made by `kpy.app.kube`; printed here."""

import re
import shlex
from collections.abc import Sequence

from kpy.app.kube import WORKSPACE, Checkout, JobOptions, KeyOf, Security, job, secret_directory
from kpy.cli import options as build
from kpy.cli.flags import Flag, Parsed, parse, usage
from kpy.cli.terminal import Terminal
from kpy.cli.values import build_arguments
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.remotes import is_commit, is_git, is_http, parse_git
from kpy.errors import UsageError
from kpy.oci.reference import Reference
from kpy.util.yamltext import dumps

_JOB_FLAGS = (
    Flag("name", "value", "name of the Job (default: build- and the name of the image)", "", "NAME"),
    Flag("namespace", "value", "namespace of the Job", "", "NAME"),
    Flag("image", "value", "kpy's own image", "", "IMAGE"),
    Flag("git-image", "value", "an image with sh and git, which fetches a git context for the build", "", "IMAGE"),
    Flag("registry-secret", "value", "an image-pull secret (kubernetes.io/dockerconfigjson) with the logins", "", "SECRET"),
    Flag("cache-claim", "value", "a PersistentVolumeClaim to keep the store and its cache on", "", "CLAIM"),
    Flag("secret-from", "list", "a secret of the build from a key of a Secret; GIT_AUTH_TOKEN is for the git context alone", "", "ID=SECRET/KEY"),
    Flag("sign-key-from", "value", "the key to sign with, from a key of a Secret", "", "SECRET/KEY"),
    Flag("security", "value", "restricted, or baseline: root with this level's capabilities (default: restricted)", "", "LEVEL"),
    Flag("uid", "value", "user and group of a restricted Job; random leaves it to OpenShift (default: 1000)", "", "UID"),
    Flag("user-namespace", "switch", "root of the pod is nobody on the node: hostUsers: false"),
    Flag("read-only-root", "switch", "a read-only root file system, with a volume on each top-level directory"),
    Flag("slot", "list", "another top-level directory that RUN writes to", "", "NAME"),
    Flag("cpu", "value", "CPUs to request, such as 500m or 2", "", "QUANTITY"),
    Flag("memory", "value", "memory to request, and the limit, such as 1Gi", "", "QUANTITY"),
    Flag("storage", "value", "ephemeral storage to request, and the limit, such as 10Gi", "", "QUANTITY"),
    Flag("env", "list", "a variable of the container, such as SOURCE_DATE_EPOCH=0", "", "NAME=VALUE"),
    Flag("service-account", "value", "the ServiceAccount of the pod", "", "NAME"),
    Flag("ttl", "value", "seconds until a finished Job is removed (default: 3600)", "", "SECONDS"),
    Flag("deadline", "value", "seconds that the Job may take", "", "SECONDS"),
)  # fmt: skip

# What means something on this machine only.
_ELSEWHERE = {
    "secret": "--secret-from takes it from a Secret",
    "ssh": "give the build a token: --secret-from GIT_AUTH_TOKEN=SECRET/KEY",
    "sign-key": "--sign-key-from takes it from a Secret",
    "iidfile": "the digest is in the log of the pod",
    "progress-file": "the progress is in the log of the pod",
    "metadata-file": "the digest is in the log of the pod",
    "output": "--push is what a Job is for",
    "load": "--push is what a Job is for: there is no engine in the pod",
    "progress": "the log of a pod is plain",
    "quiet": "the log of a pod is plain",
    "check": "run it here: kpy build --check",
    "call": "run it here: kpy build --call",
}
_BUILD_FLAGS = tuple(flag for flag in build.BUILD_FLAGS if flag.kind != "refused" and flag.name not in _ELSEWHERE)
_KEY = re.compile(r"([a-z0-9][a-z0-9.-]*)/([A-Za-z0-9._-]+)")
_QUANTITY = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:m|[kKMGTPE]i?)?")

HELP = f"""\
usage: kpy kube job --image IMAGE [flags] CONTEXT

Print a Kubernetes Job that builds and pushes an image: kpy kube job … | kubectl create -f -
CONTEXT is the URL of a git repository or of an archive, pvc://CLAIM[/DIRECTORY] for a directory on a volume, or - for
an archive that `kubectl attach -i` sends. The pod fits Pod Security restricted.

Flags of the Job:
{usage(_JOB_FLAGS)}

Flags of the build, as `kpy build` has them:
{usage(_BUILD_FLAGS)}
"""


def run(argv: Sequence[str], terminal: Terminal) -> int:
    """Print it. Raises UsageError."""
    if argv[:1] != ["job"]:
        raise UsageError("kpy kube prints a Job", hint="kpy kube job --image IMAGE --push -t NAME CONTEXT")
    words = list(argv[1:])
    terminal.out(document(words, terminal).rstrip("\n"))
    return 0


def document(words: Sequence[str], terminal: Terminal) -> str:
    """The manifest as text. Its first line is the command that makes it again."""
    parsed = parse((*build.BUILD_FLAGS, *_JOB_FLAGS), words, "kube job")
    for name, hint in _ELSEWHERE.items():
        if name in parsed.values:
            raise UsageError(f"--{name} is not for a Job: it names something of this machine", hint=hint)
    if not parsed.one("image"):
        raise UsageError("kpy kube job needs --image", hint="the name of kpy's own image in a registry that the cluster pulls from")
    if len(parsed.arguments) != 1:
        raise UsageError("kpy kube job takes exactly one context", hint="a git URL, pvc://CLAIM, or -")
    found = _options(parsed, terminal)
    how = f"# then: kubectl attach -i job/{found.name} < context.tar.gz\n" if found.stdin else ""
    command = shlex.join(words)
    made = f"# kpy kube job {command}\n" if command.isprintable() else ""  # a newline would end the comment
    return f"{made}{how}{dumps(job(found))}"


def _options(parsed: Parsed, terminal: Terminal) -> JobOptions:
    claim, claim_path, context = _context(parsed.arguments[0])
    secrets = [_secret(text) for text in parsed.all("secret-from")]
    checkout = None
    if parsed.one("git-image"):
        token = next((secret for secret in secrets if secret.id == "GIT_AUTH_TOKEN"), None)
        secrets = [secret for secret in secrets if secret is not token]
        checkout, context = _checkout(context, parsed.one("git-image"), token)
    signing = parsed.one("sign-key-from")
    if signing:
        secrets.append(_key_of("", signing, "--sign-key-from"))
    arguments = ["build", "--progress=plain", *_build_words(parsed, terminal)]
    for number, secret in enumerate(secrets):
        path = f"{secret_directory(number)}/value"
        arguments.append(f"--secret=id={secret.id},src={path}" if secret.id else f"--sign-key={path}")
    _check(parsed, terminal, signing=bool(signing))
    tag = Reference.parse(parsed.all("tag")[0])
    return JobOptions(
        name=parsed.one("name") or _job_name(tag),
        image=str(Reference.parse(parsed.one("image"))),
        arguments=(*arguments, context),
        namespace=parsed.one("namespace"),
        security=_security(parsed.one("security", "restricted")),
        uid=None if parsed.one("uid") == "random" else _number(parsed, "uid", 1000),
        claim=claim,
        claim_path=claim_path,
        checkout=checkout,
        stdin=context == "-",
        login=parsed.one("registry-secret"),
        cache_claim=parsed.one("cache-claim"),
        secrets=tuple(secrets),
        slots=tuple(name.strip("/") for name in parsed.all("slot")),
        read_only_root=parsed.on("read-only-root"),
        user_namespace=parsed.on("user-namespace"),
        cpu=_quantity(parsed, "cpu"),
        memory=_quantity(parsed, "memory"),
        storage=_quantity(parsed, "storage"),
        variables=_variables(parsed),
        service_account=parsed.one("service-account"),
        ttl=_number(parsed, "ttl", 3600),
        deadline=_number(parsed, "deadline", 0),
    )


def _context(text: str) -> tuple[str, str, str]:
    """Claim, directory on it, and the context as `kpy build` in the pod takes it."""
    if text.startswith("pvc://"):
        claim, _, path = text.removeprefix("pvc://").partition("/")
        if not claim:
            raise UsageError(f"{text} names no claim", hint="for example pvc://sources/app")
        return claim, path.strip("/"), WORKSPACE
    if text == "-" or is_git(text) or is_http(text) or text.startswith("github.com/"):
        return "", "", text
    raise UsageError(
        f"a Job cannot see {text!r}", hint="the context is a git URL, the URL of an archive, pvc://CLAIM[/DIRECTORY], or -"
    )


def _checkout(context: str, image: str, token: KeyOf | None) -> tuple[Checkout, str]:
    """What fetches the context, and the directory that is the context then."""
    if not (is_git(context) or context.startswith("github.com/")):
        raise UsageError("--git-image is for a context that is a git repository", hint="for example https://git.example/app.git#main")
    try:
        remote = parse_git(context)
    except FormError as error:
        raise UsageError(f"the context: {error.message}", hint=error.hint) from error
    if remote.credentials:
        raise UsageError("a login in the URL could be read in the Job", hint="--secret-from GIT_AUTH_TOKEN=SECRET/KEY")
    if remote.checksum and not is_commit(remote.checksum):
        raise UsageError("--git-image needs a whole commit id", hint=f"{remote.checksum} is the beginning of one")
    if remote.keep_git_dir:
        raise UsageError("--git-image does not keep the .git directory", hint="leave keep-git-dir out of the URL")
    path = f"{WORKSPACE}/{remote.subdir.strip('/')}".rstrip("/")
    return Checkout(str(Reference.parse(image)), remote.url, remote.checksum or remote.ref, remote.submodules, token), path


def _build_words(parsed: Parsed, terminal: Terminal) -> list[str]:
    """The flags of the build, one word each, in the order of the table. Values from the environment become part of it."""
    words = []
    for flag in _BUILD_FLAGS:
        given = parsed.values.get(flag.name, [])
        if flag.name == "build-arg":
            given = [f"{name}={value}" for name, value in build_arguments(given, terminal.variables)]
        if flag.kind == "value":
            given = given[-1:]
        if flag.kind == "switch":
            words += [f"--{flag.name}"] if given[-1:] == ["true"] else []
        else:
            words += [f"--{flag.name}={value}" for value in given]
    return words


def _check(parsed: Parsed, terminal: Terminal, *, signing: bool) -> None:
    """Let `kpy build`'s own reader see the flags, so that no pod is started to be told about them."""
    words = _build_words(parsed, terminal)
    if not parsed.on("push"):
        raise UsageError("a Job must push what it builds", hint="add --push")
    if not parsed.all("tag"):
        raise UsageError("a push needs a name", hint="for example -t registry.example/app:1")
    build.read([*words, *(["--sign-key=x"] if signing else []), "https://x/x.tar"], terminal)


def _secret(text: str) -> KeyOf:
    ident, equals, rest = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_.-]+", ident):
        raise UsageError(f"invalid --secret-from {text!r}: it must be ID=SECRET/KEY")
    return _key_of(ident, rest, "--secret-from")


def _key_of(ident: str, text: str, flag: str) -> KeyOf:
    match = _KEY.fullmatch(text)
    if match is None:
        raise UsageError(f"invalid {flag} {text!r}: a Secret and a key in it are SECRET/KEY")
    return KeyOf(ident, match[1], match[2])


def _job_name(tag: Reference) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", tag.repository.rpartition("/")[2].lower()).strip("-")
    return f"build-{name}"[:63].rstrip("-")


def _security(text: str) -> Security:
    match text:
        case "restricted" | "baseline":
            return text
        case _:
            raise UsageError(f"invalid value {text!r} for --security", hint="it is restricted or baseline")


def _number(parsed: Parsed, name: str, default: int) -> int:
    text = parsed.one(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or (name == "uid" and not 0 < int(text) < 1 << 31):
        more = ", or random" if name == "uid" else ""
        raise UsageError(f"invalid value {text!r} for --{name}: it is a number{more}")
    return int(text)


def _quantity(parsed: Parsed, name: str) -> str:
    text = parsed.one(name)
    if text and not _QUANTITY.fullmatch(text):
        raise UsageError(f"invalid value {text!r} for --{name}", hint="for example 500m, 2 or 1Gi")
    return text


def _variables(parsed: Parsed) -> tuple[tuple[str, str], ...]:
    found = {}
    for text in parsed.all("env"):
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"invalid --env {text!r}: it must be NAME=VALUE")
        found[name] = value
    return tuple(found.items())
