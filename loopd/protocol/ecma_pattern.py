"""Patterns of JSON Schema as ECMA-262 reads them, on Python's `re`: the reading of `\\d`, `\\s` and `$` differs."""

import re
from functools import cache

_ECMA_SPACE = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_TOKEN = re.compile(r"\\.|\$|\[\^?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_OUTSIDE_CLASS = {r"\d": "[0-9]", r"\s": f"[{_ECMA_SPACE}]", r"\S": f"[^{_ECMA_SPACE}]", "$": r"\Z"}


def ecma_search(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text."""
    return _compiled(pattern).search(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(map(_translated, _TOKEN.findall(pattern))))


def _translated(token: str) -> str:
    if token.startswith("["):
        # Inside brackets only `\d` needs care: `\s` occurs beside `\S` alone, where together they are anything.
        return token.replace(r"\d", "0-9")
    return _OUTSIDE_CLASS.get(token, token)
