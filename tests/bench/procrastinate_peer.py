"""procrastinate beside turnfold: a message is deferred, fetched and finished by hand, or
deferred by many and done by its own worker. Needs `pip install procrastinate`."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Send = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def by_hand(plain: str, body: str) -> AsyncIterator[Send]:
    async with _app(plain) as app:
        from procrastinate.jobs import Status  # type: ignore[import-not-found]

        task, manager = _task(app, _nothing), app.job_manager
        worker = await manager.register_worker()

        async def send(_: int) -> None:
            await task.defer_async(body=body)
            job = await manager.fetch_job(queues=["send"], worker_id=worker)
            await manager.finish_job(job, Status.SUCCEEDED, False)

        yield send


@asynccontextmanager
async def by_its_worker(plain: str, body: str, at_once: int) -> AsyncIterator[Send]:
    """A message is through when its handler was called."""
    through: dict[str, asyncio.Event] = {}

    async def handle(body: str) -> None:
        through.pop(body[:32]).set()

    async with _app(plain) as app:
        task = _task(app, handle)

        async def send(_: int) -> None:
            name = uuid.uuid4().hex
            through[name] = end = asyncio.Event()
            await task.defer_async(body=name + body)
            await end.wait()

        how = {"concurrency": at_once, "install_signal_handlers": False}
        work = asyncio.create_task(app.run_worker_async(queues=["send"], **how))
        yield send
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@asynccontextmanager
async def _app(plain: str) -> AsyncIterator[Any]:
    from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]

    app = App(connector=PsycopgConnector(conninfo=plain, min_size=1, max_size=40))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield app


def _task(app: Any, work: Callable[[str], Awaitable[None]]) -> Any:
    return app.task(name="send", queue="send")(work)


async def _nothing(body: str) -> None:
    del body
