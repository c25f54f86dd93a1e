"""The patterns of `${v#p}` `${v%p}` `${v/p/r}` (X05-X08): `*` any text, `?` any character, `\\*` `\\?` `\\\\` literal.

No brackets. A pattern is cut at its stars into pieces; the leftmost place of a piece is always good enough, so nothing
is tried twice and no pattern is slow. (BuildKit's stars do not match a line feed; those of shells and these do.)
"""

from typing import TypeAlias

_ANY = ""
_MOST_STEPS = 1 << 25  # of ours, each at a place of the value and of the pattern
_MOST_COMPARED = 1 << 32  # characters, by str.rfind
Piece: TypeAlias = tuple[str, ...]


class PatternError(ValueError):
    """The pattern has an escape that means nothing."""


class TooLongError(ValueError):
    """The result would be longer than it may be."""


def _pieces(pattern: str, value: str) -> list[Piece]:
    """The characters between the stars; `_ANY` for `?`. Raises PatternError also for what would take minutes."""
    if len(pattern) * len(value) > (_MOST_STEPS if "?" in pattern else _MOST_COMPARED):
        raise PatternError("it is too long for such a long value")
    found: list[list[str]] = [[]]
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            found.append([])
        elif character == "?":
            found[-1].append(_ANY)
        elif character == "\\":
            escaped = pattern[position : position + 1]
            position += 1
            # The lexer leaves the escapes of `}` and `/`, which are not of the pattern.
            if escaped not in ("*", "?", "\\", "}", "/") or not escaped:
                raise PatternError(f"invalid escape '\\{escaped}'")
            found[-1].append(escaped)
        else:
            found[-1].append(character)
    return [tuple(piece) for piece in found]


def _at(piece: Piece, value: str, position: int) -> bool:
    part = value[position : position + len(piece)]
    return len(part) == len(piece) and all(
        want in (_ANY, have) for want, have in zip(piece, part, strict=True)
    )


def _find(piece: Piece, value: str, begin: int) -> int:
    """The leftmost place of the piece, -1 if there is none."""
    if _ANY not in piece:
        return value.find("".join(piece), begin)
    return next((at for at in range(begin, len(value) - len(piece) + 1) if _at(piece, value, at)), -1)


def _find_last(piece: Piece, value: str, begin: int) -> int:
    if _ANY not in piece:
        return value.rfind("".join(piece), begin)
    return next((at for at in range(len(value) - len(piece), begin - 1, -1) if _at(piece, value, at)), -1)


def _rest(pieces: list[Piece], value: str, position: int, *, longest: bool) -> int:
    """Where a match ends whose first piece ended at `position`; -1 if there is no match."""
    for number, piece in enumerate(pieces, 1):
        last = longest and number == len(pieces)
        place = (_find_last if last else _find)(piece, value, position)
        if place < 0:
            return -1
        position = place + len(piece)
    return position


def _prefix(pieces: list[Piece], value: str, *, longest: bool) -> int:
    """The length of the prefix that matches, 0 if none does."""
    if not _at(pieces[0], value, 0):
        return 0
    return max(0, _rest(pieces[1:], value, len(pieces[0]), longest=longest))


def trim(value: str, pattern: str, *, suffix: bool, longest: bool) -> str:
    """Cut off the prefix or suffix that matches. Raises PatternError."""
    pieces = _pieces(pattern, value)
    if not suffix:
        return value[_prefix(pieces, value, longest=longest) :]
    turned = [piece[::-1] for piece in reversed(pieces)]
    return value[: len(value) - _prefix(turned, value[::-1], longest=longest)]


def replace(value: str, pattern: str, replacement: str, *, every: bool, limit: int) -> str:
    """Replace the first match, or every one. The longest match counts. Raises PatternError, TooLongError for more than
    `limit` characters."""
    pieces = _pieces(pattern, value)
    result: list[str] = []
    room = limit - len(value)
    position, matched_to = 0, -1
    while position <= len(value):
        begin = _find(pieces[0], value, position)
        end = _rest(pieces[1:], value, begin + len(pieces[0]), longest=True) if begin >= 0 else -1
        if end < 0:
            break
        result.append(value[position:begin])
        # As in Go, an empty match right behind another match does not count.
        if end > begin or begin != matched_to:
            result.append(replacement)
            room += end - begin - len(replacement)
            if room < 0:
                raise TooLongError
        matched_to = position = end
        if end == begin:
            result.append(value[end : end + 1])
            position += 1
        if not every:
            break
    return "".join(result) + value[position:]
