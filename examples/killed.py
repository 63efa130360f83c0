"""Kill an example bot again and again, and count by the platform's side.

    python -m examples.killed telegram --messages 100 --kills 20 --seed 1 --json

`telegram` and `ptb` play `examples/telegram/echo.py` and `examples/ptb/bot.py` on the
FAKE Bot API of the tests, `discord` plays `examples/discord/echo.py` on the FAKE of
Discord, `slack` and `bolt` their examples on the FAKE of Slack, `matrix` plays
`examples/matrix/echo.py` on a real Synapse, which is installed on first use, `asgi` plays
`examples/asgi/orders.py` on uvicorn. `--faults`: 4 % of the calls are cut after
acceptance, 4 % are refused by a rate limit. `--plain`: the bot as its authors write it,
without turnfold; of Telegram and Slack it is the application of python-telegram-bot and
the Bolt app. Exit 1 if an answer is lost or doubled, 2 if the bot ended by itself.
"""

import argparse
import json
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from tests.fakes.killing import BotEndedError, Platform, Play, Played

BOTS = {
    "telegram": "telegram/echo.py",
    "ptb": "ptb/bot.py",
    "discord": "discord/echo.py",
    "matrix": "matrix/echo.py",
    "asgi": "asgi/orders.py",
    "slack": "slack/echo.py",
    "bolt": "bolt/bot.py",
}
# As authors write them, without turnfold.
PLAIN = {
    "telegram": "ptb/bot.py",
    "ptb": "ptb/bot.py",
    "discord": "discord/plain.py",
    "matrix": "matrix/plain.py",
    "slack": "bolt/bot.py",
    "bolt": "bolt/bot.py",
}


def platform_of(bot: str) -> AbstractContextManager[Platform]:
    """Imported when it is asked for: each needs an extra of its own."""
    if bot == "discord":
        from tests.fakes.killing_discord import Discord  # noqa: PLC0415  as above

        return Discord()
    if bot == "matrix":
        from tests.real.killing_matrix import Matrix  # noqa: PLC0415  as above

        return Matrix()
    if bot == "asgi":
        from tests.fakes.killing_asgi import Shop  # noqa: PLC0415  as above

        return Shop()
    if bot in ("slack", "bolt"):
        from tests.fakes.killing_slack import Slack  # noqa: PLC0415  as above

        return Slack()
    from tests.fakes.killing_telegram import Telegram  # noqa: PLC0415  as above

    return Telegram()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bot", choices=BOTS)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("--faults", "--plain", "--json"):
        parser.add_argument(name, action="store_true")
    asked = parser.parse_args()
    if asked.plain and asked.bot not in PLAIN:
        parser.error(f"--plain is for {', '.join(PLAIN)}")
    try:
        played = _played(asked)
    except BotEndedError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    facts = asdict(played)
    shown = (
        json.dumps(facts)
        if asked.json
        else "\n".join(f"{k}: {v}" for k, v in facts.items())
    )
    sys.stdout.write(shown + "\n")
    return int(played.lost + played.doubled > 0)


def _played(asked: argparse.Namespace) -> Played:
    with tempfile.TemporaryDirectory() as folder:
        return Play(
            platform_of(asked.bot),
            Path(__file__).parent / (PLAIN if asked.plain else BOTS)[asked.bot],
            Path(folder) / "bot.db",
            "You said: {}".format,
            messages=asked.messages,
            kills=asked.kills,
            seed=asked.seed,
            faults=0.04 if asked.faults else 0.0,
            plain=asked.plain,
        ).run()


if __name__ == "__main__":
    raise SystemExit(main())
