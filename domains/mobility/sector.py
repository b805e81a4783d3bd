"""What the mobility sector declares: trips of persons; what is not declared is personal too."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

SECTOR = Sector(
    name="mobility",
    title_ja="移動",
    title_en="Mobility",
    # The strictest: a property that tells of no person says so by a data class of its own.
    data_class=DataClass.PERSONAL,
    formats=("gpx", "tap-csv", "tap-json", "gtfs-rt", "gtfs-rt-json"),
    thing_title_ja="移動手段・端末",
    thing_title_en="Vehicle, phone or card",
    colour="#7c3aed",
    properties=(
        ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION,
                         data_class=DataClass.PERSONAL, category="chimata:MovementTrack"),
        ObservedProperty("tap", "改札・乗降", "Tap in or out", kind=ResultKind.DOCUMENT,
                         data_class=DataClass.PERSONAL, category="chimata:TransitTap"),
        ObservedProperty("vehicle-position", "車両の位置", "Vehicle position",
                         kind=ResultKind.POSITION, data_class=DataClass.OPEN),
        ObservedProperty("vehicle-journey", "車両の運行", "What a vehicle is doing",
                         kind=ResultKind.DOCUMENT, data_class=DataClass.OPEN),
        ObservedProperty("trip-update", "便の遅れ・運休", "Trip update",
                         kind=ResultKind.DOCUMENT, data_class=DataClass.OPEN),
        ObservedProperty("alert", "運行情報", "Service alert",
                         kind=ResultKind.DOCUMENT, data_class=DataClass.OPEN),
        ObservedProperty("feed-message", "配信の内容", "What a feed's message was about",
                         kind=ResultKind.DOCUMENT, data_class=DataClass.OPEN),
        # What was paid needs a grant of its own: who may see a trip need not see money.
        ObservedProperty("fare", "運賃", "Fare", "{JPY}", minimum=0, maximum=1_000_000, decimals=0,
                         data_class=DataClass.PERSONAL, category="pd:Transaction"),
    ),
)  # fmt: skip
