"""Slack as a platform to be killed on: our FAKE of Slack."""

from typing import Self

from .fake_slack import APP_TOKEN, TOKEN, FakeSlack, Fault


class Slack:
    def __init__(self, slack: FakeSlack | None = None) -> None:
        self.slack = slack or FakeSlack()

    def __enter__(self) -> Self:
        self.slack.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.slack.stop()

    def facts(self) -> dict[str, str]:
        address = self.slack.base_url
        return {"BOT_TOKEN": TOKEN, "APP_TOKEN": APP_TOKEN, "BOT_API": address}

    def listened(self) -> bool:
        return True  # what nobody answered comes again

    def says(self, chat: int, text: str) -> None:
        self.slack.says(f"C{chat}", text)

    def calls(self) -> int:
        return len(self.slack.calls)

    def texts(self) -> list[str]:
        return self.slack.texts()

    def cut(self) -> None:
        self.slack.script(Fault.CUT_AFTER)

    def limit(self) -> None:
        self.slack.script(Fault.RATE_LIMITED)
