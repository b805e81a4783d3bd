"""The demo city's nodes die: within 30 s the list of what is cut off is right, and again after."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from gateways.simulators import edge
from tests.platform import Platform, running

WAIT_SECONDS = 60.0
SILENT_SECONDS = 30.0
ASK_SECONDS = 5.0  # a heartbeat just before the kill is stored and asked for, on a busy machine


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A demo city of this module's own: its gateways are stopped."""
    with running(tmp_path_factory.mktemp("cut") / "data", "--demo") as platform:
        yield platform


class Asked:
    """The list of what is cut off, as an operator asks for it."""

    def __init__(self, platform: Platform) -> None:
        headers = {"Authorization": f"Bearer {platform.token('operator')}"}
        self.client = httpx.Client(base_url=platform.url, headers=headers, timeout=20)

    def cut_off(self) -> dict[str, set[str]]:
        body: dict[str, Any] = self.client.get("/v1/edge/cut-off").raise_for_status().json()
        names = ("nodes", "signals", "gateways", "cells")
        return {name: {each["id"] for each in body[name]} for name in names}

    def wait_for(self, wanted: dict[str, set[str]], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.cut_off()) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.25)

    def registered(self) -> bool:
        last = edge.nodes()[-1].name
        return self.client.get(f"/v1/edge/nodes/{last}/dependents").is_success


def test_what_is_cut_off_when_the_nodes_die(city: Platform) -> None:
    asked = Asked(city)
    deadline = time.monotonic() + WAIT_SECONDS
    while not asked.registered():
        assert time.monotonic() < deadline
        time.sleep(0.25)
    nothing: dict[str, set[str]] = {k: set() for k in ("nodes", "signals", "gateways", "cells")}
    asked.wait_for(nothing, WAIT_SECONDS)
    (gateways,) = (
        child
        for child in psutil.Process(city.process.pid).children(recursive=True)
        if child.cmdline()[-1:] == ["demo"]
    )
    everything: dict[str, set[str]] = {k: set() for k in nothing}
    for node in edge.nodes():
        everything["nodes"].add(node.name)
        for name, keys in edge.dependents(node).items():
            if name != "pole":
                everything[name].update(keys)
    os.kill(gateways.pid, signal.SIGSTOP)  # a killed one would be started again
    try:
        asked.wait_for(everything, SILENT_SECONDS + ASK_SECONDS)
    finally:
        os.kill(gateways.pid, signal.SIGCONT)
    asked.wait_for(nothing, WAIT_SECONDS)
