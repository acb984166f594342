"""What a test lets go wrong with a request, and the requests themselves."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """What was asked; `number` counts all requests from 0."""

    number: int
    method: str
    path: str
    headers: dict = field(repr=False)
    body: bytes = field(repr=False)

    def __str__(self):
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Drop:
    """Break the connection off; `after` the request was carried out, so that only the answer is lost."""

    after: bool = False


@dataclass(frozen=True)
class Cut:
    """Send the answer as it is, but break off after `bytes` of its body."""

    bytes: int


@dataclass(frozen=True)
class Hang:
    """Say nothing for so long, then break off."""

    seconds: float


@dataclass(frozen=True)
class Stall:
    """Send the answer as it is, but half of its body, and then nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class Alter:
    """Send `change(body)` for the body, with headers for the true one but for its length."""

    change: object


@dataclass(frozen=True)
class Answer:
    """Another answer than the true one."""

    status: int
    headers: dict = field(default_factory=dict)
    body: object = field(default_factory=dict)


class RefusedError(Exception):
    """The answer is an error."""

    def __init__(self, status, message, code=None):
        super().__init__(message)
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer = Answer(status, headers, {"error": message})
