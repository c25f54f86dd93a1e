"""Where this machine keeps things: the state directory, credentials, proxies. The one place that knows their names."""

import os
from pathlib import Path

from kpy.app import statedir
from kpy.app.options import Environment, RegistrySettings
from kpy.errors import StoreError
from kpy.registry.client import RegistryClient
from kpy.registry.credentials import Credentials
from kpy.registry.hosts import Hosts
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from kpy.util.proxies import Proxies


def state_directory(environment: Environment) -> Path:
    """KPY_HOME, or the platform's directory for data; in kpy's image perhaps a directory in it. It need not be there."""
    from kpy.app.strategy import in_bundle

    return statedir.place(_home(environment), mounted=in_bundle())


def _home(environment: Environment) -> Path:
    home = environment.variables.get("KPY_HOME")
    if home:
        return Path(os.path.join(environment.directory, home))
    from platformdirs import user_data_path

    try:
        return user_data_path("kpy", appauthor=False)
    except RuntimeError as error:  # of pathlib: no HOME, and nobody of this uid in passwd
        raise StoreError(
            f"uid {os.geteuid()} has no home directory: HOME is not set, and /etc/passwd does not know the uid",
            hint="set KPY_HOME to a directory of your own: kpy keeps its files there",
        ) from error


def open_store(environment: Environment) -> Store:
    """The store of this user. Raises StoreError, also where others can write to it."""
    from kpy.app.strategy import in_bundle

    directory = state_directory(environment)
    try:
        statedir.claim(directory, mounted=in_bundle())
    except StoreError as error:
        if "KPY_HOME" not in error.hint:
            error.hint = f"{error.hint}; KPY_HOME names it"
        raise
    return Store(directory)


def credential_files(environment: Environment) -> list[Path]:
    """Where logins are kept, whether or not the files are there."""
    variables = environment.variables
    home = variables.get("HOME", "")
    paths = [Path(variables["REGISTRY_AUTH_FILE"])] if variables.get("REGISTRY_AUTH_FILE") else []
    config = variables.get("DOCKER_CONFIG") or (os.path.join(home, ".docker") if home else "")
    if config:
        paths.append(Path(config) / "config.json")
    if variables.get("XDG_RUNTIME_DIR"):
        paths.append(Path(variables["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    return [Path(environment.directory) / path for path in paths]


def credentials(environment: Environment) -> Credentials:
    """All that docker and podman know of registries, merged (N08). Raises UsageError for a broken file."""
    texts = [("DOCKER_AUTH_CONFIG", environment.variables.get("DOCKER_AUTH_CONFIG", ""))]
    return Credentials.load(credential_files(environment), texts)


def proxies(environment: Environment) -> Proxies:
    """The proxies that the environment names; lower case wins, as in curl."""

    def find(name: str) -> str:
        return environment.variables.get(name) or environment.variables.get(name.upper()) or ""

    return Proxies(http=find("http_proxy"), https=find("https_proxy") or find("all_proxy"), no_proxy=find("no_proxy"))


def registry_client(
    environment: Environment, insecure: tuple[str, ...], cancel: Cancel | None = None, settings: RegistrySettings | None = None
) -> RegistryClient:
    """A client with this user's credentials."""
    settings = settings or RegistrySettings()

    def path(name: str) -> str:
        return os.path.join(environment.directory, name)

    hosts = Hosts(
        insecure=insecure,
        unverified=settings.unverified,
        certificates=tuple((host, path(file)) for host, file in settings.certificates),
        client_certificates=tuple((host, path(file), path(key)) for host, file, key in settings.client_certificates),
        proxies=proxies(environment),
        ca_file=environment.variables.get("SSL_CERT_FILE", ""),
    )
    if cancel is None:
        return RegistryClient(hosts, credentials(environment))

    def sleep(seconds: float) -> None:
        cancel.wait(seconds)
        cancel.check()

    client = RegistryClient(hosts, credentials(environment), sleep=sleep)
    cancel.then(client.abort)
    return client
