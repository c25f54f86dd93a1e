"""Image configurations (OCI image-spec, config.md, with docker's extensions). Unknown fields survive."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kpy.errors import ContentError
from kpy.oci import mediatype
from kpy.oci.digest import Digest
from kpy.oci.platform import Platform
from kpy.util import canonical

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # A15


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """docker's extension: `test` is ("NONE",), ("CMD", …) or ("CMD-SHELL", text); durations in ns, 0 = unset."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """The `config` object. None for cmd, entrypoint, shell means: not set. `env` keeps its order."""

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    workdir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    onbuild: tuple[str, ...] = ()
    args_escaped: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def getenv(self, name: str) -> str | None:
        """The value of a variable, None when it is not set."""
        prefix = name + "="
        return next((item[len(prefix) :] for item in reversed(self.env) if item.startswith(prefix)), None)

    def with_env(self, name: str, value: str) -> "RuntimeConfig":
        """Set a variable, keeping its place in the list if it is there already."""
        prefix, item = name + "=", f"{name}={value}"
        if any(old.startswith(prefix) for old in self.env):
            return replace(self, env=tuple(item if old.startswith(prefix) else old for old in self.env))
        return replace(self, env=(*self.env, item))


@dataclass(frozen=True, slots=True)
class History:
    """One entry of the history; `empty_layer` entries have no layer."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A whole image configuration. `created` is RFC 3339 or empty; `extra` holds the fields we do not know."""

    platform: Platform
    runtime: RuntimeConfig = RuntimeConfig()
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, in the order in which BuildKit writes it."""
        found: dict[str, Any] = {}
        if self.created:
            found["created"] = self.created
        if self.author:
            found["author"] = self.author
        found["architecture"] = self.platform.architecture
        found["os"] = self.platform.os
        if self.platform.os_version:
            found["os.version"] = self.platform.os_version
        if self.platform.variant:
            found["variant"] = self.platform.variant
        found["config"] = _runtime_to_json(self.runtime)
        found["rootfs"] = {"type": "layers", "diff_ids": [str(item) for item in self.diff_ids]}
        if self.history:
            found["history"] = [_history_to_json(item) for item in self.history]
        for key in sorted(self.extra):
            found.setdefault(key, self.extra[key])
        return found

    def encode(self) -> bytes:
        """The bytes of the config blob: the same configuration gives the same bytes."""
        return canonical.dumps(self.to_json())


_RUNTIME_KEYS = frozenset(
    ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal",
     "Healthcheck", "Shell", "OnBuild", "ArgsEscaped")
)
_CONFIG_KEYS = frozenset(
    ("created", "author", "architecture", "os", "os.version", "variant", "config", "rootfs", "history")
)
# Fields of docker's legacy builder that describe one container, not the image.
_DROPPED_KEYS = frozenset(("container", "container_config", "docker_version", "id", "parent"))
_CONTAINER_KEYS = frozenset(
    ("Image", "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce")
)


def _runtime_to_json(runtime: RuntimeConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if runtime.user:
        found["User"] = runtime.user
    if runtime.exposed_ports:
        found["ExposedPorts"] = {port: {} for port in sorted(runtime.exposed_ports)}
    if runtime.env:
        found["Env"] = list(runtime.env)
    if runtime.entrypoint is not None:
        found["Entrypoint"] = list(runtime.entrypoint)
    if runtime.cmd is not None:
        found["Cmd"] = list(runtime.cmd)
    if runtime.healthcheck:
        found["Healthcheck"] = _healthcheck_to_json(runtime.healthcheck)
    if runtime.args_escaped:
        found["ArgsEscaped"] = True
    if runtime.volumes:
        found["Volumes"] = {path: {} for path in sorted(runtime.volumes)}
    if runtime.workdir:
        found["WorkingDir"] = runtime.workdir
    if runtime.onbuild:
        found["OnBuild"] = list(runtime.onbuild)
    if runtime.labels:
        found["Labels"] = dict(sorted(runtime.labels.items()))
    if runtime.stop_signal:
        found["StopSignal"] = runtime.stop_signal
    if runtime.shell is not None:
        found["Shell"] = list(runtime.shell)
    for key in sorted(runtime.extra):
        found.setdefault(key, runtime.extra[key])
    return found


def _healthcheck_to_json(check: Healthcheck) -> dict[str, Any]:
    found: dict[str, Any] = {"Test": list(check.test)}
    numbers = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return found | {key: value for key, value in numbers.items() if value}


def _history_to_json(item: History) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if item.created:
        found["created"] = item.created
    if item.created_by:
        found["created_by"] = item.created_by
    if item.author:
        found["author"] = item.author
    if item.comment:
        found["comment"] = item.comment
    if item.empty_layer:
        found["empty_layer"] = True
    return found


def parse(raw: bytes) -> ImageConfig:
    """Read a config blob of a hostile image. Raises ContentError for what is not a configuration.

    Fields of a wrong type inside `config` are an error too: guessing would change what runs.
    """
    if len(raw) > mediatype.MAX_CONFIG_SIZE:
        raise ContentError(f"the image configuration is larger than {mediatype.MAX_CONFIG_SIZE >> 20} MiB")
    try:
        data = canonical.loads(raw)
    except ValueError as error:
        raise ContentError(f"the image configuration is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ContentError("the image configuration is not a JSON object")
    rootfs = data.get("rootfs") or {}
    if not isinstance(rootfs, dict):
        raise ContentError("the image configuration's rootfs is not an object")
    history = data.get("history") or []
    if not isinstance(history, list):
        raise ContentError("the image configuration's history is not a list")
    return ImageConfig(
        platform=Platform.normalised(
            _word(data, "os") or "linux",
            _word(data, "architecture"),
            _word(data, "variant"),
            _word(data, "os.version"),
        ),
        runtime=_runtime_from_json(data.get("config")),
        diff_ids=tuple(Digest.parse(item) for item in _strings(rootfs, "diff_ids") or ()),
        history=tuple(_history_from_json(item) for item in history if isinstance(item, dict)),
        created=_text(data, "created"),
        author=_text(data, "author"),
        extra={key: value for key, value in data.items() if key not in _CONFIG_KEYS | _DROPPED_KEYS},
    )


def _runtime_from_json(data: Any) -> RuntimeConfig:
    if data is None:
        return RuntimeConfig()
    if not isinstance(data, dict):
        raise ContentError("the image configuration's config is not an object")
    labels = data.get("Labels") or {}
    if not isinstance(labels, dict):
        raise ContentError("the image configuration's Labels is not an object")
    return RuntimeConfig(
        env=_strings(data, "Env") or (),
        cmd=_strings(data, "Cmd"),
        entrypoint=_strings(data, "Entrypoint"),
        user=_text(data, "User"),
        workdir=_text(data, "WorkingDir"),
        labels={key: _text(labels, key) for key in labels},
        exposed_ports=_keys(data, "ExposedPorts"),
        volumes=_keys(data, "Volumes"),
        stop_signal=_text(data, "StopSignal"),
        healthcheck=_healthcheck_from_json(data.get("Healthcheck")),
        shell=_strings(data, "Shell"),
        onbuild=_strings(data, "OnBuild") or (),
        args_escaped=data.get("ArgsEscaped") is True,
        extra={key: value for key, value in data.items() if key not in _RUNTIME_KEYS | _CONTAINER_KEYS},
    )


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ContentError(f"the image configuration's {key} is not a string")
    return value


def _word(data: dict[str, Any], key: str) -> str:
    """A word of a platform: it may become the name of a directory (type=local)."""
    value = _text(data, key)
    if re.fullmatch(r"[A-Za-z0-9_.+-]*", value) is None or value in (".", ".."):
        raise ContentError(f"the image configuration's {key} is {value[:50]!r}")
    return value


def _strings(data: dict[str, Any], key: str) -> tuple[str, ...] | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ContentError(f"the image configuration's {key} is not a list of strings")
    return tuple(value)


def _keys(data: dict[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise ContentError(f"the image configuration's {key} is not an object")
    return tuple(sorted(value))


def _healthcheck_from_json(data: Any) -> Healthcheck | None:
    if not isinstance(data, dict):
        return None

    def number(key: str) -> int:
        value = data.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    return Healthcheck(
        _strings(data, "Test") or (), number("Interval"), number("Timeout"), number("StartPeriod"),
        number("StartInterval"), number("Retries"),
    )  # fmt: skip


def _history_from_json(item: dict[str, Any]) -> History:
    return History(
        created=_text(item, "created"),
        created_by=_text(item, "created_by"),
        comment=_text(item, "comment"),
        author=_text(item, "author"),
        empty_layer=item.get("empty_layer") is True,
    )
