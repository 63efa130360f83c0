"""A first channel of one's own: text messages through a provider that takes JSON, knows a
message again by its `Idempotency-Key`, and answers with an id. `http` is an
`httpx.AsyncClient()`; the kernel closes the channel, and so the client.
"""

from httpx import ConnectError

from turnfold import (
    Accepted,
    Capabilities,
    DeliveryClass,
    PartClass,
    Receipt,
    Rejected,
)


class SmsChannel:
    keyed = PartClass(classes=(DeliveryClass.KEYED,))
    capabilities = Capabilities(parts={"text": keyed})

    def __init__(self, url, http):
        self.url, self.http, self.aclose = url, http, http.aclose

    async def send(self, part, key, attempt):
        body = {"conversation": part.route.conversation, "text": part.payload.text}
        head = {"Idempotency-Key": key}
        answer = await self.http.post(self.url, json=body, headers=head)
        if answer.is_client_error:
            limited = answer.status_code == 429
            return Rejected(failure="rate_limited" if limited else "invalid_payload")
        return Accepted(receipt=Receipt(ids=(answer.raise_for_status().json()["id"],)))

    def classify(self, exc):
        return Rejected(failure="not_connected") if type(exc) is ConnectError else None
