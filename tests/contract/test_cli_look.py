"""The commands that look at many messages: nothing from outside reaches a screen as
anything but data, wrong input is one line, and the important thing is there at 80
columns."""

import asyncio
import json
import re
import shutil
import time
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from turnfold.enums import FailureClass
from turnfold_cli import COMMANDS, app
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import PlatformChannel, reject, unknown

MARKUP = "[/x] [link=http://x]a[/link] [conceal]b :smile:"
HIDDEN = "\u202e\u200b\u061c\u200f\u2028\ufeff\U000e0041\ue000\u2066"
CONTROL = "\x1b[2J\x9b1m\x7f\x07"
LOOKING = (
    ("status",),
    ("stats", "--since", "2020-01-01", "--by", "account,kind,reason,status,day"),
    ("list",),
    ("turns",),
    ("list", "--parked"),
    ("list", "--dead"),
    ("gates",),
    ("worker",),
    ("channels", "--since", "2020-01-01"),
    ("inbox",),
    ("log", "--bodies"),
    ("tail", "--from", "1", "-n", "12"),
    ("audit",),
)


def run(path: Path, *arguments: str, **env: str) -> Result:
    words = [*arguments, "-s", str(path)]
    return CliRunner().invoke(app(words), words, env=env)


def rows(path: Path, *arguments: str) -> list[dict]:
    result = run(path, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["rows"]


async def nasty(path: Path) -> None:
    """Each field that comes from outside holds markup and hidden characters."""
    gateway = Gateway(store=in_file(path))
    bad = f"{MARKUP}{HIDDEN}"
    text = f"{bad}{CONTROL}"
    gateway.channels = {(bad, bad): PlatformChannel(gateway.platform)}
    where = {"channel": bad, "account": bad}

    async def answer(turn):
        if "fail" in (turn.inbound.text or ""):
            raise ValueError(text)
        await turn.block(text, key=bad)
        await turn.reply(text)

    gateway.handler = answer
    kernel = await gateway.start()
    for number, words in enumerate((text, f"fail {text}")):
        message = inbound(f"{bad}{number}", bad, words, thread=bad, **where)
        await kernel.accept(message)
        await spin()
        await gateway.advance(60_000)
    acts = {
        "dead": reject(FailureClass.PERMISSION, detail=text),
        "parked": unknown(cause=text),
        "gate": reject(FailureClass.RATE_LIMITED, detail=text, retry_after_ms=10**12),
    }
    for name, act in acts.items():
        gateway.platform.plays(act, conversation=f"{name}{bad}")
        target = route(f"{name}{bad}", thread=bad, reply_to=bad, **where)
        await kernel.enqueue(target, text, key=f"{name}{bad}")
        await spin()
    await kernel.disconnected(bad, account=bad)
    await gateway.end()
    client = await gateway.start(work=False)
    await client.accept(inbound(f"{bad}9", bad, text, **where))
    await gateway.end()


@pytest.fixture(scope="module")
def nasty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nasty") / "gateway.db"
    asyncio.run(nasty(path))
    return path


def views(path: Path) -> list[tuple[str, ...]]:
    """Every view, with `show` and `find` for all there is."""
    known = [row["short"] for row in rows(path, "list") + rows(path, "turns")]
    gates = json.loads(run(path, "gates", "--json").stdout)["gates"]
    names = [*known, *(gate["id"] for gate in gates), "store"]
    shown = [("show", name, *more) for name in names for more in ((), ("-v",))]
    channel = json.loads(run(path, "channels", "--json").stdout)["channels"][0]
    assert channel["channel"] == f"{MARKUP}{HIDDEN}"
    return [*LOOKING, *shown, ("find", channel["channel"].partition("/")[0])]


@pytest.mark.case("X03", "X04")
@pytest.mark.parametrize("form", ["80", "140", "json"])
def test_every_field_of_every_view_is_shown_escaped(
    nasty_store: Path, form: str
) -> None:
    seen = ""
    for view in views(nasty_store):
        words = [*view, "--json"] if form == "json" else [*view]
        result = run(nasty_store, *words, COLUMNS=form if form != "json" else "80")
        assert result.exception is None or result.exit_code in (1, 2), view
        assert not isinstance(result.exception, ValueError), (view, result.exception)
        hidden = {
            char
            for char in result.output
            if char != "\n"
            and unicodedata.category(char) in ("Cc", "Cf", "Co", "Zl", "Zp")
        }
        assert not hidden, (view, hidden)
        if form == "json":
            for line in result.stdout.splitlines():
                json.loads(line)
        seen += result.output
    assert "[conceal]b :smile:" in seen.replace("\n", " ") or form == "80"
    assert "\\u202e" in seen


@pytest.mark.case("X04")
def test_json_says_what_was_there(nasty_store: Path) -> None:
    channels = json.loads(run(nasty_store, "channels", "--json").stdout)["channels"]
    assert [c["account"] for c in channels] == [f"{MARKUP}{HIDDEN}"]
    assert all(
        row["conversation"].endswith(HIDDEN) for row in rows(nasty_store, "list")
    )


# --- wrong input ---------------------------------------------------------------------

ODD = st.one_of(
    st.text(max_size=20).filter(lambda text: "\0" not in text),
    st.sampled_from(
        ["", "-1", "0", "1e99", "9" * 30, "entry:", "turn:", "e0", "t999", "gate:x"]
    ),
).map(lambda text: text.encode("utf-8", "replace").decode())
OPTIONS = (
    "--since",
    "--until",
    "--channel",
    "--account",
    "--conversation",
    "--status",
    "--reason",
    "--kind",
    "--by",
    "--at",
    "--within",
    "--limit",
    "--before",
    "--turn",
    "--from",
    "--of",
    "--why",
)
WALL = (int(time.time()) - 3_600) * 1000  # an hour ago
TAKING = [name for name in COMMANDS if name not in ("demo", "serve", "tail")]


@pytest.fixture(scope="module")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "gateway.db"
    asyncio.run(plain(path))
    return path


@pytest.fixture(scope="module")
def store_to_change(plain_store: Path, tmp_path_factory) -> Path:
    """A copy for input that may hit upon an act: `restored` alone is one."""
    path = tmp_path_factory.mktemp("odd") / "gateway.db"
    return Path(shutil.copy(plain_store, path))


def _utc(form: str, minutes: int = 0) -> str:
    """The time of the plain store, so many minutes east of Greenwich."""
    at = datetime.fromtimestamp(WALL / 1000, UTC) + timedelta(minutes=minutes)
    return at.strftime(form)


async def fine(turn) -> None:
    await turn.reply("fine")


async def plain(path: Path) -> None:
    gateway = Gateway(store=in_file(path), clock=FakeClock(wall=WALL))
    gateway.handler = fine
    kernel = await gateway.start()
    for number in ("1001", "1002"):
        await kernel.accept(inbound(number, "42", f"where is order {number}?"))
        await spin()
    gateway.platform.plays(
        reject(FailureClass.PERMISSION, detail="403 bot was kicked from the group"),
        conversation="7",
    )
    await kernel.enqueue(route("7"), "never")
    gateway.platform.plays(unknown(cause="ReadTimeout"), conversation="8")
    await kernel.enqueue(route("8"), "maybe")
    await spin()
    await gateway.end()


@pytest.mark.case("X20")
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(TAKING), st.lists(st.tuples(st.sampled_from((*OPTIONS, "")), ODD))
)
def test_wrong_input_is_one_line_and_changes_nothing(
    store_to_change: Path, name: str, words: list[tuple[str, str]]
) -> None:
    flat = [word for option, value in words for word in (option, value) if word]
    before = store_to_change.read_bytes()
    result = run(store_to_change, name, *flat)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        assert len(result.stderr.splitlines()) <= 1 or "fits several" in result.stderr
        assert store_to_change.read_bytes() == before


