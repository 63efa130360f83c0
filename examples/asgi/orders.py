"""A shop takes orders by webhook, in any ASGI application, and confirms each one once.

STORE=orders.db CONFIRM=https://shop.example/confirm SECRET=whsec_... \
    uvicorn examples.asgi.orders:app
"""

import os

from turnfold import Kernel
from turnfold_adapters.bridges import asgi
from turnfold_adapters.channels.webhook import WebhookChannel

SECRET = os.environ["SECRET"]
kernel = Kernel(os.environ["STORE"])
kernel.attach(
    "orders", WebhookChannel(os.environ["CONFIRM"], secret=SECRET, classes=["keyed"])
)
orders = asgi.webhook(kernel, channel="orders", secret=SECRET)


@kernel.on_turn
async def confirm(turn):
    return f"You said: {turn.inbound.text}"


async def app(scope, receive, send):
    """The rest of the application: a page that says that it is there."""
    if scope["type"] == "http" and scope["path"] == "/":
        head = {"type": "http.response.start", "status": 200, "headers": []}
        await send(head)
        await send({"type": "http.response.body", "body": b"a shop\n"})
    else:
        await orders(scope, receive, send)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
