"""Kinds of recipient: a tree of W3C DPV 2.3 organisations, and of our own, for what persons state.

A recipient has one kind, as specific as possible. A statement for a kind reaches what lies below
it as a grant does (consent/vocabulary.py); those marked `explicit` decide about people by what they
know of them, so permitting them takes a statement of its own. Forbidding a kind forbids all below.

SQL asks consent.kind_of(recipient): a recipient of no known kind is permitted nothing by
statements.
"""

from consent.vocabulary import Term, Tree

KIND = "dpv:Organisation"
"""The root: no recipient's kind."""

_KINDS = (
    Term("dpv:GovernmentalOrganisation", KIND, "国・自治体などの公的機関", "Public body"),
    Term("chimata:LawEnforcement", "dpv:GovernmentalOrganisation", "警察・捜査機関", "Police and prosecution", True),
    Term("dpv:HealthcareOrganisation", KIND, "病院・診療所・介護事業者", "Hospital, clinic or care provider"),
    Term("dpv:AcademicScientificOrganisation", KIND, "大学・研究機関", "University or research institute"),
    Term("dpv:NonProfitOrganisation", KIND, "非営利団体", "Non-profit organisation"),
    Term("dpv:ForProfitOrganisation", KIND, "企業", "Company"),
    Term("chimata:TransportOperator", "dpv:ForProfitOrganisation", "交通事業者", "Transport operator"),
    Term("chimata:UtilityProvider", "dpv:ForProfitOrganisation", "電気・ガス・水道・通信事業者", "Utility or telecommunications company"),
    Term("chimata:Insurer", "dpv:ForProfitOrganisation", "保険会社", "Insurer", True),
    Term("chimata:CreditProvider", "dpv:ForProfitOrganisation", "銀行・信用情報事業者", "Bank or credit agency", True),
    Term("chimata:Employer", "dpv:ForProfitOrganisation", "雇用主・人材事業者", "Employer or staffing company", True),
    Term("chimata:DataBroker", "dpv:ForProfitOrganisation", "広告・データ販売事業者", "Advertising or data broker", True),
)  # fmt: skip

KINDS = Tree(KIND, _KINDS)
