"""What the mobility sector declares: trips of persons; what is not declared is personal too."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

SECTOR = Sector(
    name="mobility",
    title_ja="移動",
    title_en="Mobility",
    # The strictest: a property that tells of no person says so by a data class of its own.
    data_class=DataClass.PERSONAL,
    formats=("gpx", "tap-csv", "tap-json", "gtfs-rt", "gtfs-rt-json", "gbfs"),
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
        # Shared bicycles, cars, kick scooters: of stations, and of a feed's own Thing.
        ObservedProperty("vehicles-available", "貸出可能台数", "Vehicles available", "{vehicle}",
                         minimum=0, maximum=100_000, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("vehicles-disabled", "使用不可台数", "Vehicles disabled", "{vehicle}",
                         minimum=0, maximum=100_000, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("docks-available", "返却可能台数", "Docks available", "{dock}",
                         minimum=0, maximum=100_000, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("docks-disabled", "使用不可ドック数", "Docks disabled", "{dock}",
                         minimum=0, maximum=100_000, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("station-installed", "ポート設置", "Station is installed",
                         minimum=0, maximum=1, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("station-renting", "貸出中", "Station is renting",
                         minimum=0, maximum=1, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("station-returning", "返却受付中", "Station takes returns",
                         minimum=0, maximum=1, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("stations", "ポート数", "Stations of the feed", "{station}",
                         minimum=0, maximum=100_000, decimals=0, data_class=DataClass.OPEN),
        ObservedProperty("free-vehicles", "ポート外の車両数", "Free vehicles of the feed",
                         "{vehicle}", minimum=0, maximum=1_000_000, decimals=0,
                         data_class=DataClass.OPEN),
        ObservedProperty("free-vehicles-by-area", "地区別の車両数", "Free vehicles by area",
                         kind=ResultKind.DOCUMENT, data_class=DataClass.OPEN),
        ObservedProperty("feed-document", "フィードの文書", "Document of the feed",
                         kind=ResultKind.DOCUMENT, data_class=DataClass.OPEN),
        # What was paid needs a grant of its own: who may see a trip need not see money.
        ObservedProperty("fare", "運賃", "Fare", "{JPY}", minimum=0, maximum=1_000_000, decimals=0,
                         data_class=DataClass.PERSONAL, category="pd:Transaction"),
    ),
)  # fmt: skip
