"""Who may in: a token that all share, or credentials that are signed, short-lived and good for one conversation.

A credential is made where people log in, by whoever has the secret, and is read here::

    expiry.nonce.subject.signature

``expiry``: seconds since 1970. ``nonce``: random. ``subject``: who it is for, base64url. ``signature``: HMAC-SHA256
(RFC 2104) of what is before it, base64url. No state is shared but the secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from ...pipeline.clock import wall_s
from .refusals import busy, unauthorized

LONGEST = 1_024
"""Characters of a credential, a token, and of a subject's base64url."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Somebody was let in."""

    subject: str = ""
    """Who the credential was made for; empty with a token, or where nothing is needed."""
    nonce: str = field(default="", repr=False)
    """Of a credential: it is good for the conversation that it has begun, and for no other."""
    expires_s: float = 0.0


NOBODY = Grant()
"""Who needs nothing to be let in, or has the token."""


def make_credential(secret: str, *, subject: str = "", valid_s: float = 60, now_s: float | None = None) -> str:
    """A credential for one conversation that begins within ``valid_s``.

    ``subject``: who it is for, as your logs know them. ``now_s``: seconds since 1970; the machine's if not given.
    """
    expiry = int((wall_s() if now_s is None else now_s) + valid_s)
    text = f"{expiry}.{secrets.token_urlsafe(16)}.{_base64url(subject.encode())}"
    return f"{text}.{_signature(secret, text)}"


class Gate:
    """Checks tokens and credentials.

    Nonces are remembered until their credential expires. When ``max_nonces`` are, new credentials are refused with
    503: to forget one would let it be used again.
    """

    def __init__(
        self,
        *,
        token: str | None,
        secret: str | None,
        max_nonces: int,
        longest_s: float,
        now_s: Callable[[], float] = wall_s,
    ) -> None:
        self._token = token
        self._secret = secret
        self._max_nonces = max_nonces
        self._longest_s = longest_s
        self._now_s = now_s
        self._used: set[str] = set()
        self._expiring: list[tuple[float, str]] = []

    @property
    def open(self) -> bool:
        """Whether nothing is needed."""
        return self._token is None and self._secret is None

    @property
    def remembered(self) -> int:
        """How many nonces are."""
        return len(self._used)

    def admit(self, presented: str) -> Grant:
        """Somebody wants to begin something: a credential is used up. Raises `Refusal` (401, or 503)."""
        grant = self.known(presented)
        if grant.nonce:
            self._use(grant)
        return grant

    def give_back(self, grant: Grant) -> None:
        """What it was used for did not come to be, through no fault of its owner: it may be used again."""
        if grant.nonce in self._used:
            self._used.remove(grant.nonce)
            # Else it would stand here once for each time that it is used again.
            self._expiring.remove((grant.expires_s, grant.nonce))
            heapq.heapify(self._expiring)

    def known(self, presented: str, begun: Grant | None = None) -> Grant:
        """Whether one may go on with what was ``begun``: with the credential that began it, which by then may have
        expired. Uses nothing up. Raises `Refusal` (401).
        """
        if self.open:
            return NOBODY
        if not presented:
            raise unauthorized("A token is needed: send it as Authorization: Bearer TOKEN.")
        if len(presented) > LONGEST or not presented.isascii():
            raise unauthorized("This is no token.")
        if self._token is not None and hmac.compare_digest(presented.encode(), self._token.encode()):
            return NOBODY
        grant = None if self._secret is None else self._read(presented, self._secret)
        if grant is None:
            raise unauthorized("The token is wrong.")
        if begun is not None:
            if grant.nonce != begun.nonce:
                raise unauthorized("The credential is not the one that began this conversation.")
            return grant
        now_s = self._now_s()
        if grant.expires_s <= now_s:
            raise unauthorized("The credential has expired: get a new one.")
        if grant.expires_s > now_s + self._longest_s:
            raise unauthorized(f"The credential is valid for longer than {self._longest_s:g} s: make a shorter one.")
        return grant

    def _use(self, grant: Grant) -> None:
        now_s = self._now_s()
        while self._expiring and self._expiring[0][0] <= now_s:
            self._used.discard(heapq.heappop(self._expiring)[1])
        if grant.nonce in self._used:
            raise unauthorized("The credential was used already: get a new one.")
        if len(self._used) >= self._max_nonces:
            raise busy("Too many credentials were used lately.", self._expiring[0][0] - now_s)
        self._used.add(grant.nonce)
        heapq.heappush(self._expiring, (grant.expires_s, grant.nonce))

    def _read(self, presented: str, secret: str) -> Grant | None:
        text, _, signature = presented.rpartition(".")
        if not hmac.compare_digest(signature, _signature(secret, text)):
            return None
        # From here on it is what we made, unless our own secret signs other things too.
        parts = text.split(".")
        if len(parts) != 3 or not parts[0].isdecimal() or not parts[1]:
            return None
        try:
            subject = base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return Grant(subject, parts[1], float(parts[0]))


def _signature(secret: str, text: str) -> str:
    return _base64url(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
