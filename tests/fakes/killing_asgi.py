"""A shop behind an ASGI server as a platform to be killed on. Its sender posts an order
until it sees a 2xx, as senders of webhooks do; its receiver is our own stand-in, which
honours keys."""

import json
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Self

import httpx
from standardwebhooks import Webhook

from turnfold_cli.platform import FaultKind, Mode, Platform

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Shop:
    def __init__(self) -> None:
        self.receiver = Platform(Mode.KEYED)
        self._signer = Webhook(SECRET)
        self._http = httpx.Client(trust_env=False, timeout=10)
        self._over = threading.Event()
        self._senders: list[threading.Thread] = []
        self.posted = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def __enter__(self) -> Self:
        self.receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for sender in self._senders:
            sender.join(20)
        self._http.close()
        self.receiver.stop()

    def facts(self) -> dict[str, str]:
        confirm = f"{self.receiver.url}/messages"
        return {"SECRET": SECRET, "CONFIRM": confirm, "PORT": str(self.port)}

    def listened(self) -> bool:
        try:
            return self._http.get(f"http://127.0.0.1:{self.port}/").status_code == 200
        except httpx.TransportError:
            return False

    def says(self, chat: int, text: str) -> None:
        order = {"conversation": f"c{chat}", "text": text}
        sender = threading.Thread(target=self._post, args=(json.dumps(order), text))
        self._senders.append(sender)
        sender.start()

    def _post(self, body: str, name: str) -> None:
        """Again and again until it is taken. Each attempt has the id of the first."""
        while not self._over.is_set():
            now = datetime.now(UTC)
            headers = {
                "webhook-id": name.replace(" ", "-"),
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._signer.sign(
                    name.replace(" ", "-"), now, body
                ),
            }
            try:
                self.posted += 1
                url = f"http://127.0.0.1:{self.port}/orders"
                answer = self._http.post(url, content=body, headers=headers)
            except httpx.TransportError:
                time.sleep(0.1)  # killed
                continue
            if answer.is_success:
                return
            time.sleep(0.1)

    def calls(self) -> int:
        return len(self.receiver.book.requests())

    def texts(self) -> list[str]:
        return [m.text or "" for m in self.receiver.book.witness()]

    def cut(self) -> None:
        self.receiver.script(FaultKind.CUT_AFTER)

    def limit(self) -> None:
        self.receiver.script(FaultKind.RATE_LIMITED)
