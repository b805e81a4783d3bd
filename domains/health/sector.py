"""What the health sector declares: vital signs, their units, and what each tells of a person."""

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind
from domains.health.wire import DOCUMENTS

ACTIVITIES = ("still", "walking", "running", "cycling", "in-vehicle", "sleeping")
VITAL, RECORDED = "chimata:VitalSign", "health:PersonGeneratedHealthData"


def _number(
    name: str, ja: str, en: str, unit: str, low: float, high: float, category: str, decimals: int
) -> ObservedProperty:
    return ObservedProperty(
        name, ja, en, unit, minimum=low, maximum=high, decimals=decimals, category=category
    )


def _document(category: str, name: str) -> ObservedProperty:
    return ObservedProperty(
        name, "FHIRリソース", "FHIR resource", kind=ResultKind.DOCUMENT,
        category=category, identifying=True,
    )  # fmt: skip


SECTOR = Sector(
    name="health",
    title_ja="健康",
    title_en="Health",
    data_class=DataClass.PERSONAL,
    formats=("fhir",),
    thing_title_ja="計測機器",
    thing_title_en="Device",
    colour="#be185d",
    properties=(
        # Units: FHIR R4 vital signs. Ranges: outside of them no living person was measured.
        _number("heart-rate", "心拍数", "Heart rate", "/min", 0, 350, "chimata:HeartRate", 1),
        _number("respiratory-rate", "呼吸数", "Respiratory rate", "/min", 0, 150, VITAL, 1),
        _number("oxygen-saturation", "酸素飽和度", "Oxygen saturation", "%", 0, 100,
                "chimata:OxygenSaturation", 1),
        _number("body-temperature", "体温", "Body temperature", "Cel", 13, 47,
                "chimata:BodyTemperature", 2),
        _number("systolic-blood-pressure", "収縮期血圧", "Systolic blood pressure", "mm[Hg]", 0,
                400, "chimata:BloodPressure", 1),
        _number("diastolic-blood-pressure", "拡張期血圧", "Diastolic blood pressure", "mm[Hg]", 0,
                400, "chimata:BloodPressure", 1),
        _number("body-height", "身長", "Body height", "cm", 10, 280, "pd:PhysicalHealth", 1),
        _number("body-weight", "体重", "Body weight", "kg", 0.2, 700, "pd:PhysicalHealth", 2),
        _number("body-mass-index", "BMI", "Body mass index", "kg/m2", 5, 250,
                "pd:PhysicalHealth", 2),
        _number("steps", "歩数", "Steps", "1", 0, 200_000, RECORDED, 0),
        ObservedProperty("activity", "活動", "Activity", kind=ResultKind.CATEGORY,
                         vocabulary=ACTIVITIES, category=RECORDED),
        ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION,
                         category="chimata:MovementTrack"),
        ObservedProperty("ecg", "心電図", "Electrocardiogram", kind=ResultKind.DOCUMENT,
                         category=VITAL),
        *(_document(*each) for each in DOCUMENTS.items()),
    ),
)  # fmt: skip
