"""Presets: a few statements under one name, for those who do not want to think about each."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID, uuid5

from consent.levels import NUMBERS
from consent.matching import Statement, Verdict
from consent.reasons import Words, words
from consent.vocabulary import Operation

SPACE = UUID("1b0f7c2e-2a55-5c9e-9f0a-6d0c8a3f7e51")
"""The name space of ids that are made from others (RFC 9562, version 5)."""
DEFAULT = "ask-me"


@dataclass(frozen=True, slots=True)
class Preset:
    """What it is called, what it means for a person, and what it states; ids are filled in."""

    title: Words
    meaning: Words
    statements: tuple[Statement, ...]

    def of(self, subject: int) -> tuple[Statement, ...]:
        """Its statements as one person's."""
        return tuple(
            Statement(
                uuid5(SPACE, f"preset {subject} {number}"),
                each.verdict,
                *each.axes(),
                level=each.level,
                operations=each.operations,
                countries=each.countries,
                otherwise=each.otherwise,
            )
            for number, each in enumerate(self.statements)
        )


_NIL = UUID(int=0)
_HOME = ("JP",)

PRESETS: Mapping[str, Preset] = {
    "ask-me": Preset(
        words("そのつど確認", "Ask me each time"),
        words(
            "何も自動では渡しません。依頼があるたびに、あなたに確認します。",
            "Nothing is given by itself. Whenever somebody asks, you are asked.",
        ),
        (),
    ),
    "care-and-public-benefit": Preset(
        words("医療と公益のために", "For care and public benefit"),
        words(
            "診療・介護のための健康情報は、日本の病院や診療所に渡します。位置と家庭のエネルギー使用は、"
            "公益と学術研究のために、公的機関・大学・非営利団体に、1時間・1 kmごとにまとめて国内で"
            "だけ渡します。広告・勧誘とデータの販売は断ります。ほかはすべて、そのつど確認します。",
            "Health data go to hospitals and clinics in Japan for your care. Where you are and the "
            "energy you use go to public bodies, universities and non-profits, for public benefit "
            "and academic research, by hours and 1 km at most, within Japan. Advertising and the "
            "sale of data are refused. For everything else you are asked.",
        ),
        (
            Statement(
                _NIL,
                Verdict.ALLOW,
                ("health:ServiceProvision",),
                ("pd:MedicalHealth",),
                ("dpv:HealthcareOrganisation",),
                operations=(Operation.READ, Operation.DERIVE, Operation.ANONYMISE),
                countries=_HOME,
            ),
            Statement(
                _NIL,
                Verdict.ALLOW,
                ("dpv:PublicBenefit", "dpv:AcademicResearch", "dpv:ScientificResearch"),
                ("pd:Location", "pd:Household"),
                (
                    "dpv:GovernmentalOrganisation",
                    "dpv:AcademicScientificOrganisation",
                    "dpv:NonProfitOrganisation",
                ),
                level=NUMBERS["hour"],
                operations=(Operation.READ, Operation.DERIVE, Operation.ANONYMISE),
                countries=_HOME,
            ),
            Statement(
                _NIL,
                Verdict.REFUSE,
                ("dpv:Marketing", "dpv:SellDataToThirdParties", "dpv:SellInsightsFromData"),
            ),
        ),
    ),
    "anonymous-only": Preset(
        words("匿名でだけ", "Anonymously only"),
        words(
            "あなたとわかる形では、だれにも渡しません。匿名化した統計などへの利用は、国内でだけ許可します。"
            "医療・健康、生体、金銭などの情報と、販売・広告・捜査などの目的は、匿名化する場合もそのつど確認します。",
            "Nothing goes to anybody in a form that tells who you are. Use once anonymised is "
            "allowed, within Japan. For health, biometric, financial and similar data, and for "
            "sale, advertising, policing and the like, you are asked even then.",
        ),
        (Statement(_NIL, Verdict.ALLOW, operations=(Operation.ANONYMISE,), countries=_HOME),),
    ),
    "nothing": Preset(
        words("すべて断る", "Nothing"),
        words(
            "どの依頼も断り、あなたには確認しません。あなた自身がすでに許可したものは、取り消すまで続きます。",
            "Every request is refused, and you are not asked. What you granted yourself goes on "
            "until you take it back.",
        ),
        (Statement(_NIL, Verdict.REFUSE),),
    ),
}
"""They show in this order; the default states nothing, so everything is asked."""
