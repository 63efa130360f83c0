"""Markdown as the HTML that Telegram knows: no lists, headings or tables, but characters
and bold words that look like them."""

from collections.abc import Iterator, Sequence
from html import escape

from markdown_it.token import Token

from turnfold_adapters.text.markdown import parser
from turnfold_adapters.text.markdown_inline import visible_inline

_INLINE = {"strong": "b", "em": "i", "s": "s"}
_RULE = "\u2014" * 3


def telegram_html(source: str) -> str:
    r"""
    >>> telegram_html("# A\n\n*b*")
    '<b>A</b>\n\n<i>b</i>'
    """
    return "".join(_blocks(parser().parse(source, {}))).strip("\n")


_BLOCKS = {  # the characters at a block's begin and end
    "heading_open": "<b>",
    "heading_close": "</b>\n\n",
    "blockquote_open": "<blockquote>",
    "blockquote_close": "</blockquote>\n",
    "hr": f"{_RULE}\n\n",
    "th_close": " | ",
    "td_close": " | ",
    "tr_close": "\n",
    "table_close": "\n",
}
_LISTS = ("bullet_list", "ordered_list")


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    depth = 0  # of lists
    for token in tokens:
        kind = token.type
        if kind == "inline":
            yield from _inline(token.children or ())
        elif kind in ("fence", "code_block"):
            yield _code(token)
        elif kind == "paragraph_close":
            yield "\n" if token.hidden else "\n\n"
        elif kind == "list_item_open":
            mark = f"{token.info}." if token.info else "\u2022"
            yield "   " * (depth - 1) + f"{mark} "
        elif kind.startswith(_LISTS):
            depth += token.nesting
            yield "\n" if depth == 0 else ""
        else:
            yield _BLOCKS.get(kind, "")


def _code(token: Token) -> str:
    words = token.info.split()
    language = f' class="language-{escape(words[0])}"' if words else ""
    code = escape(token.content.removesuffix("\n"), quote=False)
    return f"<pre><code{language}>{code}</code></pre>\n"


def _inline(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        name, _, side = token.type.partition("_")
        if name in _INLINE and side in ("open", "close"):
            yield f"<{'/' if side == 'close' else ''}{_INLINE[name]}>"
        elif token.type == "link_open":
            yield f'<a href="{escape(str(token.attrGet("href") or ""))}">'
        elif token.type == "link_close":
            yield "</a>"
        elif token.type == "image":
            words = visible_inline(token.children or ()) or "image"
            address = escape(str(token.attrGet("src") or ""))
            yield f'<a href="{address}">{escape(words, quote=False)}</a>'
        elif token.type in ("softbreak", "hardbreak"):
            yield "\n"
        else:
            code = token.type == "code_inline"
            shown = escape(token.content, quote=False)
            yield f"<code>{shown}</code>" if code else shown
