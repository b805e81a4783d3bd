"""What the edge sector declares: KPIs of 5G and LTE nodes and modems."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

DECIMALS = 3  # µs of a round trip, bit/ms of a throughput: finer than any modem tells
DBM = "dB{mW}"  # UCUM has no dBm: decibels, with the reference level as an annotation


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
    name="edge",
    title_ja="5Gエッジ",
    title_en="5G edge",
    data_class=DataClass.SHARED,
    formats=("csv",),
    thing_title_ja="エッジノード",
    thing_title_en="Edge node",
    colour="#7c3aed",
    properties=(
        # Ranges of 3GPP TS 36.133 and 38.133, section 10 (measurement report mapping).
        _number("rsrp", "LTE受信電力", "LTE RSRP", DBM, -156, -31),
        _number("rsrq", "LTE受信品質", "LTE RSRQ", "dB", -43, 20),
        _number("rssi", "LTE受信信号強度", "LTE RSSI", DBM, -130, -10),
        _number("sinr", "LTE信号対雑音比", "LTE SINR", "dB", -23, 40),
        _number("cqi", "LTEチャネル品質指標", "LTE CQI", "1", 0, 15),
        _number("nr-rsrp", "5G受信電力", "NR RSRP", DBM, -156, -31),
        _number("nr-rsrq", "5G受信品質", "NR RSRQ", "dB", -43, 20),
        _number("nr-rssi", "5G受信信号強度", "NR RSSI", DBM, -130, -10),
        _number("nr-sinr", "5G信号対雑音比", "NR SINR", "dB", -23, 40),
        _number("nr-uplink-bandwidth", "5G上り帯域幅", "NR uplink bandwidth", "MHz", 0, 400),
        _number("rtt", "往復遅延", "Round-trip time", "ms", 0, 60_000),
        _number("latency", "遅延", "Latency", "ms", 0, 60_000),
        _number("jitter", "遅延のゆらぎ", "Jitter", "ms", 0, 60_000),
        _number("packet-loss", "パケット損失率", "Packet loss", "%", 0, 100),
        _number("throughput", "スループット", "Throughput", "Mbit/s", 0, 100_000),
        _number("uplink-throughput", "上りスループット", "Uplink throughput", "Mbit/s", 0, 100_000),
        _number(
            "downlink-throughput", "下りスループット", "Downlink throughput", "Mbit/s", 0, 100_000
        ),
        _number("sent-bytes", "送信バイト数", "Bytes sent", "By", 0),
        _number("received-bytes", "受信バイト数", "Bytes received", "By", 0),
        _number("load", "CPU負荷", "CPU load", "%", 0, 100),
        _number("memory", "メモリ使用率", "Memory in use", "%", 0, 100),
        _number("connected-devices", "接続端末数", "Connected devices", "1", 0, 1_000_000),
        _number("temperature", "温度", "Temperature", "Cel", -60, 120),
        _number("humidity", "湿度", "Humidity", "%", 0, 100),
        _number("power", "消費電力", "Power draw", "W", 0, 100_000),
        _number("battery", "電池残量", "Battery", "%", 0, 100),
        _number("heartbeat", "ハートビート", "Heartbeat", "1", 0),
        _number("uptime", "稼働時間", "Uptime", "s", 0),
        _number("altitude", "標高", "Altitude", "m", -500, 10_000),
        ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION),
        ObservedProperty("network-mode", "接続方式", "Network mode", kind=ResultKind.DOCUMENT),
        ObservedProperty("cell", "接続セル", "Serving cell", kind=ResultKind.DOCUMENT),
        ObservedProperty("operator", "通信事業者", "Operator", kind=ResultKind.DOCUMENT),
    ),
)
