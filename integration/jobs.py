"""What jobs of a CI have: a user, a directory for the runner, and a checkout that is a stranger's."""

import os
from pathlib import Path
from typing import Any

from people import Kpy

# Names that scripts and pip import, and some that Python itself looks for.
_MODULES = (
    "argparse", "base64", "codecs", "csv", "ensurepip", "json", "kpy", "os", "pip", "re", "runpy", "secrets", "shlex", "site",
    "sitecustomize", "subprocess", "tempfile", "types", "urllib", "usercustomize", "venv", "yaml",
)  # fmt: skip


def spawn(kpy: Kpy, **more: str) -> dict[str, Any]:
    """As the user, with the installed kpy on the PATH."""
    arguments: dict[str, Any] = kpy.spawn()
    environment = arguments["env"]
    return {**arguments, "env": {**environment, "PATH": f"{Path(kpy.program).parent}:{environment['PATH']}", **more}}


def temporary(workdir: Path, kpy: Kpy) -> Path:
    """RUNNER_TEMP."""
    path = workdir / "runner"
    path.mkdir()
    os.chown(path, kpy.user.uid, kpy.user.gid)
    return path


def hostile(checkout: Path) -> Path:
    """Put modules into the checkout that keep what they see of the environment. Gives the file that is there then."""
    stolen = checkout / "stolen"
    code = f"import os\nwith open({str(stolen)!r}, 'a') as file:\n    file.write(__name__ + ' ' + repr(dict(os.environ)) + chr(10))\n"
    for name in _MODULES:
        (checkout / f"{name}.py").write_text(code if name != "os" else code.replace("import os\n", "import posix as os\n"))
    return stolen