@pytest.mark.case("X17")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--kind", "nosuch"), "there are: block, final, notice, tool"),
        (("stats", "--kind", "nosuch"), "there are: block, final, notice, tool"),
        (
            ("list", "--conversation", "nosuch"),
            "no conversation 'nosuch'; the latest: ",
        ),
        (
            ("turns", "--conversation", "nosuch"),
            "no conversation 'nosuch'; the latest: ",
        ),
        (("list", "--since", "1d", "--until", "2d"), "is not later than"),
        (("stats", "--since", "1d", "--until", "2d"), "is not later than"),
        (("find", "t", "--since", "1d", "--until", "2d"), "is not later than"),
    ],
)
def test_a_filter_that_nothing_can_fit_is_refused(
    plain_store: Path, words: tuple[str, ...], said: str
) -> None:
    result = run(plain_store, *words)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert said in result.stderr


@pytest.mark.case("X20")
def test_a_store_is_no_copy_and_no_backup_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    asyncio.run(plain(path))
    (tmp_path / "link.db").symlink_to(path)
    before = path.read_bytes()
    for name in (path, tmp_path / "link.db"):
        for words in (["copy", str(name), str(path)], ["restore", str(name)]):
            more = ["--replace", "-s", str(path)] if words[0] == "restore" else []
            result = CliRunner().invoke(app(words + more), words + more)
            assert result.exit_code == 2, result.output
            assert result.stderr.splitlines() == [
                "turnfold: source and target are one store"
            ]
    assert path.read_bytes() == before


