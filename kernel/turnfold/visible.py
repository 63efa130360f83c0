"""Foreign text made safe for a screen: no character moves a cursor, changes the
direction of writing, or hides.

The set is written out, so that two versions of Python escape the same: controls (C0,
DEL, C1), format characters with the marks of direction, separators of lines and
paragraphs, zero-width and blank letters, tags, private use, and noncharacters. The two
variation selectors that choose the look of an emoji stay.
"""

import re

_HIDDEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\U000f0000-\U0010ffff"
)
_ANY = re.compile(f"[{_HIDDEN}]")
_NOT_IN_JSON = re.compile(f"[{_HIDDEN.removeprefix(chr(0) + '-' + chr(31))}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(text: str) -> str:
    """The text on one line, each hidden character as Python's `repr` shows it."""
    return _ANY.sub(_escaped, text)


def shown_json(text: str) -> str:
    """JSON with the same value and each hidden character escaped; the JSON encoder
    itself has escaped those below U+0020."""
    return _NOT_IN_JSON.sub(_json_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
