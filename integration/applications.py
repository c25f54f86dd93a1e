"""What the example applications need besides their contexts, and how to ask them whether they work."""

import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path


def make_wheel(directory: Path) -> None:
    """A tiny pure-Python wheel, so that pip in RUN needs no index."""
    directory.mkdir(exist_ok=True)
    name, version = "kpy_greeting", "1.0"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "def greeting(name):\n    return f'hello, {name}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


def get(url: str, seconds: float = 30) -> str:
    """The body, once the server is up."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
