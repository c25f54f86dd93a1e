"""The checks as data: names (BuildKit's, and ours), what each is about, and what a check finds.

A page for each is in `kpy/rules/NAME.md`. Who looks for what: `text.py` and `ours.py` here, `kpy.plan.lint` where
variables and images matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kpy.dockerfile.span import Span


@dataclass(frozen=True, slots=True)
class Rule:
    """One check. An `experimental` one is off until `# check=experimental=NAME` asks for it."""

    name: str
    description: str
    experimental: bool = False

    @property
    def help(self) -> str:
        """The command that shows the rule's page."""
        return f"kpy explain {self.name}"

    def found(self, detail: str, span: Span) -> "Finding":
        """The rule is broken in these lines."""
        return Finding(self, detail, span)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, where, and what exactly is there."""

    rule: Rule
    detail: str
    span: Span

    @property
    def text(self) -> str:
        """One line, as a build shows it: `Dockerfile:3: Rule: detail`."""
        return f"{self.span.source.name}:{self.span.first}: {self.rule.name}: {self.detail}"


STAGE_NAME_CASING = Rule("StageNameCasing", "stage names should be lower case")
FROM_AS_CASING = Rule("FromAsCasing", "`as` should be in the same case as `from`")
NO_EMPTY_CONTINUATION = Rule("NoEmptyContinuation", "no empty lines within an instruction that goes on")
CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing", "all instructions should be in the same case, upper or lower"
)
DUPLICATE_STAGE_NAME = Rule("DuplicateStageName", "stage names should be unique")
RESERVED_STAGE_NAME = Rule("ReservedStageName", "reserved words should not be stage names")
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "CMD and ENTRYPOINT should be in JSON form, so that signals reach the program and not a shell",
)
MAINTAINER_DEPRECATED = Rule("MaintainerDeprecated", "MAINTAINER is deprecated: a label names the author")
UNDEFINED_ARG_IN_FROM = Rule(
    "UndefinedArgInFrom", "variables in FROM should be declared with ARG before the first FROM"
)
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "a relative WORKDIR with no absolute one before depends on what the base image has",
)
UNDEFINED_VAR = Rule("UndefinedVar", "variables should be defined before they are used")
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed", "of several CMD, ENTRYPOINT or HEALTHCHECK in a stage only the last counts"
)
LEGACY_KEY_VALUE_FORMAT = Rule("LegacyKeyValueFormat", "names and values should be joined by `=`, not by a blank")
INVALID_BASE_IMAGE_PLATFORM = Rule(
    "InvalidBaseImagePlatform", "the base image should be for the platform that is built for"
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform", "--platform=$TARGETPLATFORM is what FROM does anyway"
)
SECRETS_USED_IN_ARG_OR_ENV = Rule("SecretsUsedInArgOrEnv", "secrets should not be in ARG or ENV")
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom", "FROM should have a valid image name also when no build argument is given"
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed", "FROM --platform should not be a constant"
)
COPY_IGNORED_FILE = Rule("CopyIgnoredFile", "what .dockerignore excludes cannot be copied")
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "the comment right above a stage or an argument should describe it: `# NAME text`",
    experimental=True,
)
EXPOSE_PROTO_CASING = Rule("ExposeProtoCasing", "the protocol in EXPOSE should be lower case")
EXPOSE_INVALID_FORMAT = Rule("ExposeInvalidFormat", "EXPOSE should not have addresses or ports of the host")

JSON_LOOKALIKE = Rule("JSONLookalike", "what looks like a JSON array but is none is run by a shell, brackets and all")
WHITEOUT_NAME = Rule("WhiteoutName", "no file in an image can have a name that starts with .wh.")
UNKNOWN_CHOWN_USER = Rule("UnknownChownUser", "--chown by name needs a user that the image has")
BROKEN_TRIGGER = Rule("BrokenTrigger", "what ONBUILD leaves to the builds on this image should be an instruction that works")
UNKNOWN_CHECK = Rule("UnknownCheck", "`# check=` should name checks that exist")
APT_CACHE_LEFT = Rule(
    "AptCacheLeft", "what apt-get update fetches should not stay in the layer", experimental=True
)
UNPINNED_BASE = Rule("UnpinnedBase", "base images should be pinned by digest", experimental=True)

_ALL = (
    STAGE_NAME_CASING, FROM_AS_CASING, NO_EMPTY_CONTINUATION, CONSISTENT_INSTRUCTION_CASING, DUPLICATE_STAGE_NAME,
    RESERVED_STAGE_NAME, JSON_ARGS_RECOMMENDED, MAINTAINER_DEPRECATED, UNDEFINED_ARG_IN_FROM, WORKDIR_RELATIVE_PATH,
    UNDEFINED_VAR, MULTIPLE_INSTRUCTIONS_DISALLOWED, LEGACY_KEY_VALUE_FORMAT, INVALID_BASE_IMAGE_PLATFORM,
    REDUNDANT_TARGET_PLATFORM, SECRETS_USED_IN_ARG_OR_ENV, INVALID_DEFAULT_ARG_IN_FROM,
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, COPY_IGNORED_FILE, INVALID_DEFINITION_DESCRIPTION, EXPOSE_PROTO_CASING,
    EXPOSE_INVALID_FORMAT, JSON_LOOKALIKE, WHITEOUT_NAME, UNKNOWN_CHOWN_USER, BROKEN_TRIGGER, UNKNOWN_CHECK, APT_CACHE_LEFT,
    UNPINNED_BASE,
)  # fmt: skip
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _ALL}
