"""The outside judge of published GTFS-Realtime: pip `gtfs-rt-validator`, at a clock that we set."""

from datetime import datetime
from pathlib import Path

from gtfs_rt_validator import api

from domains.mobility.realtime.publish import Kind

ROLES = {Kind.POSITIONS: "vp", Kind.UPDATES: "tu", Kind.ALERTS: "sa"}


class Judge:
    """Reads a static feed once; says of messages about it which errors they have."""

    def __init__(self, static: Path, folder: Path) -> None:
        self._feed = api.prepare_feed(static, mode=api.Mode.MODERN)
        self._folder = folder

    def errors(self, messages: dict[Kind, bytes], at: datetime) -> list[str]:
        """`E003: what and where` of each; warnings are not told."""
        paths = {}
        for kind, payload in messages.items():
            paths[ROLES[kind]] = str(self._folder / f"{kind}.pb")
            Path(paths[ROLES[kind]]).write_bytes(payload)
        inputs = api.resolve_roles(paths)
        result = api.validate(
            api.Request(mode=api.Mode.MODERN, gtfs=self._feed, inputs=inputs, at=at)
        )
        failing = set(result.error_ids())
        told = [f"{each.rule_id}: {each.prefix}" for each in result.run.notices.in_order()
                if each.rule_id in failing]  # fmt: skip
        return sorted([*told, *map(str, result.run.system_errors.in_order())])
