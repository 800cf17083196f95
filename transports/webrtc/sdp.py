"""SDP (RFC 8866, JSEP RFC 9429): parses offers and writes answers.

An answer accepts one audio stream and one data channel, bundled on one transport (RFC 9143). Everything else, such as
video, is answered as inactive, so that the client's numbering of its transceivers stays right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...pipeline.errors import TransportError

MAX_LINES = 4_000
ANSWERS_ROLE = {"actpass": "active", "active": "passive", "passive": "active"}
"""Answer to each ``a=setup`` of an offer (RFC 5763, section 5)."""
REVERSE = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
_M_LINE = re.compile(r"(\w[\w-]*) ([0-9]{1,5})(?:/[0-9]+)? ([\w/]+) (.+)")
_NUMBER = re.compile(r"[0-9]{1,11}")
_TOKEN = re.compile(r"[\w!#$%&'*+.^`{|}~-]{1,64}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")


class SDPError(TransportError):
    """A session description that cannot be answered. The message says why and quotes nothing from it."""


class NoSupportedMedia(SDPError):
    """A well-formed session description that offers nothing supported: no audio, no Opus."""


@dataclass
class MediaSection:
    """One m-line with its attributes."""

    kind: str
    port: int
    protocol: str
    formats: list[str]
    attributes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def get(self, name: str) -> str | None:
        """Return the first value of an attribute; None where it is missing."""
        return next((value for key, value in self.attributes if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [value for key, value in self.attributes if key == name]

    @property
    def mid(self) -> str:
        """The section's name in the bundle."""
        return self.get("mid") or ""

    @property
    def direction(self) -> str:
        """Direction of the media; ``sendrecv`` by default."""
        return next((key for key, _ in self.attributes if key in REVERSE), "sendrecv")

    @property
    def offered(self) -> bool:
        """False where the client has rejected the section."""
        return bool(self.port) or self.get("bundle-only") is not None

    def opus(self) -> int | None:
        """The payload type of Opus (RFC 7587)."""
        for value in self.all("rtpmap"):
            number, _, name = value.partition(" ")
            if (
                name.lower() == "opus/48000/2"
                and _NUMBER.fullmatch(number)
                and number in self.formats
                and int(number) < 128
            ):
                return int(number)
        return None


@dataclass(frozen=True)
class Ice:
    """ICE parameters of the other side (RFC 8839)."""

    ufrag: str
    pwd: str
    candidates: tuple[str, ...]
    complete: bool
    """True after the last candidate."""
    lite: bool


@dataclass
class Offer:
    """A parsed offer."""

    session: MediaSection
    sections: list[MediaSection]
    bundle: list[str]
    audio: int
    """Index of the voice's m-line."""
    data: int | None
    """Index of the data channel's m-line."""
    payload_type: int
    """Payload type of Opus."""
    ice: Ice
    fingerprints: list[tuple[str, str]]
    setup: str

    @property
    def voice(self) -> MediaSection:
        """The voice's section."""
        return self.sections[self.audio]

    @property
    def sctp_port(self) -> int:
        """SCTP port of the data channel (RFC 8841)."""
        value = self.sections[self.data].get("sctp-port") if self.data is not None else None
        return int(value) if value is not None and _NUMBER.fullmatch(value) and 0 < int(value) < 65536 else 5000

    @property
    def max_message_size(self) -> int:
        """Largest message that the client accepts; 0: any size (RFC 8841, section 6)."""
        value = self.sections[self.data].get("max-message-size") if self.data is not None else None
        return int(value) if value is not None and _NUMBER.fullmatch(value) else 65_536


@dataclass(frozen=True)
class Ours:
    """Our side of an answer."""

    ufrag: str
    pwd: str
    candidates: tuple[str, ...]
    fingerprint: tuple[str, str]
    ssrc: int
    cname: str
    version: int
    stereo: bool = False
    max_message_size: int = 65_536


def _attribute(line: str) -> tuple[str, str]:
    name, _, value = line[2:].partition(":")
    return name, value.strip()


def _lines(text: str) -> list[str]:
    if "\x00" in text:
        raise SDPError("The session description contains a zero byte.")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if len(lines) > MAX_LINES:
        raise SDPError(f"The session description has {len(lines)} lines; at most {MAX_LINES} are allowed.")
    return [line for line in lines if line]


