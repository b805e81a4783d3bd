"""The API served by uvicorn on a real database, for the tests of this folder."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI

import domains
from api.app import create_app
from core.settings import Settings
from core.tokens import Role, issue, load_keys
from tests.api.city import City

START_SECONDS_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running API: its URL, its application, and the database behind it."""

    url: str
    app: FastAPI
    database_url: str
    data: Path
    server: uvicorn.Server
    client: httpx.Client

    def token(self, role: Role, lifetime_seconds: int = 600) -> str:
        """A token of this machine's issuer."""
        keys = load_keys(self.data / "keys")
        return issue(
            keys, role, gateway="g", subject="s", override=UUID(int=0),
            lifetime_seconds=lifetime_seconds,
        )  # fmt: skip

    def as_role(self, role: Role | None) -> dict[str, str]:
        """The headers of someone signed in, or of nobody."""
        return {} if role is None else {"Authorization": f"Bearer {self.token(role)}"}

    def get(
        self, path: str, role: Role | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """One request."""
        return self.client.get(self.url + path, headers={**self.as_role(role), **(headers or {})})


def serving(settings: Settings) -> AbstractContextManager[Served]:
    """The API on a free port for the length of a block."""
    return served_with(settings)


@contextmanager
def served_with(settings: Settings, *extra_routers: APIRouter) -> Iterator[Served]:
    """The same with more routes, as deploy adds the ingestor's."""
    load_keys(settings.data / "keys", create=True)
    app = create_app(settings, extra_routers)
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS_MAX
    while not server.started:
        assert thread.is_alive(), "the API did not start"
        assert time.monotonic() < deadline, "the API took too long to start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url, client = f"http://127.0.0.1:{port}", httpx.Client(timeout=30)
    served = Served(url, app, settings.database_url, settings.data, server, client)
    try:
        yield served
    finally:
        client.close()
        app.state.hub.end_streams()
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the API did not end"


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """The API on an empty database."""
    with serving(Settings(database_url=database_url, data=tmp_path, page_rows_max=50)) as running:
        yield running


@pytest.fixture(scope="module")
def module_served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The same for all tests of a module that only read."""
    settings = Settings(
        database_url=module_database_url,
        data=tmp_path_factory.mktemp("data"),
        page_rows_max=50,
        body_bytes_max=100_000,
    )
    with serving(settings) as running:
        yield running


@pytest.fixture
def city(served: Served) -> Iterator[City]:
    """Writes into the served database."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        yield City(connection)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits for something to become true; fails after 10 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it did not become true within 10 s"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def shared_sector() -> str:
    """The name of an installed sector whose default class is shared."""
    for name in domains.names():
        if domains.sector(name).data_class == "shared":
            return name
    pytest.skip("no installed sector is shared")
