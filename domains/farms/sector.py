"""What the farms sector declares: soil, weather and device values of field sensors."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

DECIMALS = 3  # a digit or two finer than any field instrument (WMO-No. 8, part I, annex 1.A)


def _number(
    name: str,
    ja: str,
    en: str,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    decimals: int | None = DECIMALS,
) -> ObservedProperty:
    return ObservedProperty(name, ja, en, unit, minimum=low, maximum=high, decimals=decimals)


SECTOR = Sector(
    name="farms",
    title_ja="農地",
    title_en="Farms",
    data_class=DataClass.SHARED,
    formats=("lorawan", "csv"),
    thing_title_ja="圃場センサー",
    thing_title_en="Field sensor",
    colour="#4d7c0f",
    properties=(
        _number("soil-moisture", "土壌水分", "Soil water content", "%", 0, 100),
        _number("soil-temperature", "地温", "Soil temperature", "Cel", -40, 70),
        _number("soil-conductivity", "土壌EC", "Soil conductivity", "uS/cm", 0, 50_000),
        _number("dielectric-permittivity", "比誘電率", "Dielectric permittivity", "1", 0, 100),
        _number("percolation", "浸透量", "Percolation", "mm/d", 0, 500),
        _number("water-level", "水位", "Water level", "cm", -200, 1_000),
        _number("water-temperature", "水温", "Water temperature", "Cel", -5, 60),
        _number("air-temperature", "気温", "Air temperature", "Cel", -60, 60),
        _number("relative-humidity", "相対湿度", "Relative humidity", "%", 0, 100),
        _number("specific-humidity", "比湿", "Specific humidity", "kg/kg", 0, 0.1, decimals=7),
        _number("vapour-pressure", "水蒸気圧", "Vapour pressure", "kPa", 0, 20),
        _number("atmospheric-pressure", "気圧", "Atmospheric pressure", "hPa", 500, 1_100),
        _number("wind-speed", "風速", "Wind speed", "m/s", 0, 100),
        _number("wind-direction", "風向", "Wind direction", "deg", 0, 360),
        _number("maximum-wind-speed", "最大風速", "Maximum wind speed", "m/s", 0, 150),
        _number("wind-speed-north", "風速(北成分)", "North wind speed", "m/s", -100, 100),
        _number("wind-speed-east", "風速(東成分)", "East wind speed", "m/s", -100, 100),
        _number("solar-radiation", "日射量", "Solar radiation", "W/m2", 0, 2_000),
        _number("longwave-radiation", "長波放射", "Longwave radiation", "W/m2", 0, 1_000),
        _number("illuminance", "照度", "Illuminance", "lx", 0, 250_000),
        _number("precipitation", "降水量", "Precipitation", "mm", 0, 1_500),
        _number("snow-depth", "積雪深", "Snow depth", "cm", 0, 1_500),
        _number("snowfall", "降雪量(水当量)", "Snowfall, liquid equivalent", "mm", 0, 500),
        _number("snowfall-probability", "降雪確率", "Snowfall probability", "1", 0, 1, decimals=5),
        _number("lightning-count", "落雷回数", "Lightning strikes", "1", 0, 65_535),
        _number("lightning-distance", "落雷距離", "Lightning distance", "km", 0, 100),
        _number("leaf-wetness", "葉面の濡れ", "Leaf wetness", "%", 0, 100),
        _number("co2", "二酸化炭素濃度", "Carbon dioxide", "[ppm]", 0, 20_000),
        _number("ph", "pH", "pH", "[pH]", 0, 14),
        _number("temperature", "温度", "Temperature", "Cel", -60, 100),
        _number("humidity", "湿度", "Humidity", "%", 0, 100),
        _number("external-temperature", "外部温度計", "External probe", "Cel", -60, 130),
        _number("internal-temperature", "機器内温度", "Temperature inside", "Cel", -60, 100),
        _number("battery-voltage", "電池電圧", "Battery voltage", "V", 0, 30),
        _number("battery", "電池残量", "Battery", "%", 0, 100),
        _number("tilt-x", "傾きX", "Tilt X", "deg", -180, 180),
        _number("tilt-y", "傾きY", "Tilt Y", "deg", -180, 180),
        _number("compass-heading", "方位", "Compass heading", "deg", 0, 360),
        ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION),
    ),
)
