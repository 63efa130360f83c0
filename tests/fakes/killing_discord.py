"""Discord as a platform to be killed on: our FAKE of it. Users write in channels of a
server, and in a private chat that the bot knows: nobody lists private chats to a bot, so
one that writes for the first time while the bot is down is not heard."""

from typing import Self

from .fake_discord import TOKEN, FakeDiscord, Fault

PRIVATE = 4


class Discord:
    def __init__(self) -> None:
        self.api = FakeDiscord()
        self.greeted = False
        self.api.rooms.open.discard(str(PRIVATE))
        self.api.rooms.private.add(str(PRIVATE))

    def __enter__(self) -> Self:
        self.api.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.api.stop()

    def facts(self) -> dict[str, str]:
        where = {"BOT_API": self.api.base_url, "BOT_GATEWAY": self.api.gateway}
        return {"BOT_TOKEN": TOKEN, **where}

    def listened(self) -> bool:
        if self.api.sessions and not self.greeted:
            self.greeted = True
            self.api.says(PRIVATE, "hello")
        return bool(self.api.texts())

    def says(self, chat: int, text: str) -> None:
        self.api.says(chat, text)

    def calls(self) -> int:
        return len(self.api.calls)

    def texts(self) -> list[str]:
        return self.api.texts()

    def cut(self) -> None:
        self.api.script(Fault.CUT_AFTER)

    def limit(self) -> None:
        self.api.script(Fault.RATE_LIMITED)
