"""The information bank over the real server: recipients, ethics board, and its end."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consent.vocabulary import CATEGORIES, PURPOSES
from core.settings import Settings
from core.tokens import Role
from tests.api.bank import CHARTER, Bank
from tests.api.conftest import Served, serving
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import Row

STATE = (
    "recipient", "recipient_profile", "board_member", "review", "review_vote", "charter",
    "closing", "handover", "granted", "mandate", "request",
)  # fmt: skip


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        yield Town(served, connection)


@pytest.fixture
def any_town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """The same on either kind of server."""
    with (
        serving(Settings(database_url=storage_url, data=tmp_path)) as served,
        psycopg.connect(storage_url, autocommit=True) as connection,
    ):
        yield Town(served, connection)


@pytest.fixture
def bank(town: Town) -> Bank:
    """With a recipient that has said all of itself."""
    made = Bank(town)
    assert made.register("clinic").status_code == 200
    return made


def folded(town: Town) -> dict[str, list[Any]]:
    """All that the fold made."""
    return {
        name: town.connection.execute(
            f"SELECT to_jsonb(t) FROM consent.{name} t ORDER BY to_jsonb(t)::text".encode()
        ).fetchall()
        for name in STATE
    }


# Recipients


def test_everyone_sees_who_recipients_are(bank: Bank) -> None:
    """Without a token, page by page, with an ETag; whoever has no profile too."""
    url, client = bank.town.served.url, bank.town.served.client
    bank.town.register("gym")
    bank.register("aquarium", benefit={"ja": "割引", "en": "A discount"})
    path, found = "/v1/recipients?limit=2", []
    while path:
        answer = client.get(url + path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, no-cache"
        again = client.get(url + path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        found += answer.json()["recipients"]
        path = answer.json()["next"]
    assert [each["recipient"] for each in found] == ["aquarium", "clinic", "gym"]
    assert found[0]["profile"]["benefit"]["en"] == "A discount"
    assert found[1]["profile"]["purpose_titles"][0]["en"] == "Running a service"
    assert found[2]["profile"] is None
    assert client.get(url + "/v1/recipients/clinic").json() == found[1]
    assert client.get(url + "/v1/recipients/nobody").status_code == 404


def test_registering_again_is_no_act(bank: Bank) -> None:
    assert bank.register("clinic").json()["sigma"] == 0
    assert bank.register("clinic", retention_days=30).json()["sigma"] > 0
    bank.operate("DELETE", "/v1/recipients/clinic")
    assert bank.operate("GET", "/v1/recipients/clinic").json()["suspended"]
    assert bank.register("clinic", retention_days=30).json()["sigma"] > 0


def test_what_a_profile_says_wrongly_is_named(bank: Bank) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("profile.kind", {"kind": "dpv:Organisation"}),
        ("profile.identifier.value",
         {"identifier": {"scheme": "houjin-bangou", "value": "1123456789012"}}),
        ("profile.identifier.value", {"identifier": {"scheme": "lei", "value": "0"}}),
        ("profile.purposes", {"purposes": ["dpv:Purpose"]}),
        ("profile.purposes", {"purposes": []}),
        ("profile.retention_days", {"retention_days": 0}),
        ("profile.benefit.en", {"benefit": {"ja": "割引"}}),
        ("profile.unheard-of", {"unheard-of": 1}),
    ]  # fmt: skip
    for name, profile in wrong:
        answer = bank.register("clinic", **profile)
        assert answer.status_code == 422, name
        assert answer.json()["errors"][0]["name"] == name


# The ethics board


def test_a_recipient_without_a_review_may_not_ask(bank: Bank) -> None:
    bank.town.register("gym")
    assert not bank.may_ask("clinic")
    assert not bank.may_ask("gym")
    bank.seat_all()
    assert bank.put_review(str(uuid4()), "gym").status_code == 409, "it has no profile"
    answer = bank.put_review(str(uuid4()), "clinic", purposes=["dpv:ResearchAndDevelopment"])
    assert answer.status_code == 409, "it is not registered for that"
    assert bank.put_review(str(uuid4()), "nobody").status_code == 422


def test_an_approval_reaches_downward_and_nowhere_else(bank: Bank) -> None:
    """As a grant does: what is marked `explicit` has to be named."""
    bank.approve("clinic", purposes=["dpv:ServicePersonalisation"], categories=["pd:Health"])
    for purpose in PURPOSES.terms:
        for category in CATEGORIES.terms:
            reached = "dpv:ServicePersonalisation" in PURPOSES.reaching(
                purpose
            ) and "pd:Health" in CATEGORIES.reaching(category)
            assert bank.may_ask("clinic", purpose, category) == reached, (purpose, category)


def test_an_approval_is_published_and_ends(bank: Bank) -> None:
    """On its day, without anyone's doing."""
    until = datetime.now(UTC) + timedelta(seconds=4)
    review = bank.approve("clinic", until=iso(until), conditions="週に一度まで")
    (shown,) = bank.operate("GET", "/v1/recipients/clinic").json()["approved"]
    assert (shown["review"], shown["conditions"]) == (review, "週に一度まで")
    assert bank.may_ask("clinic")
    bank.town.connection.execute("SELECT pg_sleep(4)")
    assert not bank.may_ask("clinic")
    assert bank.operate("GET", "/v1/recipients/clinic").json()["approved"] == []
    for days in (-1, 400):
        bad = iso(datetime.now(UTC) + timedelta(days=days))
        answer = bank.put_review(str(uuid4()), "clinic", until=bad)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["name"] == "until"


