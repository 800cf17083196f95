"""Rate limits: a token bucket for each address, in a table of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from ...pipeline.clock import NS_PER_S, Clock


class Buckets:
    """For each key a bucket of ``burst`` tokens that fills at ``per_minute``.

    At most ``keys`` buckets are kept. The one idle longest is dropped, which refills it: an attacker with that many
    addresses could use a new one each time anyway.
    """

    def __init__(self, clock: Clock, *, per_minute: float, burst: int, keys: int) -> None:
        self._clock = clock
        self._ns_per_token = 60 * NS_PER_S / per_minute
        self._burst = burst
        self._keys = keys
        self._empty_ns: OrderedDict[str, float] = OrderedDict()
        """Virtual schedule of each key (GCRA): the time at which an ever-filling bucket would have been empty."""

    def __len__(self) -> int:
        return len(self._empty_ns)

    def take(self, key: str) -> float:
        """Take a token. Returns 0.0, or the seconds until the next token."""
        now = self._clock.now_ns()
        empty = max(self._empty_ns.pop(key, -1e30), now - self._burst * self._ns_per_token)
        wait_ns = empty + self._ns_per_token - now
        if wait_ns <= 0:
            empty += self._ns_per_token
        self._empty_ns[key] = empty
        if len(self._empty_ns) > self._keys:
            self._empty_ns.popitem(last=False)
        return max(0.0, wait_ns / NS_PER_S)


def key_of(address: str) -> str:
    """Return the part of an address that is counted: of IPv6 the first 64 bits, the network of one customer.

    A port, which some proxies append and which differs for each connection, is left out.
    """
    text = address.split("%")[0]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip = ip_address(text)
    except ValueError:
        return address[:64]
    if not isinstance(ip, IPv6Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Address(int(ip) >> 64 << 64))
