"""`chimata rejections` as people run it: tables and JSON, exit codes, and the key that opens."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.tokens import load_keys
from tests.deploy.test_cli import chimata
from tests.ingest.test_mending import Town, body, send_broken


@pytest.fixture
def town(database_url: str, tmp_path: Path) -> Town:
    load_keys(tmp_path / "data" / "keys", create=True)
    return Town(database_url, tmp_path / "data")


def run(town: Town, *arguments: str, code: int = 0) -> str:
    done = chimata(
        "rejections", *arguments, cwd=town.settings.data, CHIMATA_DATABASE_URL=town.url,
        CHIMATA_DATA=str(town.settings.data),
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def told(town: Town, *arguments: str) -> Any:
    return json.loads(run(town, *arguments, "--json"))


def test_list_show_replay_fix_and_discard(town: Town, tmp_path: Path) -> None:
    one, two, three = send_broken(town, body(1), body(2), b"\x1b[2J")
    assert [each["id"] for each in told(town, "list")["rejections"]] == [three, two, one]
    assert told(town, "list", "--reason", "other") == {"rejections": []}
    table = run(town, "list", "--sector", "farms")
    assert "bad-json" in table and "this decoder is broken" in table
    shown = run(town, "show", str(three))
    assert "\x1b" not in shown, "a terminal obeys what a gateway sent"
    assert r"\x1b[2J" in shown
    assert told(town, "replay", str(one))["stored"] == 1
    assert run(town, "replay", str(one), code=1).startswith("chimata: rejection")
    good = tmp_path / "good.json"
    good.write_bytes(body(2))
    assert "is fixed" in run(town, "fix", str(two), str(good), "--reason", "typo")
    assert "discarded" in run(town, "discard", str(three), "--reason", "noise")
    assert told(town, "list") == {"rejections": []}
    every = told(town, "list", "--state", "")["rejections"]
    assert [each["state"] for each in every] == ["discarded", "fixed", "replayed"]
    (act,) = told(town, "show", str(two))["history"]
    assert (act["act"], act["done"], act["reason"]) == ("fix", True, "typo")
    assert act["who"].startswith("command")
    run(town, "show", "999", code=1)
    run(town, "discard", str(one), code=2)
    town.counts()


def test_redecode_says_what_it_did(town: Town) -> None:
    send_broken(town, body(1, 2), body(3), b"[")
    assert told(town, "redecode", "--sector", "farms", "--reason", "bad-json") == {
        "taken": 2, "still_rejected": 1, "stored": 3, "duplicate": 0, "rejected": 0,
    }  # fmt: skip
    assert run(town, "redecode", "--sector", "farms").startswith("taken 0 ")
    run(town, "redecode", "--sector", "nowhere", code=1)


def test_the_holder_of_the_key_opens_what_is_sealed(town: Town, tmp_path: Path) -> None:
    from core import seal
    from core.storage.rejections import Rejection, sealed

    (one,) = send_broken(town, body(1))
    key = seal.load_private_key(town.settings.data / "keys").public_key()
    assert run(town, "key").strip() == seal.public_text(key)
    rejection = Rejection(
        "g1", "json", "test", None, None, 0, "bad-json", "of taro", body(1), 0, "json"
    )
    hide = "UPDATE rejection SET sealed = true, data_class = 'personal', detail = '', payload = %s"
    with psycopg.connect(town.url) as owner:
        owner.execute(hide, (sealed(key, "farms", rejection),))
    assert "taro" not in run(town, "show", str(one))
    opened = run(town, "show", str(one), "--unseal")
    assert "of taro" in opened and "soil-moisture" in opened
    assert [act["act"] for act in told(town, "show", str(one))["history"]] == ["unseal"]
    (town.settings.data / "keys" / seal.FILE).unlink()
    assert "sealed" in run(town, "show", str(one), "--unseal", code=1)
    assert "sealed" in run(town, "replay", str(one), code=1)
    run(town, "key", code=1)
