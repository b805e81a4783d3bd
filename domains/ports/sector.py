"""What the ports sector declares: the observed properties of vessels and AIS stations."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

# ITU-R M.1371-5, table 45 (navigational status), in the order of its codes 0 to 15.
NAVIGATION_STATUS = (
    "under-way-using-engine",
    "at-anchor",
    "not-under-command",
    "restricted-manoeuvrability",
    "constrained-by-draught",
    "moored",
    "aground",
    "engaged-in-fishing",
    "under-way-sailing",
    "reserved-high-speed-craft",
    "reserved-wing-in-ground",
    "towing-astern",
    "pushing-ahead-or-towing-alongside",
    "reserved",
    "ais-sart-active",
    "undefined",
)

OFF_POSITION = ("on-position", "off-position")

SECTOR = Sector(
    name="ports",
    title_ja="港湾",
    title_en="Ports",
    data_class=DataClass.OPEN,
    formats=("nmea", "csv"),
    thing_title_ja="船舶",
    thing_title_en="Vessel",
    colour="#0f766e",
    properties=(
        ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION),
        ObservedProperty("heading", "船首方位", "True heading", "deg", minimum=0, maximum=359),
        # 4.733 * sqrt(rate) = 126 is the largest indicated value: 708 degrees a minute.
        ObservedProperty(
            "rate-of-turn", "回頭角速度", "Rate of turn", "deg/min", minimum=-709, maximum=709
        ),
        ObservedProperty(
            "navigation-status",
            "航海状態",
            "Navigational status",
            kind=ResultKind.CATEGORY,
            vocabulary=NAVIGATION_STATUS,
        ),
        ObservedProperty("draught", "喫水", "Draught", "m", minimum=0, maximum=25.5),
        ObservedProperty("altitude", "高度", "Altitude", "m", minimum=0, maximum=4094),
        ObservedProperty("destination", "目的地", "Destination", kind=ResultKind.DOCUMENT),
        ObservedProperty(
            "eta", "到着予定時刻", "Estimated time of arrival", kind=ResultKind.DOCUMENT
        ),
        ObservedProperty("static-data", "静的情報", "Static data", kind=ResultKind.DOCUMENT),
        ObservedProperty(
            "off-position",
            "標識の位置ずれ",
            "Off-position indicator",
            kind=ResultKind.CATEGORY,
            vocabulary=OFF_POSITION,
        ),
        ObservedProperty("safety-text", "安全通報", "Safety text", kind=ResultKind.DOCUMENT),
        ObservedProperty("ais-message", "その他のAIS通報", "AIS message", kind=ResultKind.DOCUMENT),
    ),
)
