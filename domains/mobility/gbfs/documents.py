"""The files of GBFS and their fields (gbfs.md of 3.0 and 2.3), each said once."""

from dataclasses import dataclass

from domains.mobility.gbfs.fields import (
    AREA,
    BOOLEAN,
    CAPACITY,
    COLOUR,
    COUNTRY,
    CURRENCY,
    DATE,
    EMAIL,
    FRACTION,
    GROUP,
    ID,
    IDS,
    LANGUAGES,
    LATITUDE,
    LINKS,
    LONGITUDE,
    NUMBER,
    PHONE,
    PRICE,
    RATE,
    STRING,
    TEXT,
    TIME,
    URI,
    WHOLE,
    ZONE,
    Field,
    Table,
    choice,
    choices,
    many,
    one,
)

RENTAL_URIS: Table = (Field("android", URI), Field("ios", URI), Field("web", URI))
APP: Table = (Field("store_uri", URI, True), Field("discovery_uri", URI, True))

SYSTEM_INFORMATION: Table = (
    Field("system_id", ID, True),
    Field("languages", LANGUAGES, earlier=("language",), v2="language"),
    Field("name", TEXT, True),
    Field("opening_hours", STRING, v2=""),
    Field("short_name", TEXT),
    Field("operator", TEXT),
    Field("url", URI),
    Field("purchase_url", URI),
    Field("start_date", DATE),
    Field("termination_date", DATE, v2=""),
    Field("phone_number", PHONE),
    Field("email", EMAIL),
    Field("feed_contact_email", EMAIL),
    Field("timezone", ZONE, True),
    Field("license_id", STRING, v2=""),
    Field("license_url", URI),
    Field("attribution_organization_name", TEXT, v2=""),
    Field("attribution_url", URI, v2=""),
    Field(
        "brand_assets",
        one(
            (
                Field("brand_last_modified", DATE, True),
                Field("brand_terms_url", URI),
                Field("brand_image_url", URI, True),
                Field("brand_image_url_dark", URI),
                Field("color", COLOUR),
            )
        ),
    ),
    Field("terms_url", LINKS),
    Field("terms_last_updated", DATE),
    Field("privacy_url", LINKS),
    Field("privacy_last_updated", DATE),
    Field("rental_apps", one((Field("android", one(APP)), Field("ios", one(APP))))),
)

VEHICLE_TYPE: Table = (
    Field("vehicle_type_id", ID, True),
    Field(
        "form_factor",
        choice(
            "bicycle", "cargo_bicycle", "car", "moped", "scooter_standing", "scooter_seated",
            "other", scooter="scooter_standing",
        ),
        True,
    ),
    Field("rider_capacity", WHOLE),
    Field("cargo_volume_capacity", WHOLE),
    Field("cargo_load_capacity", WHOLE),
    Field(
        "propulsion_type",
        choice(
            "human", "electric_assist", "electric", "combustion", "combustion_diesel", "hybrid",
            "plug_in_hybrid", "hydrogen_fuel_cell",
        ),
        True,
    ),
    Field(
        "eco_labels",
        many((Field("country_code", COUNTRY, True), Field("eco_sticker", STRING, True))),
        earlier=("eco_label",),
        v2="eco_label",
    ),
    Field("max_range_meters", NUMBER),
    Field("name", TEXT),
    Field(
        "vehicle_accessories",
        choices(
            "air_conditioning", "automatic", "manual", "convertible", "cruise_control", "doors_2",
            "doors_3", "doors_4", "doors_5", "navigation",
        ),
    ),
    Field("g_CO2_km", WHOLE),
    Field("vehicle_image", URI),
    Field("make", TEXT),
    Field("model", TEXT),
    Field("color", STRING),
    Field("description", TEXT, v2=""),
    Field("wheel_count", WHOLE),
    Field("max_permitted_speed", WHOLE),
    Field("rated_power", WHOLE),
    Field("default_reserve_time", WHOLE),
    Field(
        "return_constraint",
        choice("free_floating", "roundtrip_station", "any_station", "hybrid"),
    ),
    Field(
        "vehicle_assets",
        one(
            (
                Field("icon_url", URI, True),
                Field("icon_url_dark", URI),
                Field("icon_last_modified", DATE, True),
            )
        ),
    ),
    Field("default_pricing_plan_id", ID),
    Field("pricing_plan_ids", IDS),
)  # fmt: skip

