"""An adapter of the first contract as a channel: it sends, and returns nothing.

    kernel.attach("line", FirstContract(adapter), on_unknown="hold")

Such an adapter has `send_text`, and perhaps `send_media`, `send_document` and
`send_payload`, plain or async:

    send_text(to, text)        send_media(to, path)     a path, or an address in the web
    send_payload(to, payload)  send_document(to, path)

Of `account`, `thread`, `reply_to`, `key`, `format`, `name`, `mime`, `caption` and
`files` (paths by name) each method gets those that it has as parameters. Its return
values: specs/bridges.md.

**Weaker guarantees.** Such an adapter knows no key and no look-up: every part is `blind`,
and `attach` needs `on_unknown`. An answer without a message id counts as accepted, unless
`ids=True`. `turnfold channels` shows both.
"""

import asyncio
import inspect
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from turnfold.arguments import checked
from turnfold.enums import FailureClass, Kind
from turnfold.errors import ContractError
from turnfold.messages import File, Native, Payload, Route, Text
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    Capabilities,
    Outcome,
    Part,
    PlanContext,
    PlannedPart,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold_adapters import text as texts
from turnfold_adapters.channels.payloads import thawed

Classify = Callable[[BaseException], Outcome | None]

METHODS = MappingProxyType(
    {
        "text": "send_text",
        "media": "send_media",
        "document": "send_document",
        "payload": "send_payload",
    }
)
_OPTIONAL = (
    "account",
    "thread",
    "reply_to",
    "key",
    "format",
    "name",
    "mime",
    "caption",
    "files",
)
_CAPTION = 1_024  # characters; the lowest limit of platforms with captions
_FILES = ("media", "document")
_MEDIA = ("image/", "audio/", "video/")
_IDS = ("message_id", "messageId", "id", "ts")
_MANY = ("message_ids", "messageIds", "ids")
_NO = ("ok", "success", "delivered")  # false in an answer: a refusal


class SaidNoError(Exception):
    """The adapter reported a failure. `answer`: its unchanged answer. For
    `classify`."""

    def __init__(self, answer: object) -> None:
        super().__init__(f"the adapter answered {answer!r:.300}")
        self.answer = answer