def test_property_no_approval_without_a_quorum(bank: Bank) -> None:
    """Any members, any votes: what is decided is what a naive count says."""
    seats = [("engineering", True), ("law", False), ("consumer", True), ("ethics", False),
             ("consumer", False)]  # fmt: skip
    for number, (field, outside) in enumerate(seats):
        bank.seat(f"m{number}", field, outside)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.sampled_from(["approve", "refuse", "recuse", None]), min_size=5, max_size=5))
    @example([None, "approve", None, "approve", "approve"])  # nobody from outside
    @example(["approve", "approve", "recuse", "approve", None])  # nobody for consumers
    @example(["approve", None, "approve", "refuse", "refuse"])  # as many for it as against it
    def holds(votes: list[str | None]) -> None:
        review = bank.ask("clinic")
        for number, vote in enumerate(votes):
            if vote is not None:
                own = {"interest": "取引先である"} if vote == "recuse" else {}
                assert bank.vote(review, f"m{number}", vote, **own).status_code == 200
        cast = [(seats[n], vote) for n, vote in enumerate(votes) if vote in ("approve", "refuse")]
        quorum = (
            len(cast) >= 3
            and any(outside for (_, outside), _ in cast)
            and any(field == "consumer" for (field, _), _ in cast)
        )
        answer = bank.decide(review)
        assert (answer.status_code == 200) == quorum, answer.text
        approved = sum(vote == "approve" for _, vote in cast) * 2 > len(cast)
        wanted = ("approved" if approved else "refused") if quorum else "open"
        assert bank.state(review) == wanted

    holds()


def test_who_has_an_interest_does_not_vote(bank: Bank) -> None:
    bank.seat_all()
    review = bank.ask("clinic")
    assert bank.vote(review, "mori", "approve", interest="株主である").status_code == 422
    assert bank.vote(review, "mori", "recuse").status_code == 422
    assert bank.vote(review, "mori", "recuse", interest="株主である").status_code == 200
    for member in ("sato", "ueda"):
        bank.vote(review, member, "approve")
    assert bank.decide(review).status_code == 409, "two votes are no quorum"
    votes = bank.operate("GET", f"/v1/bank/reviews/{review}").json()["votes"]
    assert [(v["member"], v["vote"], v["interest"]) for v in votes] == [
        ("mori", "recuse", "株主である"), ("sato", "approve", None), ("ueda", "approve", None),
    ]  # fmt: skip


def test_only_members_vote_and_each_for_itself(bank: Bank) -> None:
    bank.seat_all()
    review = bank.ask("clinic")
    assert bank.vote(review, "stranger", "approve").status_code == 409
    path = f"/v1/bank/reviews/{review}/vote"
    for role in set(Role) - {Role.BOARD}:
        answer = bank.town.send("PUT", path, role, "mori", {"vote": "approve", "reason": "x"})
        assert answer.status_code == 403, role
    first = bank.vote(review, "mori", "approve").json()["sigma"]
    assert bank.vote(review, "mori", "approve").json()["sigma"] == first, "said again, no act"
    assert bank.vote(review, "mori", "refuse").json()["sigma"] > first
    bank.vote(review, "sato", "approve")
    bank.vote(review, "ueda", "approve")
    assert bank.operate("DELETE", "/v1/bank/board/ueda").status_code == 200
    assert bank.decide(review).status_code == 409, "who has no seat has no vote"
    assert bank.vote(str(uuid4()), "mori", "approve").status_code == 404


