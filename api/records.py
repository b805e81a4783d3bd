"""Records and receipts of consent, for the person who gave it and the recipient that has it."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from consent import door, grant_records, records
from consent.decide import READ_OWN, READ_PERSONAL
from consent.receipts import Signer

router = APIRouter(tags=["consent"])

GrantId = Annotated[UUID, Path(description="a grant of yours, given or had")]
DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON-LD of W3C DPV, signed: `chimata verify`",
        "content": {records.MEDIA_TYPE: {"schema": {"type": "object"}}},
    }
}


@router.get(
    "/v1/consent/grants/{grant}/record", response_class=Response, responses=DOCUMENT
)  # fmt: skip
def read_record(request: Request, grant: GrantId) -> Response:
    """The record of a grant with all that became of it (in the shape of ISO/IEC TS 27560)."""
    return _document(request, grant, as_receipt=False)


@router.get(
    "/v1/consent/grants/{grant}/receipt", response_class=Response, responses=DOCUMENT
)  # fmt: skip
def read_receipt(request: Request, grant: GrantId) -> Response:
    """A receipt to the caller, which holds that record."""
    return _document(request, grant, as_receipt=True)


def _document(request: Request, grant: UUID, *, as_receipt: bool) -> Response:
    principal, secret = door.principal_of(request), door.secret_of(request)
    controller = records.controller_of(request.app.state.settings.controller)
    scope = READ_PERSONAL if READ_PERSONAL in principal.scopes else READ_OWN
    if scope == READ_OWN:
        principal = door.act_for(request)
    with door.having(request, scope, "records of consent") as connection:
        made = grant_records.record(
            connection, principal, grant, secret, controller, as_receipt=as_receipt
        )
    signed = records.signed(made, Signer(door.signing_key_of(request)))
    return door.current(signed, records.MEDIA_TYPE)
