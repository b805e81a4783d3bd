"""Every deliberate error of the platform: a slug, a title and an HTTP status."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table below; the slug is part of the public contract."""

    slug: str
    title: str
    status: int


KINDS = {
    kind.slug: kind
    for kind in (
        ErrorKind("unauthenticated", "A valid bearer token is needed", 401),
        ErrorKind("forbidden", "This token does not allow that", 403),
        ErrorKind("not-found", "There is no such resource", 404),
        ErrorKind("conflict", "The request conflicts with what is stored", 409),
        ErrorKind("too-large", "The body is over the limit", 413),
        ErrorKind("invalid", "A field is not valid", 422),
        ErrorKind("unavailable", "A part that this needs is not available now", 503),
    )
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: its path as the sender wrote it, and the reason."""

    name: str
    reason: str


@dataclass(slots=True)
class CityError(Exception):
    """A deliberate error; api.problems renders it as RFC 9457 problem+json."""

    slug: str
    detail: str
    fields: tuple[FieldError, ...] = field(default=())

    @property
    def kind(self) -> ErrorKind:
        """The row of KINDS that this error is of."""
        return KINDS[self.slug]

    def __str__(self) -> str:
        told = (f"{field.name}: {field.reason}" for field in self.fields)
        return self.detail + "".join(f" [{one}]" for one in told if one != self.detail)


def invalid(name: str, reason: str) -> CityError:
    """The error for one bad field."""
    return CityError("invalid", f"{name}: {reason}", (FieldError(name, reason),))


def brief(error: BaseException) -> str:
    """An error's first line, for a log or a detail; never empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
