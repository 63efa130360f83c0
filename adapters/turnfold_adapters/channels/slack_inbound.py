"""Events of Slack as inbound messages. Pure; no input makes it raise.

Slack may report one act of a user by several events: `message` and `app_mention`, with
different ids and even time stamps. So a message is identified by its `client_msg_id`,
if it has one, else by its channel and time stamp; and its body holds only what all of
these events have in common. Then they have one key and the same bytes, and the kernel
drops the second one, also in another process. Any other event is identified by its
`event_id`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from turnfold.inbound import Inbound
from turnfold_adapters.channels.slack_content import is_ts

Body = Mapping[str, Any]
_MESSAGES = ("message", "app_mention")
_MEMBERSHIP = ("member_joined_channel", "member_left_channel")
# A message, though it has a subtype.
_PLAIN = (None, "file_share", "thread_broadcast", "me_message", "bot_message")
_LONGEST = 255
# What the events of one act have in common. Never the time stamp, the id or the type.
_ENVELOPE = ("team_id", "api_app_id")
_PERSON = ("user", "bot_id", "username")
_EVENT = ("client_msg_id", "thread_ts", "text", "blocks", "attachments")
_FILE = ("id", "name", "title", "mimetype", "size", "url_private", "permalink")


@frozen(kw_only=True)
class Names:
    """This bot's names in the kernel, and those that Slack gives it."""

    channel: str
    account: str
    ids: frozenset[str] = frozenset()


def inbound_of(body: Body, names: Names) -> Inbound:
    """The inbound message of a payload of the Events API, or of Socket Mode.

    The `body` of a message has what its events have in common (see the module), with
    its `text` beside it, without Slack's escapes; `mentioned`: it names this bot;
    `direct`: it was written to the bot alone. The id of a message is its time stamp. An
    edit is an event `edit` of that id, with a revision. A deletion is an event
    `delete`; any other event goes by its own name and has no message id. Their body is
    the unchanged payload, with `text` beside it."""
    event = event_of(body)
    if event.get("type") not in _MESSAGES or not is_ts(_id(event.get("ts"))):
        return _other(body, event, names)
    subtype = event.get("subtype")
    if subtype in _PLAIN:
        edited = _id(_inner(event, "edited").get("ts"))
        return (
            _changed(body, event, event, names)
            if edited
            else _message(body, event, names)
        )
    if subtype == "message_changed" and is_ts(_id(_inner(event).get("ts"))):
        return _changed(body, event, _inner(event), names)
    if subtype == "message_deleted" and is_ts(_id(event.get("deleted_ts"))):
        return _deleted(body, event, names)
    return _other(body, event, names)


def event_of(body: Body) -> Body:
    """The event in a payload; a payload without one (a command, a button) is its own."""
    event = body.get("event")
    return event if isinstance(event, dict) else body


def authors(body: Body) -> set[str]:
    """The authors of the message of an event, and of its change: users and bots."""
    event = event_of(body)
    found = (
        inner.get(name)
        for inner in (event, _inner(event), _inner(event, "previous_message"))
        for name in ("user", "bot_id")
    )
    return {str(who) for who in found if isinstance(who, str)}


def is_news(body: Body) -> bool:
    """False for a change without a user: a link preview, a new reply in a thread."""
    event = event_of(body)
    if event.get("subtype") != "message_changed":
        return True
    edited = _inner(event).get("edited")
    return bool(edited) and edited != _inner(event, "previous_message").get("edited")


def is_ours(body: Body, ours: frozenset[str]) -> bool:
    """Did this bot cause the event? An invitation or removal of the bot is news, and
    counts as no."""
    joined = event_of(body).get("type") in _MEMBERSHIP
    return not joined and bool(ours & authors(body))


def _message(body: Body, event: Body, names: Names) -> Inbound:
    ts, thread = _id(event.get("ts")), _id(event.get("thread_ts"))
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_id(event.get("channel")) or "unknown",
        message_id=ts,
        key=_key(event),
        thread=thread if is_ts(thread) else None,
        sender=_sender(event),
        sent_at=_ms(ts),
        body=_shared(body, event, names, channel=event.get("channel")),
    )