def test_a_new_count_takes_an_approval_back_and_never_gives_one(bank: Bank) -> None:
    review = bank.approve("clinic")
    decided = bank.decide(review).json()["sigma"]
    assert bank.decide(review).json()["sigma"] == decided, "counted again, the same"
    for member in ("mori", "sato"):
        assert bank.vote(review, member, "refuse").status_code == 200
    assert bank.may_ask("clinic"), "until it is counted"
    assert bank.decide(review).status_code == 200
    assert bank.state(review) == "refused"
    assert not bank.may_ask("clinic")
    assert bank.vote(review, "mori", "approve").status_code == 409, "a refusal is the end"


WIDER: list[dict[str, Any]] = [
    {"purposes": ["dpv:ServiceManagement", "dpv:Marketing"]},
    {"retention_days": 91},
    {"kind": "chimata:DataBroker"},
    {"identifier": {"scheme": "other", "value": "HRB 1"}},
]
NARROWER: list[dict[str, Any]] = [
    {"purposes": ["dpv:ServicePersonalisation"]},
    {"retention_days": 89},
    {"contact": "045-000-0002"},
    {"benefit": {"ja": "割引", "en": "A discount"}},
]


def test_property_what_lets_it_do_more_ends_the_approval(bank: Bank) -> None:
    """And going back does not bring it back; a question that is open ends, too."""
    for change in WIDER:
        review, asked = bank.approve("clinic"), bank.ask("clinic")
        assert bank.register("clinic", **change).status_code == 200
        assert (bank.state(review), bank.state(asked)) == ("lapsed", "lapsed"), change
        assert not bank.may_ask("clinic", "dpv:ServicePersonalisation")
        bank.register("clinic")
        assert not bank.may_ask("clinic")


def test_what_lets_it_do_no_more_keeps_the_approval(bank: Bank) -> None:
    for change in NARROWER:
        bank.register("clinic")
        review = bank.approve("clinic")
        assert bank.register("clinic", **change).status_code == 200
        assert bank.state(review) == "approved", change
        assert bank.may_ask("clinic", "dpv:ServicePersonalisation")
        narrow = "purposes" in change
        assert bank.may_ask("clinic", "dpv:PaymentManagement") != narrow, "at once"


@pytest.mark.parametrize("how", ["abroad", "without a profile", "suspended"])
def test_a_recipient_elsewhere_or_unknown_may_not_ask(bank: Bank, how: str) -> None:
    review = bank.approve("clinic")
    if how == "abroad":
        bank.register("clinic", country="US")
    elif how == "suspended":
        bank.operate("DELETE", "/v1/recipients/clinic")
    else:
        bank.town.register("clinic")
    assert not bank.may_ask("clinic")
    bank.register("clinic")
    assert bank.may_ask("clinic") == (how == "suspended"), "suspended and back, it is as before"
    assert bank.state(review) == ("approved" if how == "suspended" else "lapsed")


def test_reviews_are_listed_page_by_page_for_board_and_operator(bank: Bank) -> None:
    bank.register("gym", kind="dpv:ForProfitOrganisation")
    asked = [bank.ask(recipient) for recipient in ("clinic", "gym", "clinic", "clinic")]
    path, found = "/v1/bank/reviews?recipient=clinic&limit=2", []
    while path:
        page = bank.town.send("GET", path, Role.BOARD, "mori").json()
        found += [each["id"] for each in page["reviews"]]
        path = page["next"]
    assert found == [asked[3], asked[2], asked[0]]
    assert len(bank.operate("GET", "/v1/bank/reviews").json()["reviews"]) == 4
    for role in (Role.CITIZEN, Role.RECIPIENT, Role.STAFF, Role.GATEWAY):
        assert bank.town.send("GET", "/v1/bank/reviews", role, "x").status_code == 403
    again = bank.operate("GET", f"/v1/bank/reviews/{asked[0]}").json()
    said = {name: again[name] for name in ("recipient", "purposes", "categories", "until")}
    assert bank.put_review(asked[0], **said).status_code == 200
    assert bank.put_review(asked[0], **{**said, "recipient": "gym"}).status_code == 409