# --- what an operator types ------------------------------------------------------------


@pytest.mark.case("X02", "X16")
def test_status_says_that_a_person_is_needed_and_what_to_type(
    plain_store: Path,
) -> None:
    result = run(plain_store, "status", COLUMNS="80")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "A person is needed:"
    assert "turnfold list --parked" in lines[1] + lines[2]
    value = json.loads(run(plain_store, "status", "--json").stdout)
    assert (value["well"], value["parked"], value["unseen"]) == (False, 1, 1)


@pytest.mark.case("X02")
def test_status_of_a_store_at_rest_is_well(tmp_path: Path) -> None:
    async def fill() -> None:
        gateway = Gateway(store=in_file(tmp_path / "g.db"))
        gateway.handler = fine
        kernel = await gateway.start()
        await kernel.accept(inbound())
        await spin()
        await gateway.end()

    asyncio.run(fill())
    result = run(tmp_path / "g.db", "status")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "Nobody is needed.")


@pytest.mark.case("X02")
def test_stats_count_by_channel_and_reason(plain_store: Path) -> None:
    (row,) = rows(plain_store, "stats", "--since", "2020-01-01")
    assert (row["turns"], row["out"], row["delivered"]) == (2, 4, 2)
    assert (row["parked"], row["dead"]) == (1, 1)
    assert row["why"]["permission"] == 1
    shown = run(plain_store, "stats", "--since", "2020-01-01", COLUMNS="100").stdout
    assert "2 (50%)" in shown
    assert "permission 1" in shown
    by_day = rows(plain_store, "stats", "--since", "2020-01-01", "--by", "day", "--utc")
    assert [row["group"]["day"] for row in by_day] == [_utc("%Y-%m-%d")]


@pytest.mark.case("X13")
def test_a_list_at_80_columns_has_age_place_class_words_and_a_short_id(
    plain_store: Path,
) -> None:
    lines = run(plain_store, "list", "--dead", COLUMNS="80").stdout.splitlines()
    assert lines[1].split() == ["age", "to", "why", "id"]
    assert "t 7" in lines[2]
    assert "permission: 403 bot was kicked" in lines[2]
    short = lines[2].split()[-1]
    assert lines[-1].startswith(f"next: turnfold show {short} ")
    assert "403 bot was kicked" in run(plain_store, "show", short).stdout


@pytest.mark.case("X13")
def test_every_command_resolves_a_short_id_a_beginning_and_an_end(
    plain_store: Path, tmp_path: Path
) -> None:
    (row,) = rows(plain_store, "list", "--dead")
    name = row["id"].removeprefix("entry:")
    for wanted in (row["short"], row["id"], name, name[:20], name[-8:]):
        shown = json.loads(run(plain_store, "show", wanted, "--json").stdout)
        assert shown["id"] == row["id"], wanted
    copy = tmp_path / "copy.db"
    shutil.copy(plain_store, copy)
    assert run(copy, "discard", row["short"], "--by", "ann").exit_code == 0
    assert rows(copy, "list", "--dead", "--unseen") == []
    assert len(rows(copy, "list", "--dead")) == 1


@pytest.mark.case("X15")
def test_an_id_that_fits_several_shows_time_place_and_words(plain_store: Path) -> None:
    result = run(plain_store, "show", "0", COLUMNS="80")
    assert result.exit_code == 2
    assert "where is order 1001?" in result.stderr
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", result.stderr)
    assert "fits several: " in result.stderr.splitlines()[-1]


@pytest.mark.case("X15")
def test_a_message_is_found_by_place_time_and_words(plain_store: Path) -> None:
    def found(*words: str) -> list[str]:
        result = run(plain_store, "find", *words, "--json")
        assert result.exit_code == 0, result.output
        return [one["text"] for one in json.loads(result.stdout)["found"]]

    assert found("t/42") == ["where is order 1002?", "where is order 1001?"]
    assert found("t/default/42", "ORDER", "1001") == ["where is order 1001?"]
    assert len(found("t/42", "--at", "1h", "--within", "50min")) == 2
    assert found("t/42", "--at", "2h", "--within", "5min") == []
    none = run(plain_store, "find", "t/42", "nothing like it").stdout
    assert none.splitlines()[-1].endswith("list --channel t --conversation 42")
    shown = run(plain_store, "find", "t/42", COLUMNS="80").stdout
    assert re.search(r"answered: .*\n +turnfold show t\d+\n", shown)


