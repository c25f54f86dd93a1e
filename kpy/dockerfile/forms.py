"""How an instruction's text is cut: keyword, builder flags, JSON arrays, words, `name=value` pairs (P10, P11, P13).

Works on one logical line. Knows neither instructions nor spans: a mistake is a `FormError`, which the parser puts in
its place in the file.
"""

import json
import re

from kpy.errors import KpyError

# unicode.IsSpace of Go; Python's str.strip() would also take U+001C..U+001F.
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)
_SPACES = frozenset(SPACE)
_BLANKS = re.compile("[\t\v\f\r ]+")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class FormError(KpyError):
    """An instruction's text, or a word of it, has the wrong form. The caller knows where, and says it."""

    exit_code = 3


def split_keyword(line: str) -> tuple[str, str]:
    """The keyword as written, and all that follows it."""
    parts = _BLANKS.split(line.strip(SPACE), maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def split_flags(text: str) -> tuple[list[str], str]:
    """Builder flags (`--name`, `--name=value`, quotes and `\\` removed) at the start, and the rest (P10).

    `--` alone ends the flags and is dropped.
    """
    flags: list[str] = []
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in _SPACES:
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:].strip(SPACE)
        word, position = _flag_word(text, position)
        if word == "--":
            return flags, text[position:].strip(SPACE)
        flags.append(word)


def _flag_word(text: str, position: int) -> tuple[str, int]:
    """One word with its quotes removed, and where it ends."""
    word: list[str] = []
    quote, end = "", len(text)
    while position < end:
        character = text[position]
        if not quote and character in _SPACES:
            break
        position += 1
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character == "\\":
            # The escape directive is not heeded here (BuildKit, parser/split_command.go).
            word.append(text[position : position + 1])
            position += 1
        else:
            word.append(character)
    return "".join(word), min(position, end)


def split_blanks(text: str) -> list[str]:
    """A list of words without quoting: EXPOSE, FROM, and COPY, ADD, VOLUME that are not JSON."""
    return _BLANKS.split(text) if text else []


def json_array(text: str) -> list[str] | None:
    """The strings of a JSON array, None if the text is not a JSON array. Raises FormError for other elements (P11)."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text, parse_constant=_reject, parse_int=float)
    except ValueError:
        return None
    except RecursionError:
        found = [None]  # arrays in arrays in arrays
    if not all(isinstance(item, str) for item in found):
        raise FormError(
            "failed to read the JSON form: the array must hold strings only",
            hint="put every argument in double quotes",
        )
    if any("\0" in item for item in found):
        raise FormError("invalid JSON form: a string holds a NUL character")
    # encoding/json makes U+FFFD of half a surrogate pair; nothing could encode it later.
    return [_LONE_SURROGATE.sub("\ufffd", item) for item in found]


def _reject(constant: str) -> None:
    """NaN and Infinity are Python's, not JSON."""
    raise ValueError(constant)


def split_words(text: str, escape: str) -> list[str]:
    """Words of ENV, LABEL and ARG. Quotes and escapes are kept, for the expansion to handle (A14)."""
    words: list[str] = []
    word: list[str] = []
    quote, started, position, end = "", False, 0, len(text)
    while position < end:
        character = text[position]
        position += 1
        if not quote and character in _SPACES:
            if started or word:
                words.append("".join(word))
            word, started = [], False
            continue
        if quote:
            if character == quote:
                quote = ""
        elif character in "'\"":
            quote, started = character, True
        if character == escape and quote != "'":
            if position == end:
                break  # an escape at the end of the line is dropped
            word.append(character)
            character = text[position]
            position += 1
        word.append(character)
    if started or word:
        words.append("".join(word))
    return words


def split_pairs(text: str, keyword: str, escape: str) -> tuple[list[tuple[str, str]], bool]:
    """The pairs of ENV and LABEL, and whether it is the legacy form `ENV key rest of line` (A14)."""
    words = split_words(text, escape)
    if not words:
        raise FormError(f"{keyword} requires at least one argument")
    if "=" not in words[0]:
        parts = _BLANKS.split(text, maxsplit=1)
        if len(parts) < 2:
            raise FormError(f"{keyword} must have two arguments", hint=f"write {keyword} {parts[0]}=value")
        return [(parts[0], parts[1])], True
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise FormError(
                f"syntax error: can't find = in {word!r}, it must be of the form name=value",
                hint="quote values with spaces; a comment needs a line of its own",
            )
        if not key:
            raise FormError(f"{keyword} names can not be blank")
        pairs.append((key, value))
    return pairs, False
