"""What a build still needs, or owns, of the file system that a live root empties: paths, not contents."""

import os
from collections.abc import Iterable

from kpy.app.options import BuildOptions, Environment
from kpy.app.world import credential_files, state_directory


def needed_paths(options: BuildOptions, environment: Environment) -> tuple[str, ...]:
    """The absolute paths, without symlinks, of everything that the options and the environment name: contexts,
    Dockerfile, sources of secrets, keys, logins, certificates, the state, and where results will be written."""
    variables = environment.variables
    named = [options.context, options.file, options.sign_key, options.iidfile, options.metadata_file, options.progress_file, *options.written_later]
    named += [value for _, value in options.build_contexts if "://" not in value]
    named += [secret.src for secret in options.secrets]
    named += [path for agent in options.ssh for path in agent.paths]
    named += [variables.get("SSH_AUTH_SOCK", "")] if options.ssh else []
    named += [output.dest for output in options.outputs]
    named += [variables.get("SSL_CERT_FILE", ""), variables.get("SSL_CERT_DIR", "")]
    named += [file for _, *files in (*options.registries.certificates, *options.registries.client_certificates) for file in files]
    if options.file and not os.path.isabs(options.file):
        named.append(os.path.join(options.context, options.file))
    named += [f"{file}.dockerignore" for file in (options.file,) if file not in ("", "-")]
    named += [str(path) for path in (*credential_files(environment), state_directory(environment))]
    return _real(named, environment)


def private_paths(options: BuildOptions, environment: Environment) -> tuple[str, ...]:
    """Those of them that no Dockerfile is given anything of: keys, logins and the state. (A secret is the Dockerfile's to
    mount.)"""
    named = [options.sign_key, *(path for agent in options.ssh for path in agent.paths)]
    named += [str(path) for path in (*credential_files(environment), state_directory(environment))]
    return tuple(path for path in _real(named, environment) if os.path.lexists(path))


def _real(named: Iterable[str], environment: Environment) -> tuple[str, ...]:
    found = {
        os.path.realpath(os.path.join(environment.directory, os.path.expanduser(path)))
        for path in named
        if path not in ("", "-") and "://" not in path
    }
    return tuple(sorted(found))