@pytest.mark.case("X14")
def test_times_have_a_zone_and_utc_can_be_asked_for(
    plain_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        local = run(plain_store, "show", "1001").stdout
        assert _utc("%H:%M:%S", 330) in local
        assert "times: IST (+0530)" in local
        utc = run(plain_store, "show", "1001", "--utc").stdout
        assert _utc("%H:%M:%S") in utc
        assert "times: UTC (+0000)" in utc
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.case("X14")
def test_the_cause_that_counts_is_named_with_its_age(tmp_path: Path) -> None:
    path = tmp_path / "g.db"

    async def held() -> str:
        gateway = Gateway(store=in_file(path))
        kernel = await gateway.start()
        gateway.platform.plays(reject(FailureClass.AUTH), conversation="42")
        for text in ("one", "two"):
            done = await kernel.enqueue(route(), text)
        await spin()
        await gateway.end()
        return done.entry_id

    second = asyncio.run(held())
    shown = run(path, "show", second).stdout
    assert "waits behind" in shown
    assert "gate:t/default is closed (auth, for" in shown.replace("\n", " ")
    gates = json.loads(run(path, "gates", "--json").stdout)["gates"]
    assert [(g["place"], g["reason"], g["waiting"]) for g in gates] == [
        ("t/default", "auth", 2)
    ]


@pytest.mark.case("X16")
def test_one_state_has_one_word_and_the_verdict_comes_first(plain_store: Path) -> None:
    (row,) = rows(plain_store, "list", "--parked")
    value = json.loads(run(plain_store, "show", row["short"], "--json").stdout)
    assert row["status"] == value["status"] == "parked"
    lines = run(plain_store, "show", row["short"], COLUMNS="80").stdout.splitlines()
    assert lines[0] == "Parked: nobody knows if it arrived: ReadTimeout"
    assert lines[1].startswith("Next: somebody must say if it arrived")
    commands = [line.partition("turnfold ")[2] for line in lines if "turnfold " in line]
    verdicts = ("delivered", "not_sent", "resend", "give_up")
    assert commands == [f"resolve {row['short']} {word}" for word in verdicts]


@pytest.mark.case("X17")
def test_a_mistyped_name_lists_those_that_exist(plain_store: Path) -> None:
    for words, there in (
        (("list", "--channel", "telegrm"), "there are: t"),
        (("list", "--account", "x"), "there are: default"),
        (("turns", "--status", "x"), "there are: aborted, accepted"),
        (("list", "--reason", "x"), "there are: "),
        (("stats", "--by", "x"), "there are: channel, account"),
        (("list", "--since", "x"), "give today"),
        (("find", "telegrm/42"), "there are: t"),
    ):
        result = run(plain_store, *words)
        assert result.exit_code == 2, words
        assert len(result.stderr.splitlines()) == 1
        assert there in result.stderr


@pytest.mark.case("X17")
def test_the_store_is_an_argument_or_stands_in_a_file(
    plain_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TURNFOLD_STORE", raising=False)

    def code(*words: str) -> int:
        return CliRunner().invoke(app([*words]), [*words]).exit_code

    assert code("list") == 3
    assert code("list", str(plain_store)) == 0
    (tmp_path / "turnfold.toml").write_text(f'store = "{plain_store}"\n')
    assert code("list") == 0
    (tmp_path / "turnfold.toml").write_text("store = [")
    assert code("list") == 2


@pytest.mark.case("X17")
def test_tail_shows_only_failures_of_some(plain_store: Path) -> None:
    told = run(plain_store, "tail", "--from", "1", "-n", "1", "--failures").stdout
    assert "403 bot was kicked" in told
    assert "t 7" in told
    only = run(plain_store, "tail", "--from", "1", "-n", "2", "--of", "1002").stdout
    assert "message 1002 accepted" in only.splitlines()[1]


def test_pages_follow_each_other(plain_store: Path) -> None:
    found, before = [], []
    while True:
        result = run(plain_store, "list", "-n", "1", *before, "--json")
        page = json.loads(result.stdout)
        found += [row["short"] for row in page["rows"]]
        if not page["more"]:
            break
        before = ["--before", str(page["before"])]
    assert found == [row["short"] for row in rows(plain_store, "list")]
