"""Keep a credential in a config.json, or in the helper that it names, and forget it again (`kpy login`).

Changes only what it must: unknown keys of the file survive. Whether the registry accepts the credential
is RegistryClient.ping's to say.
"""

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from kpy.errors import UsageError
from kpy.oci.reference import DOCKER_HUB
from kpy.registry.credentials import HELPER_NAME, HUB_KEY, TOKEN_USER, Credential, normalise_key


def store(path: Path, registry: str, credential: Credential) -> str:
    """Keep it; gives where, for a message. The file is made readable for its owner alone. Raises UsageError."""
    data = _read(path)
    key = HUB_KEY if registry == DOCKER_HUB else registry
    helper = _helper(data, registry)
    secret = credential.identity_token or credential.password
    if helper:
        user = TOKEN_USER if credential.identity_token else credential.username
        _run(helper, "store", json.dumps({"ServerURL": key, "Username": user, "Secret": secret}))
        return f"credential helper {helper}"
    entry: dict[str, str] = {}
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    entry["auth"] = base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode("ascii")
    auths = _without(data, registry)
    auths[key] = entry
    data["auths"] = auths
    _write(path, data)
    return str(path)


def erase(path: Path, registry: str) -> bool:
    """Forget what is kept for the registry; False when there was nothing in the file. Raises UsageError."""
    data = _read(path)
    helper = _helper(data, registry)
    if helper:
        _run(helper, "erase", HUB_KEY if registry == DOCKER_HUB else registry)
    before = data.get("auths") or {}
    auths = _without(data, registry)
    if len(auths) == len(before):
        return bool(helper)
    data["auths"] = auths
    _write(path, data)
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON", hint="mend or remove it") from error
    if not isinstance(data, dict) or not isinstance(data.get("auths") or {}, dict):
        raise UsageError(f"{path} is not a docker configuration", hint="mend or remove it")
    return data


def _without(data: dict[str, Any], registry: str) -> dict[str, Any]:
    return {key: value for key, value in (data.get("auths") or {}).items() if normalise_key(key) != registry.lower()}


def _helper(data: dict[str, Any], registry: str) -> str:
    helpers = data.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            if normalise_key(key) == registry.lower():
                return str(name)
    return str(data.get("credsStore") or "")


def _run(helper: str, verb: str, text: str) -> None:
    program = f"docker-credential-{helper}"
    if not HELPER_NAME.fullmatch(helper):
        raise UsageError(f"invalid credential helper name {helper[:80]!r}")
    try:
        done = subprocess.run([program, verb], input=text.encode(), capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"the credential helper {program} failed: {type(error).__name__}") from error
    if done.returncode:
        raise UsageError(f"the credential helper {program} failed with status {done.returncode}")


def _write(path: Path, data: dict[str, Any]) -> None:
    text = json.dumps(data, indent="\t", ensure_ascii=False) + "\n"  # as docker writes it
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = path.resolve()  # dot files are often symbolic links
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".config-")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
