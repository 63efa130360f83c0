"""Five things that gateways remember, on the state of plugins. Take what you need."""

from turnfold import Kernel

MINUTE = 60_000
DAY = 86_400_000


class Threads:
    """Threads that the bot takes part in: there it answers without being named."""

    def __init__(self, kernel: Kernel) -> None:
        self._threads = kernel.state("threads").open(
            "joined", max_entries=5_000, ttl_ms=30 * DAY
        )

    def joined(self, channel, thread):
        self._threads.register(f"{channel}/{thread}", True)

    def is_in(self, channel, thread):
        return self._threads.lookup(f"{channel}/{thread}") is not None


class Components:
    """Buttons and menus that the bot has sent: what a click on each of them means."""

    def __init__(self, kernel: Kernel) -> None:
        self._components = kernel.state("components").open(
            "sent", max_entries=10_000, ttl_ms=7 * DAY
        )

    def add(self, ids, action):
        for one in ids:
            self._components.register(one, action)

    def actions(self, ids):
        """An action for each id, in their order; None for one that is unknown."""
        found = self._components.lookup_many(ids)
        return [getattr(item, "value", None) for item in found]


class Modals:
    """Forms that are open: each is submitted once, to whichever process hears of it."""

    def __init__(self, kernel: Kernel) -> None:
        self._modals = kernel.state("modals").open(
            "open", max_entries=1_000, ttl_ms=15 * MINUTE, overflow="reject"
        )

    def show(self, form, context):
        self._modals.register(form, context)

    def submitted(self, form):
        """The context of the form; None if somebody has it already, or it is too late."""
        item = self._modals.consume(form)
        return None if item is None else item.value


class SentMessages:
    """Messages that the bot has sent: it knows its own echo, and what is replied to."""

    def __init__(self, kernel: Kernel) -> None:
        self._sent = kernel.state("echo").open("sent", max_entries=2_000, ttl_ms=DAY)

    def sent(self, message, entry):
        self._sent.register(message, entry)

    def is_echo(self, message):
        return self._sent.lookup(message) is not None


class Approvals:
    """A person allows or denies by a reaction. The first one counts, and only while the
    request is as it was when it was shown."""

    def __init__(self, kernel: Kernel) -> None:
        self._asked = kernel.state("approvals").open("asked", ttl_ms=DAY)

    def ask(self, message, tool):
        return self._asked.register(message, {"tool": tool, "by": None}).version

    def react(self, message, version, person, *, allow):
        """True if this reaction decided."""
        item = self._asked.lookup_item(message)
        if item is None or item.version != version:
            return False
        decided = item.value | {"by": person, "allow": allow}
        return self._asked.compare_and_set(message, decided, version) is not None

    def decision(self, message):
        return self._asked.lookup(message)
