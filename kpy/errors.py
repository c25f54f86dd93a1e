"""Every error a user can meet. Imports nothing, so that anything may raise them.

An error is one lower-case line with the facts, and a hint when we know what to do next. The class
says the exit code. Only `cli/main.py` catches `KpyError`.
"""


class KpyError(Exception):
    """The root. `message` is one line of facts; `hint`, if any, says what to do next.

    An error may know the instruction that it came from: lines `first_line`..`last_line` of `file` (1-based; 0 when no
    line is to blame), `excerpt`, the numbered source lines around them, ready to print, and the name of the `step`.
    """

    exit_code = 1
    file = ""
    first_line = 0
    last_line = 0
    excerpt = ""
    step = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(KpyError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class DockerfileError(KpyError):
    """The Dockerfile is wrong, at the lines that the error names."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        file: str = "Dockerfile",
        first_line: int = 0,
        last_line: int = 0,
        excerpt: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.first_line = first_line
        self.last_line = last_line or first_line
        self.excerpt = excerpt


class StepFailedError(KpyError):
    """A step of the build failed. `step` is its name as progress shows it, `status` the exit code of a RUN.

    `output` is the end of what the command wrote, for the error message.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        step: str,
        status: int = 0,
        output: str = "",
        file: str = "Dockerfile",
        first_line: int = 0,
        last_line: int = 0,
        excerpt: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.status = status
        self.output = output
        self.file = file
        self.first_line = first_line
        self.last_line = last_line or first_line
        self.excerpt = excerpt


class ContextError(KpyError):
    """The build context, or something a COPY or ADD needs of it, is missing or not usable."""

    exit_code = 5


class ContentError(KpyError):
    """Content (a blob, a layer, a manifest, a tar) is not what it must be."""

    exit_code = 6


class DigestMismatchError(ContentError):
    """Content does not have the digest or size that its descriptor says."""


class TooLargeError(ContentError):
    """An archive unpacks to more than is allowed."""


class RegistryError(KpyError):
    """A registry refused, failed or could not be reached. `status` is 0 when there was no answer."""

    exit_code = 7

    def __init__(
        self, message: str, *, method: str = "", url: str = "", status: int = 0, code: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.url = url
        self.status = status
        self.code = code


class ImageNotFoundError(RegistryError):
    """The registry answered that there is no such image, tag, blob or platform."""


class BlobNotFoundError(ImageNotFoundError):
    """A directory has no such blob; `blob` is its digest."""

    def __init__(self, message: str, blob: str) -> None:
        super().__init__(message)
        self.blob = blob


class AuthenticationError(RegistryError):
    """The registry wants credentials that we do not have, or refuses those that we sent."""


class SandboxError(KpyError):
    """The environment does not let us run a step. `errno` is the kernel's answer, 0 if it gave none."""

    exit_code = 8

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class StoreError(KpyError):
    """The local store cannot be read or written (a full disk, missing rights, a broken file)."""

    exit_code = 9


class SignatureError(KpyError):
    """A signature is missing, does not fit the manifest, or was made with another key."""

    exit_code = 10


class InterruptedBuildError(KpyError):
    """The user pressed Ctrl-C, or the process was told to end."""

    exit_code = 130
