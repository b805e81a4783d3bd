"""What the sector of traffic signals declares."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind
from domains.signals.wire import PHASE_STATES

# 2000-01-01 to 2100-01-01: an end outside is a broken clock, not a signal.
_YEAR_2000, _YEAR_2100 = 946_684_800.0, 4_102_444_800.0

SECTOR = Sector(
    name="signals",
    title_ja="交通信号",
    title_en="Traffic signals",
    thing_title_ja="交差点",
    thing_title_en="Intersection",
    colour="#c53030",
    data_class=DataClass.OPEN,
    formats=("j2735", "ode-json"),
    properties=(
        ObservedProperty(
            "signal-state",
            "灯火の状態",
            "Signal state",
            kind=ResultKind.CATEGORY,
            vocabulary=PHASE_STATES,
        ),
        ObservedProperty(
            "minimum-end",
            "最も早い終了時刻",
            "Earliest end of the state",
            unit="s",
            minimum=_YEAR_2000,
            maximum=_YEAR_2100,
        ),
        ObservedProperty(
            "maximum-end",
            "最も遅い終了時刻",
            "Latest end of the state",
            unit="s",
            minimum=_YEAR_2000,
            maximum=_YEAR_2100,
        ),
    ),
)