class FirstContract:
    """`claims`: the abilities of the adapter, of "text", "media", "document" and
    "payload"; by default its own `supports`, else its methods. `classify`: returns the
    outcome for an exception, or None; an answer `{"ok": false}` becomes a SaidNoError.
    `ids`: the adapter returns message ids, and an answer without one is no acceptance.
    `limit` and `unit` of a text as in Capabilities.

    Raises ContractError if the adapter lacks a method that it claims."""

    @checked
    def __init__(
        self,
        adapter: object,
        *,
        claims: Collection[str] | Mapping[str, bool] | None = None,
        classify: Classify | None = None,
        ids: bool = False,
        limit: int | None = None,
        unit: str = "chars",
    ) -> None:
        self.adapter, self._classify, self._ids = adapter, classify, ids
        self._methods = _methods(adapter, claims)
        texts.check(limit, unit)
        self._limit, self._unit = limit, unit
        self.capabilities = Capabilities(
            limit=limit,
            unit=unit,
            gives_ids=ids,
            captions=self._captions(),
            native_files=self._native_files(),
        )

    def _native_files(self) -> bool:
        """Are files sent inside a native payload? Yes if `send_payload` takes them;
        without that method each file is a part."""
        if "payload" in self._methods:
            return "files" in self._methods["payload"][1]
        return any(how in self._methods for how in _FILES)

    def _captions(self) -> int:
        """The longest caption; 0 unless each file method takes one: then the caption
        goes out as a text before the file."""
        ways = [self._methods[how] for how in _FILES if how in self._methods]
        taken = bool(ways) and all("caption" in names for _, names in ways)
        return min(self._limit or _CAPTION, _CAPTION) if taken else 0

    # --- the plan ---

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """A long text in pieces, each file on its own, for every kind of entry. A
        native payload goes whole to `send_payload`. Without that method its text and
        files are sent, and a payload with neither is refused."""
        del kind, context  # a final is split like everything else
        if not isinstance(payload, Native) or "payload" in self._methods:
            return texts.plan(payload, self._limit, self._unit)
        said, media = payload.body.get("text"), _media(payload.body)
        parts: list[PlannedPart] = []
        if isinstance(said, str) and said:
            parts += texts.plan(Text(said), self._limit, self._unit)
        parts += [PlannedPart(payload=_only(url), kind="native") for url in media]
        files = payload.files.values()
        parts += [PlannedPart(payload=file, kind="file") for file in files]
        if not parts:
            problem = "it has no send_payload, and this payload no words and no files"
            raise ContractError(channel=route.channel, problem=problem)
        return parts

    # --- one call ---

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """One call of the adapter."""
        del attempt
        payload, route = part.payload, part.route
        facts = {
            "account": route.account,
            "thread": route.thread,
            "reply_to": route.reply_to,
            "key": key,
        }
        answer = await self._send(payload, route, facts)
        return self._outcome(answer, route)

    async def _send(
        self, payload: Payload, route: Route, facts: dict[str, Any]
    ) -> object:
        match payload:
            case Text():
                more = facts | {"format": str(payload.format)}
                return await self._call("text", route, payload.text, more)
            case File():
                return await self._send_file(payload, route, facts)
            case Native():
                return await self._send_native(payload, route, facts)

    async def _send_native(
        self, payload: Native, route: Route, facts: dict[str, Any]
    ) -> object:
        if "payload" in self._methods and not payload.files:
            return await self._call("payload", route, thawed(payload.body), facts)
        if "payload" in self._methods:
            with tempfile.TemporaryDirectory(prefix="turnfold-") as folder:
                files = await asyncio.to_thread(_written, payload.files, Path(folder))
                more = facts | {"files": files}
                return await self._call("payload", route, thawed(payload.body), more)
        (url,) = _media(payload.body)  # as planned
        how = "media" if "media" in self._methods else "document"
        return await self._call(how, route, url, facts)

    async def _send_file(
        self, file: File, route: Route, facts: dict[str, Any]
    ) -> object:
        """Send a file. The bytes are the queue's own copy. The adapter gets a temporary
        file of the same name, which exists during the call."""
        with tempfile.TemporaryDirectory(prefix="turnfold-") as folder:
            path = Path(folder) / (file.name or "file")
            await asyncio.to_thread(path.write_bytes, file.data or b"")
            more = facts | {"name": file.name, "mime": file.mime}
            more |= {"caption": file.caption} if file.caption else {}
            return await self._call(self._how(file), route, str(path), more)

    def _how(self, file: File) -> str:
        """The method for a file: `send_media` for images, audio and video, else
        `send_document`; if one is missing, the other."""
        wanted = "media" if file.mime.startswith(_MEDIA) else "document"
        other = {"media": "document", "document": "media"}[wanted]
        return wanted if wanted in self._methods else other

    async def _call(
        self, how: str, route: Route, what: object, facts: Mapping[str, Any]
    ) -> object:
        if how not in self._methods:
            return Rejected(
                failure=FailureClass.INVALID_PAYLOAD,
                detail=f"the adapter has no {METHODS[how]}",
            )
        method, taken = self._methods[how]
        given = {name: facts[name] for name in taken if name in facts}
        if inspect.iscoroutinefunction(inspect.unwrap(method)):
            return await method(route.conversation, what, **given)
        answer = await asyncio.to_thread(method, route.conversation, what, **given)
        return await answer if inspect.isawaitable(answer) else answer

    # --- the meaning of an answer ---

    def _outcome(self, answer: object, route: Route) -> Outcome:
        if isinstance(answer, Accepted | Rejected | Unknown):
            return answer
        if answer is False or any(_of(answer, name) is False for name in _NO):
            return self.classify(SaidNoError(answer)) or _refused(answer)
        ids = tuple([i for i in _ids(answer) if i not in _places(route)])
        return Accepted(receipt=Receipt(ids=ids))

    def classify(self, exception: BaseException) -> Outcome | None:
        """The outcome for an exception, by the caller's `classify`; None: unknown."""
        return None if self._classify is None else self._classify(exception)

    async def aclose(self) -> None:
        """Close the adapter, if it can be closed."""
        close = getattr(self.adapter, "aclose", None)
        if callable(close):
            await close()