# What a delegate may do


def test_property_a_delegate_grants_to_reviewed_recipients_alone(bank: Bank) -> None:
    """A person's own grant needs no review; what the bank does for the person needs one."""
    bank.town.register("gym")
    for recipient, why in (("gym", "beyond what the person states"), ("clinic", "not approved")):
        with pytest.raises(psycopg.errors.CheckViolation, match=why):
            bank.delegated("ai", recipient)
        assert bank.town.grant("ai", recipient=recipient).status_code == 200
    bank.approve("clinic")
    assert bank.delegated("ai", "clinic")


# The end


def test_property_closing_ends_what_the_bank_granted_and_nothing_else(bank: Bank) -> None:
    """All delegates' grants at once, on every channel; persons' own stand."""
    town = bank.town
    bank.approve("clinic")
    for person, thing in (("ai", "band"), ("ken", "watch")):
        town.bind(thing, [person], (DAY, None))
        town.store(Row((thing, "heart-rate"), DAY, float(len(person))))
    bank.delegated("ken", "clinic")
    town.grant("ai")
    assert sorted(row["result"] for row in town.ask("clinic")) == [2.0, 3.0]
    name = str(uuid4())
    first = bank.close(name)
    assert first.status_code == 200, first.text
    assert [row["result"] for row in town.ask("clinic")] == [2.0]
    assert bank.close(name).json()["sigma"] == first.json()["sigma"]
    assert bank.close().status_code == 409, "it closes once"
    assert not bank.may_ask("clinic")
    assert bank.put_review(str(uuid4()), "clinic").status_code == 409
    with pytest.raises(psycopg.errors.CheckViolation, match="has closed"):
        bank.delegated("ken", "clinic")
    assert town.grant("ken").status_code == 200, "the person's own word"


def test_property_silence_hands_nothing_over(bank: Bank) -> None:
    """To the successor go those who said so last, with the grants that stand."""
    town = bank.town
    for person in ("ai", "ken", "mio", "rin"):
        town.grant(person)
    path = "/v1/me/handover"
    early = town.send("PUT", path, Role.CITIZEN, "ai", {"choice": "erase"})
    assert early.status_code == 409, "nothing is handed over yet"
    bank.close()
    for person, choice in (("ai", "transfer"), ("ken", "transfer"), ("mio", "erase"),
                           ("ken", "neither")):  # fmt: skip
        answer = town.send("PUT", path, Role.CITIZEN, person, {"choice": choice})
        assert answer.status_code == 200, answer.text
        assert town.send("GET", path, Role.CITIZEN, person).json()["choice"] == choice
        again = town.send("PUT", path, Role.CITIZEN, person, {"choice": choice})
        assert again.json()["sigma"] == answer.json()["sigma"]
    assert town.send("GET", path, Role.CITIZEN, "rin").json() == {"choice": None, "at": None}
    page = bank.operate("GET", "/v1/bank/handover").json()
    assert page["counts"] == {"transfer": 1, "erase": 1, "neither": 1}
    assert [each["person"] for each in page["persons"]] == ["ai"]
    (standing,) = page["persons"][0]["grants"]
    assert (standing["recipient"], standing["purpose"]) == ("clinic", "dpv:ServiceManagement")


def test_without_a_successor_nothing_is_handed_over(bank: Bank) -> None:
    bank.close(successor=None)
    for choice, status in (("transfer", 409), ("erase", 200), ("neither", 200)):
        answer = bank.town.send("PUT", "/v1/me/handover", Role.CITIZEN, "ai", {"choice": choice})
        assert answer.status_code == status


# What it publishes


