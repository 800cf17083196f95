"""Admission: a shared token, or signed, short-lived credentials for one conversation each.

Your login server makes a credential with the secret; this server checks it. The only shared state is the secret::

    expiry.nonce.subject.signature

``expiry``: seconds since 1970. ``nonce``: random. ``subject``: the user, base64url. ``signature``: HMAC-SHA256 (RFC
2104) of the text before it, base64url.
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
"""Longest credential, token, and subject in base64url, in characters."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Proof that a caller was admitted."""

    subject: str = ""
    """Subject of the credential; empty with a token, or without admission control."""
    nonce: str = field(default="", repr=False)
    """Nonce of the credential, which is valid only for the conversation that it began."""
    expires_s: float = 0.0


NOBODY = Grant()
"""Grant of a caller with the token, or without admission control."""


def make_credential(secret: str, *, subject: str = "", valid_s: float = 60, now_s: float | None = None) -> str:
    """Make a credential for one conversation that begins within ``valid_s``.

    ``subject``: the user's name in your logs. ``now_s``: seconds since 1970; default: the machine's clock.
    """
    expiry = int((wall_s() if now_s is None else now_s) + valid_s)
    text = f"{expiry}.{secrets.token_urlsafe(16)}.{_base64url(subject.encode())}"
    return f"{text}.{_signature(secret, text)}"


class TokenCheck:
    """Checks tokens and credentials.

    Nonces are remembered until their credential expires. With ``max_nonces`` remembered, new credentials are refused
    with 503: a forgotten nonce could be used again.
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
        """True without admission control."""
        return self._token is None and self._secret is None

    @property
    def remembered(self) -> int:
        """Number of remembered nonces."""
        return len(self._used)

    def admit(self, presented: str) -> Grant:
        """Admit a new conversation, and use up the credential. Raises `Refusal`: 401, 503."""
        grant = self.known(presented)
        if grant.nonce:
            self._use(grant)
        return grant

    def give_back(self, grant: Grant) -> None:
        """Allow a credential again, where its conversation failed through no fault of its owner."""
        if grant.nonce in self._used:
            self._used.remove(grant.nonce)
            # Or the list would grow with each further use.
            self._expiring.remove((grant.expires_s, grant.nonce))
            heapq.heapify(self._expiring)

    def known(self, presented: str, begun: Grant | None = None) -> Grant:
        """Check a token or credential without using it up. Raises `Refusal`: 401.

        ``begun``: the grant of a running conversation. Only the credential that began it continues it, even expired.
        """
        if self.open:
            return NOBODY
        if not presented:
            raise unauthorized("A token is required: send it as Authorization: Bearer TOKEN.")
        if len(presented) > LONGEST or not presented.isascii():
            raise unauthorized("This is not a token.")
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
            raise unauthorized("The credential has expired. Get a new one.")
        if grant.expires_s > now_s + self._longest_s:
            raise unauthorized(f"The credential is valid for longer than {self._longest_s:g} s. Make a shorter one.")
        return grant

    def _use(self, grant: Grant) -> None:
        now_s = self._now_s()
        while self._expiring and self._expiring[0][0] <= now_s:
            self._used.discard(heapq.heappop(self._expiring)[1])
        if grant.nonce in self._used:
            raise unauthorized("The credential was used before. Get a new one.")
        if len(self._used) >= self._max_nonces:
            raise busy("Too many credentials were used recently.", self._expiring[0][0] - now_s)
        self._used.add(grant.nonce)
        heapq.heappush(self._expiring, (grant.expires_s, grant.nonce))

    def _read(self, presented: str, secret: str) -> Grant | None:
        text, _, signature = presented.rpartition(".")
        if not hmac.compare_digest(signature, _signature(secret, text)):
            return None
        # The signature is right, so this text was made with the secret, though perhaps not by `make_credential`.
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
