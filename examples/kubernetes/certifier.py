"""Tells turnfold which gateways of a Kubernetes cluster are gone, so that the others go
on at once. Run one of it beside the gateways; specs/postgres.md has the manifest.

A gateway is named NODE/POD/UID. It is gone if the kubelet of its node says so. A pod that
is deleted while its node does not answer is NOT gone: its process may run on, and send.
"""

import asyncio
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from turnfold.errors import StoreError
from turnfold_adapters.stores.postgres.certificates import Certifier

API = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAMESPACE = os.environ.get("NAMESPACE", "default")
CONTAINER = os.environ.get("CONTAINER", "gateway")
EVERY_S = 2.0


def read(path: str) -> Any:
    """An object of the cluster; None if there is none. Raises OSError."""
    asked, trusts = Request(API + path), None  # noqa: S310  the address is ours
    if API.startswith("https:"):
        token = (ACCOUNT / "token").read_text()
        asked.add_header("Authorization", f"Bearer {token}")
        trusts = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urlopen(asked, timeout=10, context=trusts) as answer:  # noqa: S310
            return json.load(answer)
    except HTTPError as exc:
        if exc.code == 404:
            return None
        raise


def why_gone(instance: str) -> str | None:
    """The proof that this gateway is gone; None if there is none. Raises OSError."""
    node, pod, uid = instance.split("/")
    found = read(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")
    if found is not None and found["metadata"]["uid"] == uid:
        return None if runs(found) else "the kubelet says that its container has ended"
    there = read(f"/api/v1/nodes/{node}")
    if there is None:
        return "its node was taken out of the cluster"
    return "the kubelet of its node has removed it" if is_ready(there) else None


def runs(pod: Any) -> bool:
    """Only the kubelet writes the state of a container. The phase of a pod is also
    written by others, who do not know."""
    states = pod["status"].get("containerStatuses", ())
    ours = [each["state"] for each in states if each["name"] == CONTAINER]
    return not ours or any(map(may_run, ours))


def may_run(state: Any) -> bool:
    """A container that the kubelet has lost sight of may run."""
    ended = state.get("terminated", {})
    return "running" in state or ended.get("reason") == "ContainerStatusUnknown"


def is_ready(node: Any) -> bool:
    conditions = node["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def look(certifier: Certifier) -> None:
    for silent in await certifier.silent():
        if silent.instance is None or silent.instance.count("/") != 2:
            continue
        why = await asyncio.to_thread(why_gone, silent.instance)
        if why is not None:
            await certifier.certify(silent.instance, f"kubernetes: {why}", wait=False)


async def main(*, once: bool) -> None:
    certifier = Certifier(os.environ["TURNFOLD_STORE"])
    await certifier.open()
    while True:
        try:
            await look(certifier)
        except (OSError, StoreError) as exc:  # nobody is certified meanwhile
            sys.stderr.write(f"cannot look: {exc}\n")
        if once:
            break
        await asyncio.sleep(EVERY_S)
    await certifier.close()


if __name__ == "__main__":
    asyncio.run(main(once="--once" in sys.argv))
