"""Purposes, categories of personal data and operations: trees of W3C DPV 2.3 terms, and of our own.

A code is a CURIE. A grant for a code reaches what lies below it, except through a term marked
`explicit`, which needs a grant of its own: DPV is a graph in which SellDataToThirdParties lies below
ServiceProvision, and MedicalHealth below what is external to a person. Of its several parents each
term has one here. A later version may add terms or mark one explicit; moving one would widen grants
that were given before, and asks for them anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from core.errors import invalid

VERSION = "dpv-2.3/chimata-1"
PREFIXES = {
    "dpv": "https://w3id.org/dpv#",
    "pd": "https://w3id.org/dpv/pd#",
    "health": "https://w3id.org/dpv/sector/health#",
    "infra": "https://w3id.org/dpv/sector/infra#",
    "public": "https://w3id.org/dpv/sector/publicservices#",
    "chimata": "urn:chimata:ns#",
}
PURPOSE, CATEGORY = "dpv:Purpose", "dpv:PersonalData"
"""Roots. Nobody can grant these: a purpose is to be as specific as possible (APPI Art. 17(1))."""


class Operation(StrEnum):
    """What a recipient may do; none implies another."""

    READ = "read"
    DERIVE = "derive"
    ANONYMISE = "anonymise"
    RESHARE = "reshare"


PROCESSING: Mapping[Operation, tuple[str, ...]] = {
    Operation.READ: ("dpv:Access", "dpv:Query", "dpv:Retrieve"),
    Operation.DERIVE: ("dpv:Derive", "dpv:Aggregate"),
    Operation.ANONYMISE: ("dpv:Anonymise",),
    Operation.RESHARE: ("dpv:Share",),
}
"""The DPV terms that say so in a record (dpv:hasProcessing)."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term: its parent in our tree, titles, and whether it needs a grant of its own.

    `special`: personal information that requires care (APPI Art. 2(3), or special in DPV).
    """

    code: str
    parent: str
    ja: str
    en: str
    explicit: bool = False
    special: bool = False

    @property
    def iri(self) -> str:
        """The published name in full."""
        prefix, _, name = self.code.partition(":")
        return PREFIXES[prefix] + name


E, S = True, True
_PURPOSES = (
    Term("dpv:ServiceManagement", PURPOSE, "サービスの管理・運営", "Running a service"),
    Term("dpv:ServiceProvision", "dpv:ServiceManagement", "サービスの提供", "Providing a service"),
    Term("dpv:RequestedServiceProvision", "dpv:ServiceProvision", "本人が求めたサービスの提供", "Providing a service that the person asked for"),
    Term("public:PublicServiceProvision", "dpv:ServiceProvision", "行政・公共サービスの提供", "Providing a public service"),
    Term("health:ServiceProvision", "dpv:ServiceProvision", "診療・介護など医療サービスの提供", "Providing health care", E),
    Term("dpv:PaymentManagement", "dpv:ServiceManagement", "料金の請求・支払い", "Billing and payment"),
    Term("dpv:ServicePersonalisation", "dpv:ServiceManagement", "一人ひとりに合わせたサービス", "Personalising a service"),
    Term("dpv:ProvidePersonalisedRecommendations", "dpv:ServicePersonalisation", "個人向けのおすすめ", "Personal recommendations"),
    Term("dpv:ServiceOptimisation", "dpv:ServiceManagement", "サービスの効率化・最適化", "Optimising a service"),
    Term("dpv:ImproveExistingProductsAndServices", "dpv:ServiceOptimisation", "既存の製品・サービスの改善", "Improving products and services"),
    Term("dpv:ServiceUsageAnalytics", "dpv:ServiceManagement", "利用状況の分析", "Analysing how a service is used"),
    Term("dpv:SellDataToThirdParties", "dpv:ServiceProvision", "第三者へのデータの販売", "Selling data to others", E),
    Term("dpv:SellInsightsFromData", "dpv:ServiceProvision", "分析結果の販売", "Selling what is learned from data", E),
    Term("dpv:ResearchAndDevelopment", PURPOSE, "研究開発", "Research and development"),
    Term("dpv:AcademicResearch", "dpv:ResearchAndDevelopment", "学術研究", "Academic research"),
    Term("dpv:ScientificResearch", "dpv:ResearchAndDevelopment", "科学研究", "Scientific research"),
    Term("dpv:NonCommercialResearch", "dpv:ResearchAndDevelopment", "非営利の研究", "Non-commercial research"),
    Term("dpv:CommercialResearch", "dpv:ResearchAndDevelopment", "営利目的の研究", "Commercial research", E),
    Term("dpv:PublicBenefit", PURPOSE, "公益", "Public benefit"),
    Term("dpv:ImprovePublicServices", "dpv:PublicBenefit", "公共サービスの改善", "Improving public services"),
    Term("dpv:ImproveTransportMobility", "dpv:PublicBenefit", "交通・移動の改善", "Improving transport"),
    Term("dpv:ImproveHealthcare", "dpv:PublicBenefit", "医療・健康増進の改善", "Improving health care"),
    Term("dpv:CombatClimateChange", "dpv:PublicBenefit", "気候変動への対策", "Combating climate change"),
    Term("dpv:ProvideOfficialStatistics", "dpv:PublicBenefit", "公的統計の作成", "Official statistics"),
    Term("dpv:ProtectionOfPublicSecurity", "dpv:PublicBenefit", "公共の安全の確保", "Public security", E),
    Term("health:PublicHealthSurveillance", PURPOSE, "公衆衛生・感染症の発生動向の把握", "Public health surveillance", E),
    Term("health:EmergencyCareManagement", PURPOSE, "救急医療", "Emergency care", E),
    Term("infra:CriticalEmergencyResponseManagement", PURPOSE, "消防・救助など緊急対応", "Emergency response", E),
    Term("dpv:Marketing", PURPOSE, "マーケティング", "Marketing", E),
    Term("dpv:Advertising", "dpv:Marketing", "広告（個人に合わせないもの）", "Advertising, the same for all"),
    Term("dpv:PersonalisedAdvertising", "dpv:Advertising", "個人に合わせた広告", "Personalised advertising", E),
    Term("dpv:FraudPreventionAndDetection", PURPOSE, "不正の防止・検知", "Preventing fraud", E),
    Term("dpv:LegalCompliance", PURPOSE, "法令上の義務の履行", "Complying with the law", E),
    Term("dpv:RightsFulfilment", PURPOSE, "本人の権利行使への対応", "Answering a person's rights", E),
)  # fmt: skip
_CATEGORIES = (
    Term("pd:Identifying", CATEGORY, "本人を識別する情報", "What identifies a person"),
    Term("pd:Name", "pd:Identifying", "氏名", "Name"),
    Term("pd:OfficialID", "pd:Identifying", "公的な番号・証明書", "Official number or document"),
    Term("pd:UID", "pd:Identifying", "固有の識別子", "Unique identifier"),
    Term("pd:Picture", "pd:Identifying", "画像・写真", "Picture"),
    Term("pd:Biometric", "pd:Identifying", "生体情報", "Biometrics", E, S),
    Term("pd:Contact", CATEGORY, "連絡先", "Contact"),
    Term("pd:EmailAddress", "pd:Contact", "メールアドレス", "E-mail address"),
    Term("pd:TelephoneNumber", "pd:Contact", "電話番号", "Telephone number"),
    Term("pd:Location", CATEGORY, "位置情報", "Location"),
    Term("pd:PhysicalAddress", "pd:Location", "住所", "Address", E),
    Term("pd:CurrentLocation", "pd:Location", "現在地", "Where a person is now"),
    Term("pd:GPSCoordinate", "pd:CurrentLocation", "GPS座標", "GPS coordinates"),
    Term("pd:TravelHistory", "pd:Location", "移動履歴", "Where a person has been"),
    Term("chimata:MovementTrack", "pd:TravelHistory", "移動の軌跡（GPS）", "Track of movement (GPS)"),
    Term("chimata:TransitTap", "pd:TravelHistory", "改札・乗降の記録", "Gates and boardings of public transport"),
    Term("pd:HomeLocation", "pd:Location", "自宅", "Home"),
    Term("pd:WorkLocation", "pd:Location", "勤務先", "Place of work"),
    Term("pd:DeviceBased", CATEGORY, "端末の情報", "Device"),
    Term("pd:Vehicle", CATEGORY, "車両", "Vehicle"),
    Term("pd:VehicleUsage", "pd:Vehicle", "車両の利用・運転状況", "How a vehicle is used"),
    Term("pd:MedicalHealth", CATEGORY, "医療・健康情報", "Medical and health data", E, S),
    Term("pd:HealthRecord", "pd:MedicalHealth", "診療記録", "Health record"),
    Term("pd:Prescription", "pd:MedicalHealth", "処方", "Prescription"),
    Term("pd:Health", "pd:MedicalHealth", "健康状態", "Health"),
    Term("pd:PhysicalHealth", "pd:Health", "身体の健康", "Physical health"),
    Term("pd:MentalHealth", "pd:Health", "こころの健康", "Mental health"),
    Term("pd:Genetic", "pd:Health", "遺伝情報", "Genetic data", E),
    Term("chimata:VitalSign", "pd:PhysicalHealth", "バイタルサイン", "Vital signs"),
    Term("chimata:HeartRate", "chimata:VitalSign", "心拍数", "Heart rate"),
    Term("chimata:BloodPressure", "chimata:VitalSign", "血圧", "Blood pressure"),
    Term("chimata:BodyTemperature", "chimata:VitalSign", "体温", "Body temperature"),
    Term("chimata:OxygenSaturation", "chimata:VitalSign", "酸素飽和度", "Oxygen saturation"),
    Term("health:PersonGeneratedHealthData", "pd:MedicalHealth", "本人が記録した健康データ", "Health data that the person recorded"),
    Term("pd:Behavioural", CATEGORY, "行動の情報", "Behaviour"),
    Term("pd:ServiceConsumptionBehaviour", "pd:Behavioural", "サービスの利用状況", "Use of services"),
    Term("pd:Household", CATEGORY, "家庭での活動", "Household"),
    Term("chimata:EnergyUse", "pd:Household", "電気・ガス・水道の使用量", "Use of energy and water"),
    Term("pd:Financial", CATEGORY, "金銭に関する情報", "Finances", E),
    Term("pd:Transaction", "pd:Financial", "取引", "Transactions"),
    Term("pd:Demographic", CATEGORY, "属性（人口統計）", "Demographics"),
    Term("pd:Age", CATEGORY, "年齢", "Age"),
    Term("pd:Race", CATEGORY, "人種・民族", "Race and ethnic origin", E, S),
    Term("pd:ReligiousBelief", CATEGORY, "信条", "Belief", E, S),
    Term("pd:Criminal", CATEGORY, "犯罪の経歴", "Criminal record", E, S),
    Term("pd:SocialStatus", CATEGORY, "社会的身分", "Social status", E, S),
)  # fmt: skip


class Tree:
    """A tree of terms: what reaches what."""

    def __init__(self, root: str, terms: Iterable[Term]) -> None:
        self.root = root
        self.terms = {term.code: term for term in terms}
        self._reaching = {code: tuple(self._chain(code)) for code in self.terms}

    def __contains__(self, code: object) -> bool:
        return code in self.terms

    def check(self, field: str, code: str) -> None:
        """CityError `invalid` for a code that nobody can grant or ask for."""
        if code not in self.terms:
            raise invalid(field, f"{code!r} is not in /v1/consent/vocabulary")

    def reaching(self, code: str) -> tuple[str, ...]:
        """The codes of which a grant permits this one, itself first; none for an unknown one."""
        return self._reaching.get(code, ())

    def reached(self, codes: Iterable[str]) -> list[str]:
        """All terms that grants for these permit: themselves and what lies below them."""
        wanted = set(codes)
        return [code for code, chain in self._reaching.items() if wanted.intersection(chain)]

    def above(self, code: str) -> tuple[str, ...]:
        """It and all above it, but the root; none for an unknown one."""
        chain = []
        while code in self.terms:
            chain.append(code)
            code = self.terms[code].parent
        return tuple(chain)

    def touching(self, code: str) -> tuple[str, ...]:
        """It, all above it and all below it: the grants that an objection to it touches."""
        below = (each for each in self.terms if code in self.above(each))
        return tuple(sorted({*self.above(code), *below}))

    def meet(self, one: str, other: str) -> bool:
        """Whether something is reached by both of two codes."""
        return one in self.reaching(other) or other in self.reaching(one)

    def is_special(self, code: str) -> bool:
        """Whether it, or a term above it, requires care; an unknown one does."""
        above = self.above(code)
        return not above or any(self.terms[each].special for each in above)

    def _chain(self, code: str) -> Iterable[str]:
        while code != self.root:
            yield code
            if self.terms[code].explicit:
                return
            code = self.terms[code].parent


PURPOSES = Tree(PURPOSE, _PURPOSES)
CATEGORIES = Tree(CATEGORY, _CATEGORIES)
EMERGENCIES = {
    "health:EmergencyCareManagement": "27-1-2",
    "infra:CriticalEmergencyResponseManagement": "27-1-2",
    "health:PublicHealthSurveillance": "27-1-3",
}
"""The purposes of an emergency override, these and no others, with the item of APPI Art. 27(1) that
allows each without consent: (ii) a life, a body or property (dpv:VitalInterest), (iii) public health
(dpv:PublicInterest); both only where consent is hard to get."""
