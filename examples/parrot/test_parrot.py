"""The parrot's own tests: `python -m pytest -p turnfold_model.plugin examples/parrot`.

None of them looks at the log. The plugin does, after each.
"""

import asyncio

from parrot import make_gateway

from turnfold import Inbound


class Paper:
    """A printer in memory that may run out of paper, or die after printing."""

    def __init__(self, *, refuse=0, die=0) -> None:
        self.sheets: dict[str, str] = {}
        self.refuse, self.die = refuse, die

    async def print(self, number: str, text: str) -> bool:
        if self.refuse:
            self.refuse -= 1
            return False
        self.sheets.setdefault(number, text)
        if self.die:
            self.die -= 1
            raise ConnectionResetError
        return True


def hear(number: int) -> Inbound:
    return Inbound(
        "printer",
        conversation="desk",
        message_id=str(number),
        body={"text": f"polly {number}"},
    )


def talk(tmp_path, paper: Paper, numbers) -> list[str]:
    async def conversation() -> None:
        async with make_gateway(tmp_path / "parrot.db", paper) as kernel:
            turns = [await kernel.accept(hear(number)) for number in numbers]
            for turn in turns:
                await turn.settled(20_000)

    asyncio.run(conversation())
    return list(paper.sheets.values())


def test_it_repeats_in_order(tmp_path) -> None:
    said = talk(tmp_path, Paper(), [1, 2, 3])
    assert said == ["polly 1", "polly 2", "polly 3"]


def test_what_it_heard_before_it_does_not_repeat(tmp_path) -> None:
    paper = Paper()
    talk(tmp_path, paper, [1, 2])
    assert talk(tmp_path, paper, [1, 2, 3]) == ["polly 1", "polly 2", "polly 3"]


def test_it_waits_for_paper(tmp_path) -> None:
    assert talk(tmp_path, Paper(refuse=1), [1]) == ["polly 1"]


def test_a_printer_that_dies_after_printing_prints_once(tmp_path) -> None:
    assert talk(tmp_path, Paper(die=1), [1, 2]) == ["polly 1", "polly 2"]