def sections_of(lines: list[str]) -> tuple[MediaSection, list[MediaSection]]:
    """Split lines into the session's attributes and the m-lines with theirs."""
    session = current = MediaSection("", 0, "", [])
    sections: list[MediaSection] = []
    for line in lines:
        if line.startswith("m="):
            match = _M_LINE.fullmatch(line[2:])
            if match is None:
                raise SDPError("An m-line of the session description is malformed.")
            current = MediaSection(match[1], int(match[2]), match[3], match[4].split())
            sections.append(current)
        elif line.startswith("a="):
            current.attributes.append(_attribute(line))
        elif len(line) < 2 or line[1] != "=":
            raise SDPError("A line of the session description is malformed: each must be a letter, '=' and a value.")
    return session, sections


def parse_offer(text: str, *, max_sections: int = 32, max_candidates: int = 64) -> Offer:
    """Parse an offer. Raises `SDPError`, which says what is wrong."""
    lines = _lines(text)
    if not lines or lines[0] != "v=0":
        raise SDPError("This is not a session description: it does not begin with v=0.")
    session, sections = sections_of(lines)
    if not sections:
        raise SDPError("The offer has no m-line.")
    if len(sections) > max_sections:
        raise SDPError(f"The offer has {len(sections)} m-lines; at most {max_sections} are allowed.")
    mids = [section.mid for section in sections if section.mid]
    if any(not _TOKEN.fullmatch(mid) for mid in mids) or len(set(mids)) < len(mids):
        raise SDPError("The mids of the offer's m-lines are malformed, or not unique.")
    groups = [value.split()[1:] for value in session.all("group") if value.split()[:1] == ["BUNDLE"]]
    bundle = [mid for mid in (groups[0] if groups else []) if mid in mids]
    audio, payload_type = _voice(sections)
    data = _data(sections, audio, bundle)
    taken = [sections[audio], *([sections[data]] if data is not None else [])]
    # The transport's parameters are in the bundle's first section (RFC 9143, section 7.2.1).
    tagged = next((section for mid in bundle for section in sections if section.mid == mid), sections[audio])
    if sections[audio].mid not in bundle:
        tagged = sections[audio]
    ice = _ice(session, tagged, taken, max_candidates)
    fingerprints = _fingerprints(tagged) or _fingerprints(sections[audio]) or _fingerprints(session)
    if not fingerprints:
        raise SDPError("The offer has no a=fingerprint. Media is sent with DTLS only.")
    setup = tagged.get("setup") or sections[audio].get("setup") or session.get("setup") or "actpass"
    if setup not in ANSWERS_ROLE:
        raise SDPError("a=setup of an offer must be actpass, active or passive.")
    return Offer(session, sections, bundle, audio, data, payload_type, ice, fingerprints, setup)


def _voice(sections: list[MediaSection]) -> tuple[int, int]:
    spoken = [index for index, section in enumerate(sections) if section.kind == "audio" and section.offered]
    if not spoken:
        raise NoSupportedMedia("The offer has no audio. Add a microphone's track, or a transceiver for audio.")
    # The first that sends and receives: a second one may be music.
    spoken.sort(key=lambda index: sections[index].direction != "sendrecv")
    for index in spoken:
        payload_type = sections[index].opus()
        if payload_type is not None and "RTP" in sections[index].protocol:
            return index, payload_type
    raise NoSupportedMedia("The offer's audio has no Opus (opus/48000/2), the only codec that is spoken here.")


def _data(sections: list[MediaSection], audio: int, bundle: list[str]) -> int | None:
    for index, section in enumerate(sections):
        if section.kind == "application" and section.offered and section.formats == ["webrtc-datachannel"]:
            bundled = section.mid in bundle and sections[audio].mid in bundle
            return index if bundled else None
    return None


def _ice(session: MediaSection, tagged: MediaSection, taken: list[MediaSection], max_candidates: int) -> Ice:
    ufrag = tagged.get("ice-ufrag") or session.get("ice-ufrag") or taken[0].get("ice-ufrag") or ""
    pwd = tagged.get("ice-pwd") or session.get("ice-pwd") or taken[0].get("ice-pwd") or ""
    check_ice(ufrag, pwd)
    # Bundled sections may have different ufrags; only the candidates of this one count.
    same = [section for section in taken if section.get("ice-ufrag") in (None, ufrag)]
    candidates = dict.fromkeys(value for section in [tagged, *same] for value in section.all("candidate"))
    if len(candidates) > max_candidates:
        raise SDPError(f"The offer has {len(candidates)} candidates; at most {max_candidates} are allowed.")
    complete = any(section.get("end-of-candidates") is not None for section in (session, tagged, *same))
    return Ice(ufrag, pwd, tuple(candidates), complete, session.get("ice-lite") is not None)


