"""What the fake of Discord refuses, as the official pages have it."""

import json
import re
from typing import Any

from aiohttp import web


class ApiError(Exception):
    """A refusal: status, code and message of the answer, and its headers."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        more: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.body = {"message": message, "code": code, **(more or {})}

    @classmethod
    def limit(cls, wait_s: float, scope: str) -> "ApiError":
        headers = {"Retry-After": str(round(wait_s + 0.5)), "X-RateLimit-Scope": scope}
        more = {"retry_after": wait_s, "global": scope == "global"}
        return cls(429, 0, "You are being rate limited.", more, headers)

    @classmethod
    def form(cls, field: str, code: str, message: str) -> "ApiError":
        errors = {field: {"_errors": [{"code": code, "message": message}]}}
        return cls(400, 50035, "Invalid Form Body", {"errors": errors})

    def answer(self) -> web.Response:
        return json_answer(self.body, self.status, self.headers)


def json_answer(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """discord.py reads a body as JSON if the type is this and nothing else."""
    raw, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    return web.Response(body=raw, status=status, headers={**kind, **(headers or {})})


class Rooms:
    """Channels of one server, and private ones. A thread is a channel."""

    def __init__(self) -> None:
        self.open = {str(number) for number in range(1, 100)}
        self.private: set[str] = set()
        self.gone: set[str] = set()
        self.forbidden: set[str] = set()  # to write to
        self.unreadable: set[str] = set()
        self.locked: set[str] = set()

    def check(self, channel: str, *, read: bool = False) -> None:
        if channel in self.gone or channel not in self.open | self.private:
            raise ApiError(404, 10003, "Unknown Channel")
        if channel in (self.unreadable if read else self.forbidden):
            raise ApiError(403, 50013, "Missing Permissions")
        if channel in self.locked and not read:
            raise ApiError(400, 160005, "This thread is locked")

    def guild(self, guild_id: str, newest: dict[str, str]) -> dict[str, Any]:
        """As GUILD_CREATE has it, in the fields that discord.py asks for."""
        everyone = {
            "id": guild_id,
            "name": "@everyone",
            "color": 0,
            "colors": {
                "primary_color": 0,
                "secondary_color": None,
                "tertiary_color": None,
            },
            "hoist": False,
            "position": 0,
            "permissions": "0",
            "managed": False,
            "mentionable": False,
            "flags": 0,
        }
        channels = [
            {
                "id": channel,
                "type": 0,
                "name": f"room{channel}",
                "position": 0,
                "permission_overwrites": [],
                "parent_id": None,
                "last_message_id": newest.get(channel),
            }
            for channel in sorted(self.open - self.gone)
        ]
        empty = ("emojis", "stickers", "features", "members", "presences", "threads")
        more = ("voice_states", "stage_instances", "guild_scheduled_events")
        return {
            "id": guild_id,
            "name": "a server",
            "owner_id": "1",
            "member_count": 2,
            "large": False,
            "unavailable": False,
            "roles": [everyone],
            "channels": channels,
            **{name: [] for name in (*empty, *more, "soundboard_sounds")},
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "mfa_level": 0,
            "afk_timeout": 0,
            "premium_tier": 0,
            "nsfw_level": 0,
            "system_channel_flags": 0,
            "preferred_locale": "en-US",
            "premium_progress_bar_enabled": False,
        }


def check_message(
    given: dict[str, Any], files: dict[str, bytes], known: set[str]
) -> None:
    content = given.get("content") or ""
    if len(content) > 2000:
        words = "Must be 2000 or fewer in length."
        raise ApiError.form("content", "BASE_TYPE_MAX_LENGTH", words)
    if len(str(given.get("nonce", ""))) > 25:
        words = "Must be 25 or fewer in length."
        raise ApiError.form("nonce", "NONCE_TOO_LONG", words)
    if not content.strip() and not files and not given.get("embeds"):
        raise ApiError(400, 50006, "Cannot send an empty message")
    if len(given.get("attachments") or files) != len(files):
        raise ApiError(400, 50035, "Invalid Form Body: attachments")
    for named in re.findall(r'"attachment://([^"]*)"', json.dumps(given)):
        if named not in files:
            words = "Referenced attachment not found"
            raise ApiError.form("embeds", "ATTACHMENT_NOT_FOUND", words)
    quoted = given.get("message_reference") or {}
    strict = quoted.get("fail_if_not_exists", True)
    if quoted and strict and quoted["message_id"] not in known:
        words = "Unknown message"
        raise ApiError.form("message_reference", "REPLIES_UNKNOWN_MESSAGE", words)