STATION: Table = (
    Field("station_id", ID, True),
    Field("name", TEXT, True),
    Field("short_name", TEXT),
    Field("lat", LATITUDE, True),
    Field("lon", LONGITUDE, True),
    Field("address", STRING),
    Field("cross_street", STRING),
    Field("region_id", ID),
    Field("post_code", STRING),
    Field("station_opening_hours", STRING, v2=""),
    Field(
        "rental_methods",
        choices(
            "key", "creditcard", "paypass", "applepay", "androidpay", "transitcard",
            "accountnumber", "phone",
        ),
    ),
    Field("is_virtual_station", BOOLEAN),
    Field("station_area", AREA),
    Field(
        "parking_type",
        choice(
            "parking_lot", "street_parking", "underground_parking", "sidewalk_parking", "other"
        ),
    ),
    Field("parking_hoop", BOOLEAN),
    Field("contact_phone", STRING),
    Field("capacity", WHOLE),
    Field("vehicle_types_capacity", CAPACITY, earlier=("vehicle_capacity",), v2="vehicle_capacity"),
    Field(
        "vehicle_docks_capacity", CAPACITY,
        earlier=("vehicle_type_capacity",), v2="vehicle_type_capacity",
    ),
    Field("is_valet_station", BOOLEAN),
    Field("is_charging_station", BOOLEAN),
    Field("rental_uris", one(RENTAL_URIS)),
)  # fmt: skip

STATION_STATUS: Table = (
    Field("station_id", ID, True),
    Field(
        "num_vehicles_available", WHOLE, True,
        earlier=("num_bikes_available",), v2="num_bikes_available",
    ),
    Field(
        "vehicle_types_available", many((Field("vehicle_type_id", ID, True), GROUP[1]))
    ),
    Field(
        "num_vehicles_disabled", WHOLE,
        earlier=("num_bikes_disabled",), v2="num_bikes_disabled",
    ),
    Field("num_docks_available", WHOLE),
    Field("num_docks_disabled", WHOLE),
    Field("is_installed", BOOLEAN, True),
    Field("is_renting", BOOLEAN, True),
    Field("is_returning", BOOLEAN, True),
    Field("last_reported", TIME),
    Field("vehicle_docks_available", many(GROUP)),
)  # fmt: skip

# Without `last_reported` and names of the operator: both would let a vehicle be known again.
VEHICLE: Table = (
    Field("vehicle_id", ID, True, earlier=("bike_id",), v2="bike_id"),
    Field("lat", LATITUDE),
    Field("lon", LONGITUDE),
    Field("is_reserved", BOOLEAN, True),
    Field("is_disabled", BOOLEAN, True),
    Field("rental_uris", one(RENTAL_URIS)),
    Field("vehicle_type_id", ID),
    Field("current_range_meters", NUMBER),
    Field("current_fuel_percent", FRACTION),
    Field("station_id", ID),
    Field("home_station_id", ID),
    Field("pricing_plan_id", ID),
    Field(
        "vehicle_equipment",
        choices("child_seat_a", "child_seat_b", "child_seat_c", "winter_tires", "snow_chains"),
    ),
    Field("available_until", TIME, v2=""),
)

REGION: Table = (Field("region_id", ID, True), Field("name", TEXT, True))

