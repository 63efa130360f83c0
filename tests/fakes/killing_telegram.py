"""Telegram as a platform to be killed on: our FAKE Bot API."""

from typing import Self

from .fake_bot_api import TOKEN, FakeBotApi, Fault


class Telegram:
    def __init__(self) -> None:
        self.api = FakeBotApi()

    def __enter__(self) -> Self:
        self.api.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.api.stop()

    def facts(self) -> dict[str, str]:
        return {"BOT_TOKEN": TOKEN, "BOT_API": self.api.base_url}

    def listened(self) -> bool:
        return True  # updates wait

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