def test_everyone_sees_what_the_bank_says_of_itself(bank: Bank) -> None:
    url, client = bank.town.served.url, bank.town.served.client
    before = client.get(url + "/v1/bank").json()
    assert (before["charter"], before["board"], before["closing"]) == (None, [], None)
    bank.approve("clinic")
    first = bank.operate("PUT", "/v1/bank", CHARTER)
    assert first.status_code == 200, first.text
    assert bank.operate("PUT", "/v1/bank", CHARTER).json()["sigma"] == first.json()["sigma"]
    changed = CHARTER | {"terms": CHARTER["terms"] | {"version": "2"}}
    assert bank.operate("PUT", "/v1/bank", changed).json()["sigma"] > first.json()["sigma"]
    answer = client.get(url + "/v1/bank")
    assert answer.headers["cache-control"] == "public, no-cache"
    found = answer.json()
    assert found["charter"]["terms"]["version"] == "2"
    assert found["charter"]["desk"]["telephone"] == "045-000-0000"
    assert {seat["field"] for seat in found["board"]} == {"consumer", "law", "security"}
    assert (found["recipients"], found["approved"], found["refused"]) == (1, 1, 0)
    bank.close()
    assert client.get(url + "/v1/bank").json()["closing"]["successor"]["contact"] == "045-000-0001"
    without = {name: said for name, said in CHARTER.items() if name != "liability"}
    assert bank.operate("PUT", "/v1/bank", without).status_code == 422


# The journey


def test_a_recipient_from_its_registration_to_the_end_of_the_bank(
    any_town: Town, until: Callable[[Callable[[], bool]], None]
) -> None:
    """Registered, reviewed, asking; granted by what a person states; paid for; then it closes."""
    town, bank, asked = any_town, Bank(any_town), str(uuid4())
    town.bind("band", ["ai"], (DAY, None))
    town.store(Row(("band", "heart-rate"), DAY, 61.0))
    bank.operate("PUT", "/v1/bank", CHARTER)
    bank.state_allowed("ai")
    town.register("clinic")
    assert bank.request("clinic", asked).status_code == 403, "it has said too little of itself"
    bank.register("clinic")
    assert bank.request("clinic", asked).status_code == 403, "the board has not approved it"
    review = bank.approve("clinic")
    assert bank.request("clinic", asked).status_code == 200
    until(lambda: len(town.ask("clinic")) == 1)
    (row,) = town.ask("clinic")
    benefit = {"person": row["persons"][0], "request": asked, "kind": "points", "amount": "120",
               "unit": "pt", "text": "9月分", "day": "2026-10-01"}  # fmt: skip
    path = f"/v1/recipients/clinic/benefits/{uuid4()}"
    assert town.send("PUT", path, Role.RECIPIENT, "clinic", benefit).status_code == 200
    bank.delegated("ken", "clinic")
    assert bank.close().status_code == 200
    assert town.ask("clinic") == []
    assert bank.request("clinic", str(uuid4())).status_code == 403
    assert bank.state(review) == "lapsed"
    got = town.send("GET", "/v1/me/benefits", Role.CITIZEN, "ai").json()["benefits"]
    assert [(each["recipient"], each["request"], each["amount"]) for each in got] == [
        ("clinic", asked, "120")
    ]
    choice = {"choice": "transfer"}
    answer = town.send("PUT", "/v1/me/handover", Role.CITIZEN, "ai", choice)
    assert answer.status_code == 200
    before = folded(town)
    assert all(before.values())
    town.connection.execute("SELECT consent.replay()")
    assert folded(town) == before


def test_each_route_of_the_bank_needs_its_scope(bank: Bank) -> None:
    member = {"name_ja": "a", "name_en": "a", "field": "law", "outside": True}
    routes: list[tuple[str, str, Any, set[Role]]] = [
        ("PUT", "/v1/bank", CHARTER, {Role.OPERATOR}),
        ("PUT", "/v1/bank/board/mori", member, {Role.OPERATOR}),
        ("DELETE", "/v1/bank/board/mori", None, {Role.OPERATOR}),
        ("GET", "/v1/bank/handover", None, {Role.OPERATOR}),
        ("GET", "/v1/bank/incidents", None, {Role.OPERATOR, Role.BOARD}),
        ("GET", "/v1/me/benefits", None, {Role.CITIZEN}),
        ("GET", "/v1/me/incidents", None, {Role.CITIZEN}),
        ("GET", "/v1/me/handover", None, {Role.CITIZEN}),
    ]
    for method, path, body, allowed in routes:
        for role in Role:
            answer = bank.town.send(method, path, role, "x", body)
            assert (answer.status_code != 403) == (role in allowed), (path, role, answer.text)
        anonymous = bank.town.served.client.request(method, bank.town.served.url + path, json=body)
        assert anonymous.status_code == 401
