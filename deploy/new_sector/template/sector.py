"""What the newsector sector declares: its observed properties, units and default data class."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

STATES = ("normal", "warning", "alarm")

SECTOR = Sector(
    name="newsector",
    title_ja="新しい分野",
    title_en="Newsector",
    # Shared needs a contract. Open is a decision that someone takes and writes into the README.
    data_class=DataClass.SHARED,
    formats=("csv",),
    thing_title_ja="観測局",
    thing_title_en="Station",
    colour="#475569",
    properties=(
        ObservedProperty("level", "水準", "Level", "m", minimum=-10, maximum=100),
        ObservedProperty("state", "状態", "State", kind=ResultKind.CATEGORY, vocabulary=STATES),
    ),
)
