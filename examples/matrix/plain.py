"""The same bot as authors of matrix-nio write it, without turnfold: to compare.

HOMESERVER=... BOT_ID=... BOT_DEVICE=... BOT_TOKEN=... python examples/matrix/plain.py
"""

import asyncio
import os

from nio import AsyncClient, RoomMessageText


async def main():
    client = AsyncClient(os.environ["HOMESERVER"], os.environ["BOT_ID"])
    client.restore_login(
        os.environ["BOT_ID"], os.environ["BOT_DEVICE"], os.environ["BOT_TOKEN"]
    )

    async def answer(room, event):
        if event.sender != client.user_id:
            body = f"You said: {event.body}"
            content = {"msgtype": "m.text", "body": body}
            await client.room_send(room.room_id, "m.room.message", content)

    await client.sync(timeout=0)  # what is old was answered, or is lost
    client.add_event_callback(answer, RoomMessageText)
    await client.sync_forever(timeout=30_000)


if __name__ == "__main__":
    asyncio.run(main())
