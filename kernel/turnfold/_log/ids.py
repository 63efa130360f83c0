"""The names of streams, keys and gates. Ids are text everywhere."""

from functools import lru_cache
from hashlib import blake2b, sha256
from itertools import product

from attrs import evolve

from turnfold.enums import GateScope, Kind
from turnfold.inbound import Inbound, Unreadable
from turnfold.messages import escape

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_DIGIT = (_DIGITS * 8).encode()  # one for each byte
_TIME_SHIFTS = range(40, -10, -10)
_TWO_DIGITS = tuple(map("".join, product(_DIGITS, repeat=2)))
ORIGINAL = "message"  # the event of a message that is no edit
ENTRY, TURN, GATE, CURSOR = "entry:", "turn:", "gate:", "cursor:"
_ALL_RUNS = "all"
_MOST = blake2b.MAX_DIGEST_SIZE


def time_id(now_ms: int, random: bytes) -> str:
    """A new id of 26 characters, which sorts by time. `random`: 16 bytes of the caller;
    each becomes a digit of base 32, so 80 bits of them count."""
    return _time_digits(now_ms) + random.translate(_DIGIT).decode()


@lru_cache(maxsize=16)
def _time_digits(now_ms: int) -> str:
    """Ten digits of base 32 for 48 bits: the same for all ids of a millisecond."""
    value = now_ms & (2**48 - 1)
    return "".join([_TWO_DIGITS[value >> shift & 1023] for shift in _TIME_SHIFTS])


def inbound_key(inbound: Inbound | Unreadable) -> str | None:
    """None: a repeat of this message cannot be recognised."""
    key = inbound.dedupe_key
    return None if key is None else f"in:{key}"


def original_key(inbound: Inbound | Unreadable) -> str | None:
    """The key of the original message of an edit or another event."""
    if isinstance(inbound, Unreadable):
        return None
    if inbound.edits is not None:
        return inbound_key(evolve(inbound, key=inbound.edits))
    if inbound.message_id is None or inbound.key is not None:
        return None
    if inbound.event == ORIGINAL and inbound.revision is None:
        return None
    return inbound_key(evolve(inbound, event=ORIGINAL, revision=None))


def outbound_key(key: str) -> str:
    return f"out:{key}"


def short_id(stream: str) -> str:
    return stream.partition(":")[2]


def reply_entry(turn: str, kind: Kind, run: int | None, key: str) -> str:
    """The one entry that a key of a turn can name. The final is once per turn, a notice
    once per key, blocks and tools once per run. `run` is None for a key over all
    runs."""
    base = short_id(turn)
    if kind is Kind.FINAL:
        return f"{ENTRY}{base}.{kind}"
    if kind is Kind.NOTICE:
        return f"{ENTRY}{base}.{kind}.{_safe(key)}"
    return f"{ENTRY}{base}.{run or _ALL_RUNS}.{kind}.{_safe(key)}"


def _safe(key: str) -> str:
    if len(key) <= 40 and key.isascii() and key.replace("-", "").isalnum():
        return key
    return f"~{sha256(key.encode()).hexdigest()[:32]}"


def part_key(entry: str, index: int, alphabet: str, length: int) -> str:
    """The idempotency key of a part in the platform's alphabet. It never changes: it is
    a hash of names that never change."""
    noise = _noise(f"{entry}#{index}".encode(), length)
    letters = _letters(alphabet)
    if isinstance(letters, bytes):
        return noise.translate(letters).decode()
    return noise.decode("latin-1").translate(letters)


def _noise(name: bytes, length: int) -> bytes:
    if length <= _MOST:
        return blake2b(name, digest_size=length).digest()
    numbers = (n.to_bytes(8, "big") for n in range(length // _MOST + 1))
    return b"".join([blake2b(name, salt=n).digest() for n in numbers])[:length]


@lru_cache(maxsize=16)
def _letters(alphabet: str) -> bytes | dict[int, str]:
    """A letter for each byte; nearly the same number of bytes for each letter."""
    letters = [alphabet[byte % len(alphabet)] for byte in range(256)]
    return "".join(letters).encode() if alphabet.isascii() else dict(enumerate(letters))


def account_scope(channel: str, account: str) -> str:
    """The first two parts of every lane of an account; its gate and cursors use this
    name, too."""
    return f"{escape(channel)}/{escape(account)}"


@lru_cache(maxsize=4096)
def gates_of(lane: str) -> tuple[str, str, str]:
    """The gates that hold a lane, widest first. A lane is
    channel/account/conversation/thread with the parts escaped."""
    channel, account, conversation, _ = lane.split("/")
    wide = f"{GATE}{channel}/{account}"
    return wide, f"{wide}/{conversation}", f"{GATE}{lane}"


def gate_of_place(place: str) -> str:
    """The gate of `channel/account` or `channel/account/conversation`. For names with a
    slash, pass the name of the gate itself."""
    if place.startswith(GATE):
        return place
    return GATE + "/".join(escape(name) for name in place.split("/", 2))


def gate_for(lane: str, scope: GateScope) -> str:
    account, conversation, route = gates_of(lane)
    match scope:
        case GateScope.ACCOUNT:
            return account
        case GateScope.CONVERSATION:
            return conversation
        case GateScope.ROUTE:
            return route


def cursor_of(channel: str, account: str, name: str = "") -> str:
    scope = account_scope(channel, account)
    return f"{CURSOR}{scope}" + (f"/{escape(name)}" if name else "")