def _written(files: Mapping[str, File], folder: Path) -> dict[str, str]:
    """The paths of files, each under its own name in a folder of its own."""
    paths = {name: folder / name / (file.name or name) for name, file in files.items()}
    for name, path in paths.items():
        path.parent.mkdir()
        path.write_bytes(files[name].data or b"")
    return {name: str(path) for name, path in paths.items()}


# --- the methods of the adapter ---

_Method = tuple[Callable[..., Any], tuple[str, ...]]


def _methods(adapter: object, claims: Collection[str] | None) -> dict[str, _Method]:
    if isinstance(adapter, type):
        raise _error(adapter, "is a class; give an object of it")
    if claims is None:
        claims = getattr(adapter, "supports", None)
    if claims is None:
        claims = [how for how, name in METHODS.items() if hasattr(adapter, name)]
    if isinstance(claims, Mapping):
        claims = [how for how, said in claims.items() if said]
    found = {how: _method(adapter, how) for how in dict.fromkeys([*claims, "text"])}
    # A method that the adapter has and does not claim is still used, so no payload is
    # lost.
    if hasattr(adapter, METHODS["payload"]):
        found["payload"] = _method(adapter, "payload")
    return found


def _method(adapter: object, how: object) -> _Method:
    if how not in METHODS:
        raise _error(
            adapter, f"claims {how!r:.40}, which is none of {', '.join(METHODS)}"
        )
    name = METHODS[str(how)]
    method = getattr(adapter, name, None)
    if not callable(method):
        raise _error(adapter, f"claims {how} but has no {name}()")
    try:
        signature = inspect.signature(method)
        signature.bind("to", "what")
    except (TypeError, ValueError) as exc:
        raise _error(adapter, f"{name}() cannot be called as {name}(to, what)") from exc
    return method, _taken(signature)


def _taken(signature: inspect.Signature) -> tuple[str, ...]:
    """The optional arguments that a method takes."""
    parameters = list(signature.parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return _OPTIONAL
    first_two = {p.name for p in parameters[:2]}
    keyed = [
        p.name
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return tuple([n for n in _OPTIONAL if n in keyed and n not in first_two])


def _error(adapter: object, problem: str) -> ContractError:
    kind = adapter if isinstance(adapter, type) else type(adapter)
    return ContractError(channel=kind.__qualname__, problem=problem)


# --- payloads and answers ---


def _media(body: Mapping[str, Any]) -> list[str]:
    """Every file of a payload, each once: `mediaUrl` is often the first of `mediaUrls`."""
    many = body.get("mediaUrls")
    several = list(many) if isinstance(many, list | tuple) else []
    named = [body.get("mediaUrl"), *several]
    return list(dict.fromkeys(url for url in named if isinstance(url, str) and url))


def _only(url: str) -> Native:
    return Native({"mediaUrl": url})


def _of(answer: object, name: str) -> object:
    if isinstance(answer, Mapping):
        return answer.get(name)
    return None if isinstance(answer, str) else getattr(answer, name, None)


def _ids(answer: object) -> list[str]:
    """The ids of messages in an answer, as texts."""
    if isinstance(answer, list | tuple):
        return [text for item in answer for text in _ids(item)]
    if isinstance(answer, str) or type(answer) is int:
        return [str(answer)] if answer != "" else []
    for name in _MANY:
        found = _of(answer, name)
        if isinstance(found, list | tuple):
            return _ids(found)
    named = (_of(answer, name) for name in _IDS)
    first = next((i for i in named if isinstance(i, str | int) and i != ""), None)
    return [] if first is None or isinstance(first, bool) else [str(first)]


def _places(route: Route) -> tuple[str | None, ...]:
    """Ids that cannot be message ids: those of the conversation itself."""
    return (route.conversation, route.thread, route.account)


def _refused(answer: object) -> Rejected:
    """The outcome of a refusal without a reason."""
    why = _of(answer, "error") or _of(answer, "detail") or "the adapter said no"
    wait = _of(answer, "retry_after_ms")
    if isinstance(wait, int) and not isinstance(wait, bool):
        failure = FailureClass.RATE_LIMITED
        return Rejected(failure=failure, detail=str(why), retry_after_ms=wait)
    again = _of(answer, "retryable") is True
    failure = FailureClass.TRANSIENT if again else FailureClass.INVALID_PAYLOAD
    return Rejected(failure=failure, detail=str(why))
