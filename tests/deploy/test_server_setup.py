"""The server set-up's files: compose, Dockerfile, and Mosquitto's configuration run for real."""

import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from deploy import broker
from deploy.cli import app
from tests.require import require

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_image_holds_every_package_and_no_tests() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = set(re.findall(r"^COPY (\w+) \w+$", text, re.M))
    assert copied == {"core", "consent", "domains", "ingest", "api", "gateways", "deploy"}
    assert "USER chimata" in text


def test_compose_runs_commands_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    import typer

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    ours = {name: part for name, part in compose["services"].items() if "command" in part}
    assert set(ours) == {"migrate", "ingest-mqtt", "serve"}
    for part in ours.values():
        assert part["command"][0] in commands
    for part in compose["services"].values():
        for volume in part["volumes"]:
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_file() if source[0] == "." else source in compose["volumes"]


@pytest.mark.mosquitto
def test_mosquitto_takes_the_configuration(tmp_path: Path) -> None:
    program = str(require("mosquitto"))
    port = broker.free_port()
    (tmp_path / "passwd").write_text("")
    text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text("utf-8")
    text = text.replace("listener 1883", f"listener {port} 127.0.0.1")
    text = text.replace("/mosquitto/users/passwd", str(tmp_path / "passwd"))
    text = text.replace("/mosquitto/config/acl", str(DEPLOY / "mosquitto" / "acl"))
    text = text.replace("/mosquitto/data/", f"{tmp_path}/")
    (tmp_path / "mosquitto.conf").write_text(text + "user root\n")
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [program, "-v", "-c", str(tmp_path / "mosquitto.conf")], stderr=log, stdout=log
        )
    deadline = time.monotonic() + 10
    while "running" not in (said := (tmp_path / "log").read_text()) and time.monotonic() < deadline:
        assert running.poll() is None, said
        time.sleep(0.05)
    running.terminate()
    running.wait(10)
    assert "Opening ipv4 listen socket" in said
    assert "Error" not in said