_PRICES = many(
    (
        Field("start", WHOLE, True),
        Field("rate", RATE, True),
        Field("interval", WHOLE, True),
        Field("end", WHOLE),
    )
)
PLAN: Table = (
    Field("plan_id", ID, True),
    Field("url", URI),
    Field("name", TEXT, True),
    Field("currency", CURRENCY, True),
    Field("price", PRICE, True),
    Field("is_taxable", BOOLEAN, True),
    Field("description", TEXT, True),
    Field("per_km_pricing", _PRICES),
    Field("per_min_pricing", _PRICES),
    Field("surge_pricing", BOOLEAN),
)

ALERT: Table = (
    Field("alert_id", ID, True),
    Field(
        "type",
        choice(
            "system_closure", "station_closure", "station_move", "other",
            system_closed="system_closure", station_closed="station_closure",
        ),
        True,
    ),
    Field("times", many((Field("start", TIME, True), Field("end", TIME)))),
    Field("station_ids", IDS),
    Field("region_ids", IDS),
    Field("url", LINKS),
    Field("summary", TEXT, True),
    Field("description", TEXT),
    Field("last_updated", TIME),
)  # fmt: skip

# One rule of 2.x for starting and ending became two in 3.0; publish.py makes one of them again.
RULE: Table = (
    Field("vehicle_type_ids", IDS, earlier=("vehicle_type_id",), v2="vehicle_type_id"),
    Field("ride_start_allowed", BOOLEAN, True, earlier=("ride_allowed",), v2=""),
    Field("ride_end_allowed", BOOLEAN, True, earlier=("ride_allowed",), v2="ride_allowed"),
    Field("ride_through_allowed", BOOLEAN, True),
    Field("maximum_speed_kph", WHOLE),
    Field("station_parking", BOOLEAN),
)
ZONE_PROPERTIES: Table = (
    Field("name", TEXT),
    Field("start", TIME),
    Field("end", TIME),
    Field("rules", many(RULE)),
)
ZONE_FEATURE: Table = (
    Field("geometry", AREA, True),
    Field("properties", one(ZONE_PROPERTIES), True),
)

_DAYS = choices("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS: Table = (
    Field("user_types", choices("member", "nonmember"), True),
    Field("days", _DAYS, True),
    Field("start_time", STRING, True),
    Field("end_time", STRING, True),
)
CALENDAR: Table = (
    Field("start_month", WHOLE, True),
    Field("start_day", WHOLE, True),
    Field("start_year", WHOLE),
    Field("end_month", WHOLE, True),
    Field("end_day", WHOLE, True),
    Field("end_year", WHOLE),
)


@dataclass(frozen=True, slots=True)
class File:
    """One file: its name in 3.0 and in 2.3 ("": not there), where its items stand, their fields.

    `items` is "" where the data itself is the one item.
    """

    name: str
    v2: str
    items: str
    table: Table
    id: str


FILES: tuple[File, ...] = (
    File("system_information", "system_information", "", SYSTEM_INFORMATION, "system_id"),
    File("vehicle_types", "vehicle_types", "vehicle_types", VEHICLE_TYPE, "vehicle_type_id"),
    File("station_information", "station_information", "stations", STATION, "station_id"),
    File("station_status", "station_status", "stations", STATION_STATUS, "station_id"),
    File("vehicle_status", "free_bike_status", "vehicles", VEHICLE, "vehicle_id"),
    File("system_hours", "system_hours", "rental_hours", HOURS, ""),
    File("system_calendar", "system_calendar", "calendars", CALENDAR, ""),
    File("system_regions", "system_regions", "regions", REGION, "region_id"),
    File("system_pricing_plans", "system_pricing_plans", "plans", PLAN, "plan_id"),
    File("system_alerts", "system_alerts", "alerts", ALERT, "alert_id"),
    File("geofencing_zones", "geofencing_zones", "geofencing_zones", ZONE_FEATURE, ""),
)
BY_NAME = {file.name: file for file in FILES} | {file.v2: file for file in FILES}
ONLY_IN_2 = ("system_hours", "system_calendar")