def check_ice(ufrag: str, pwd: str) -> None:
    """Check ufrag and pwd against RFC 8839, section 5.4. Raises `SDPError`."""
    if not _UFRAG.fullmatch(ufrag) or not _PWD.fullmatch(pwd):
        raise SDPError("a=ice-ufrag (4 to 256 characters) or a=ice-pwd (22 to 256) is missing or malformed.")


def _fingerprints(section: MediaSection) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for value in section.all("fingerprint"):
        algorithm, _, digest = value.partition(" ")
        if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){15,63}", digest.strip()):
            raise SDPError("a=fingerprint is malformed.")
        found.append((algorithm.lower(), digest.strip().upper()))
    return found


def direction_of_answer(offer: Offer) -> str:
    """Return our direction of the voice: the reverse of the client's."""
    return REVERSE[offer.voice.direction]


def write_answer(offer: Offer, ours: Ours) -> str:
    """Write the answer to an offer."""
    bundled = [section.mid for section in offer.sections if section.mid in offer.bundle and section.offered]
    if offer.voice.mid not in offer.bundle:
        bundled = [offer.voice.mid] if offer.voice.mid else []
    lines = [
        "v=0",
        f"o=- {ours.ssrc} {ours.version} IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        *([f"a=group:BUNDLE {' '.join(bundled)}"] if bundled else []),
        "a=msid-semantic: WMS *",
    ]
    for index, section in enumerate(offer.sections):
        if index == offer.audio:
            lines += _audio_lines(offer, section, ours)
        elif index == offer.data:
            lines += _data_lines(offer, section, ours)
        elif section.mid in bundled and "RTP" in section.protocol:
            lines += _inactive_lines(offer, section, ours)
        else:
            lines += _rejected_lines(section)
    return "\r\n".join(lines) + "\r\n"


def _transport_lines(offer: Offer, ours: Ours) -> list[str]:
    algorithm, digest = ours.fingerprint
    return [
        f"a=ice-ufrag:{ours.ufrag}",
        f"a=ice-pwd:{ours.pwd}",
        f"a=fingerprint:{algorithm} {digest}",
        f"a=setup:{ANSWERS_ROLE[offer.setup]}",
    ]


def _mid_line(section: MediaSection) -> list[str]:
    return [f"a=mid:{section.mid}"] if section.mid else []


def _candidate_lines(ours: Ours) -> list[str]:
    return [*(f"a=candidate:{candidate}" for candidate in ours.candidates), "a=end-of-candidates"]


def _audio_lines(offer: Offer, section: MediaSection, ours: Ours) -> list[str]:
    number = offer.payload_type
    options = "minptime=10;useinbandfec=1" + (";stereo=1;sprop-stereo=1" if ours.stereo else "")
    track = f"{ours.cname} voice"
    return [
        f"m=audio 9 {section.protocol} {number}",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        *_candidate_lines(ours),
        *_transport_lines(offer, ours),
        *_mid_line(section),
        f"a={direction_of_answer(offer)}",
        f"a=msid:{track}",
        "a=rtcp-mux",
        f"a=rtpmap:{number} opus/48000/2",
        f"a=fmtp:{number} {options}",
        "a=ptime:20",
        f"a=ssrc:{ours.ssrc} cname:{ours.cname}",
        f"a=ssrc:{ours.ssrc} msid:{track}",
    ]


def _data_lines(offer: Offer, section: MediaSection, ours: Ours) -> list[str]:
    return [
        f"m=application 9 {section.protocol} webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        *_candidate_lines(ours),
        *_transport_lines(offer, ours),
        *_mid_line(section),
        "a=sctp-port:5000",
        f"a=max-message-size:{ours.max_message_size}",
    ]


def _inactive_lines(offer: Offer, section: MediaSection, ours: Ours) -> list[str]:
    """Write an accepted but inactive section: rejecting it would remove the client's transceiver."""
    number = section.formats[0]
    # A payload type must mean one codec in the whole bundle, so the client's own line is repeated.
    maps = [value for value in section.all("rtpmap") if value.split(" ")[0] == number]
    return [
        f"m={section.kind} 9 {section.protocol} {number}",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        *_transport_lines(offer, ours),
        *_mid_line(section),
        "a=inactive",
        "a=rtcp-mux",
        *(f"a=rtpmap:{value}" for value in maps[:1]),
        *(f"a=fmtp:{value}" for value in section.all("fmtp")[:64] if maps and value.split(" ")[0] == number),
    ]


def _rejected_lines(section: MediaSection) -> list[str]:
    formats = " ".join(section.formats[:1])
    return [f"m={section.kind} 0 {section.protocol} {formats}", "c=IN IP4 0.0.0.0", *_mid_line(section), "a=inactive"]