def _changed(body: Body, event: Body, inner: Body, names: Names) -> Inbound:
    """`inner`: the message as it is now. An edit that names the bot comes as an
    `app_mention` as well, with the message itself as the event."""
    thread = _id(inner.get("thread_ts"))
    edited = _id(_inner(inner, "edited").get("ts")) or _id(event.get("ts"))
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_id(event.get("channel")) or "unknown",
        message_id=_id(inner.get("ts")),
        event="edit",
        revision=edited,
        edits=_key(inner),
        thread=thread if is_ts(thread) else None,
        sender=_sender(inner),
        sent_at=_ms(edited),
        body=_shared(body, inner, names, channel=event.get("channel")),
    )


def _key(message: Body) -> str | None:
    """The dedupe key of a message whose author's program gave it an id."""
    sender, client = _sender(message), _id(message.get("client_msg_id"))
    return f"{sender}:{client}" if client and sender else None


def _deleted(body: Body, event: Body, names: Names) -> Inbound:
    inner = _inner(event, "previous_message")
    thread = _id(inner.get("thread_ts"))
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_id(event.get("channel")) or "unknown",
        message_id=_id(event.get("deleted_ts")),
        event="delete",
        edits=_key(inner),
        thread=thread if is_ts(thread) else None,
        sender=_sender(inner),
        sent_at=_ms(_id(event.get("ts"))),
        body=_with_text(body, ""),
    )


def _other(body: Body, event: Body, names: Names) -> Inbound:
    """The inbound message of a reaction, a command or a button. Its conversation is the
    named channel, else the user. `trigger_id` names a command or a button press."""
    kinds = (event.get("subtype"), event.get("type"), event.get("command"))
    known = (body.get("event_id"), event.get("trigger_id"), event.get("event_ts"))
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_place(event) or _sender(event) or "unknown",
        message_id=None,
        event=next((_id(one) for one in kinds if _id(one)), None) or "unknown",
        key=next((_id(one) for one in known if _id(one)), None),
        sender=_sender(event),
        body=_with_text(body, event.get("text")),
    )


def _place(event: Body) -> str | None:
    item = event.get("item")
    channels = (
        event.get("channel"),
        event.get("channel_id"),
        item.get("channel") if isinstance(item, dict) else None,
    )
    for channel in channels:
        found = _id(channel.get("id") if isinstance(channel, dict) else channel)
        if found:
            return found
    return None


def _sender(event: Body) -> str | None:
    for name in ("user", "user_id", "bot_id"):
        who = event.get(name)
        found = _id(who.get("id") if isinstance(who, dict) else who)
        if found:
            return found
    return None


def _inner(event: Body, name: str = "message") -> Body:
    inner = event.get(name)
    return inner if isinstance(inner, dict) else {}


def _shared(body: Body, message: Body, names: Names, *, channel: object) -> Body:
    """What all events of one act have in common. `channel` is not in a changed
    message."""
    event = _of(message, (*_PERSON, *_EVENT))
    files = message.get("files")
    if isinstance(files, list):
        event["files"] = [_of(one, _FILE) for one in files if isinstance(one, dict)]
    place = _id(channel)
    shared = {
        **_of(body, _ENVELOPE),
        "event": {"type": "message", "channel": place, **event},
        "mentioned": _mentions(event, names.ids),
        "direct": place is not None and place.startswith("D"),
    }
    return _with_text(shared, message.get("text"))


def _of(given: Body, names: Sequence[str]) -> dict[str, Any]:
    """These fields, in one order."""
    found = {name: given[name] for name in names if name in given}
    ordered: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))
    return ordered


def _mentions(event: Body, ids: frozenset[str]) -> bool:
    """Slack writes a mention into the text as <@U1> or <@U1|name>, into a block as a
    `user_id`."""
    said = json.dumps([event.get(name) for name in ("text", "blocks", "attachments")])
    return any(
        form in said
        for one in ids
        for form in (f"<@{one}>", f"<@{one}|", f'"user_id": "{one}"')
    )


def _with_text(body: Body, text: object) -> Body:
    return {**body, "text": _unescaped(text) if isinstance(text, str) else ""}


def _unescaped(text: str) -> str:
    """The typed text. Mentions and links stay in Slack's form.

    >>> _unescaped("a &lt; b &amp;&amp; <@U1>")
    'a < b && <@U1>'
    """
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _ms(ts: str | None) -> int | None:
    return int(float(ts) * 1000) if ts is not None and is_ts(ts) else None


def _id(value: object) -> str | None:
    """An id as text."""
    good = isinstance(value, str) and 0 < len(value) <= _LONGEST
    return value if good and isinstance(value, str) and value.isprintable() else None
