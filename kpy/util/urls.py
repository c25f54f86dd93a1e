"""URLs as text: taken apart and put together. Opens nothing, so that pure code may use it."""

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

__all__ = ["SplitResult", "parse_qsl", "unquote", "urlsplit", "urlunsplit"]
