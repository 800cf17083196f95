"""Offers read and answered: those of real clients, and those of nobody."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.tests.scale import examples
from voxline.transports.webrtc.sdp import (
    NoSupportedMedia,
    Ours,
    SDPError,
    direction_of_answer,
    parse_offer,
    write_answer,
)

FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)
TRANSPORT = f"""\
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuvwx
a=ice-options:trickle
a=fingerprint:{FINGERPRINT}
a=setup:actpass
"""
AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{TRANSPORT}a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:- track
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=ssrc:1 cname:x
"""
VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
{TRANSPORT}a=mid:%d
a=%s
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""
DATA = f"""\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{TRANSPORT}a=mid:3
a=sctp-port:5000
a=max-message-size:262144
"""
HEAD = """\
v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE %s
a=extmap-allow-mixed
a=msid-semantic: WMS
"""
RTVI = HEAD % "0 1 2 3" + AUDIO + VIDEO % (1, "sendrecv") + VIDEO % (2, "sendonly") + DATA
OURS = Ours("uuuu", "p" * 24, ("f 1 udp 1 192.0.2.1 4000 typ host",), ("sha-256", "CD:" * 31 + "CD"), 77, "bot", 1)


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


def answered(offer: str, ours: Ours = OURS) -> tuple[str, list[list[str]]]:
    answer = write_answer(parse_offer(crlf(offer)), ours)
    assert answer.endswith("\r\n")
    sections: list[list[str]] = [[]]
    for line in answer.split("\r\n")[:-1]:
        assert re.fullmatch(r"[a-z]=.*", line)
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    return answer, sections


def test_an_offer_with_voice_video_and_data_gets_voice_and_data() -> None:
    _, (session, audio, first, second, data) = answered(RTVI)
    assert "a=group:BUNDLE 0 1 2 3" in session
    assert audio[0] == "m=audio 9 UDP/TLS/RTP/SAVPF 111"
    for line in ("a=sendrecv", "a=setup:active", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=mid:0"):
        assert line in audio
    assert "a=candidate:f 1 udp 1 192.0.2.1 4000 typ host" in audio
    for index, video in ((1, first), (2, second)):
        # Not port 0: that would take the client's transceiver away.
        assert video[0] == "m=video 9 UDP/TLS/RTP/SAVPF 96"
        assert "a=inactive" in video
        assert f"a=mid:{index}" in video
        assert not any(line.startswith("a=ssrc") for line in video)
    assert data[0] == "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
    assert "a=sctp-port:5000" in data


def test_our_answer_offers_what_we_do_not_do_to_nobody() -> None:
    """No header extension, no DTX, no retransmission: what is not agreed upon is not sent."""
    answer, _ = answered(RTVI)
    for word in ("extmap", "usedtx", "nack", "transport-cc", "red/", "rtx"):
        assert word not in answer


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")],
)
def test_the_direction_is_the_other_way_round(theirs: str, ours: str) -> None:
    offer = parse_offer(crlf(HEAD % "0" + AUDIO.replace("a=sendrecv", f"a={theirs}")))
    assert direction_of_answer(offer) == ours
    assert f"a={ours}\r\n" in write_answer(offer, OURS)


@pytest.mark.parametrize(("theirs", "ours"), [("actpass", "active"), ("active", "passive"), ("passive", "active")])
def test_one_of_the_two_begins_the_handshake(theirs: str, ours: str) -> None:
    answer, _ = answered(HEAD % "0" + AUDIO.replace("a=setup:actpass", f"a=setup:{theirs}"))
    assert f"a=setup:{ours}" in answer


def test_what_is_not_in_the_bundle_is_rejected() -> None:
    _, (session, audio, video) = answered(HEAD % "0" + AUDIO + VIDEO % (1, "sendrecv"))
    assert "a=group:BUNDLE 0" in session
    assert audio[0].startswith("m=audio 9")
    assert video[0].startswith("m=video 0 ")
    _, sections = answered(HEAD.replace("a=group:BUNDLE %s\n", "") + AUDIO + DATA)
    assert sections[2][0].startswith("m=application 0 ")


def test_a_voice_alone_needs_no_bundle() -> None:
    """As of a WHIP client."""
    offer = HEAD.replace("a=group:BUNDLE %s\n", "") + AUDIO.replace("a=mid:0\n", "").replace("sendrecv", "sendonly")
    answer, _ = answered(offer)
    assert "BUNDLE" not in answer
    assert "a=recvonly" in answer


def test_what_is_said_once_for_all_is_found() -> None:
    bare = AUDIO.replace(TRANSPORT, "")
    offer = parse_offer(crlf(HEAD % "0" + TRANSPORT + bare))
    assert offer.ice.ufrag == "abcd"
    assert offer.fingerprints == [("sha-256", ":".join(["AB"] * 32))]


def test_the_transport_is_the_one_of_the_first_in_the_bundle() -> None:
    other = DATA.replace("abcd", "wxyz").replace("a=mid:3", "a=candidate:1 1 udp 1 192.0.2.9 9 typ host\na=mid:3")
    offer = parse_offer(crlf(HEAD % "3 0" + AUDIO + other))
    assert offer.ice.ufrag == "wxyz"
    assert len(offer.ice.candidates) == 1


def test_of_two_voices_the_one_that_speaks_and_listens_is_taken() -> None:
    music = AUDIO.replace("a=mid:0", "a=mid:1").replace("sendrecv", "sendonly")
    offer = parse_offer(crlf(HEAD % "1 0" + music + AUDIO))
    assert offer.audio == 1
    _, sections = answered(HEAD % "1 0" + music + AUDIO)
    assert "a=inactive" in sections[1]


def test_two_channels_are_said_in_the_answer() -> None:
    answer, _ = answered(RTVI, replace(OURS, stereo=True))
    assert "a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1" in answer


WRONG = {
    "empty": ("", "v=0"),
    "no SDP": ("hello", "v=0"),
    "no m-line": (HEAD % "0", "no m-line"),
    "no audio": (HEAD % "3" + DATA, "no audio"),
    "audio rejected": (HEAD % "0" + AUDIO.replace("m=audio 9", "m=audio 0"), "no audio"),
    "no Opus": (HEAD % "0" + AUDIO.replace("opus/48000/2", "pcmu/8000"), "Opus"),
    "no ICE": (HEAD % "0" + AUDIO.replace("a=ice-ufrag:abcd\n", ""), "ice-ufrag"),
    "short password": (HEAD % "0" + AUDIO.replace("abcdefghijklmnopqrstuvwx", "abc"), "ice-pwd"),
    "no fingerprint": (HEAD % "0" + AUDIO.replace(f"a=fingerprint:{FINGERPRINT}\n", ""), "fingerprint"),
    "bad fingerprint": (HEAD % "0" + AUDIO.replace(FINGERPRINT, "sha-256 xyz"), "fingerprint"),
    "bad setup": (HEAD % "0" + AUDIO.replace("actpass", "holdconn"), "setup"),
    "bad m-line": (HEAD % "0" + AUDIO.replace("m=audio 9", "m=audio nine"), "m-line"),
    "mids twice": (HEAD % "0" + AUDIO + AUDIO, "mids"),
    "zero byte": (HEAD % "0" + AUDIO + "a=x:\x00\n", "zero byte"),
    "many m-lines": (HEAD % "0" + AUDIO + "".join(VIDEO % (n, "sendonly") for n in range(1, 60)), "32"),
    "many candidates": (
        HEAD % "0" + AUDIO + "".join(f"a=candidate:{n} 1 udp 1 192.0.2.1 {n} typ host\n" for n in range(1, 99)), "64",
    ),
    "no attribute": (HEAD % "0" + AUDIO + "nonsense\n", "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_offer_that_cannot_be_answered_says_why_and_repeats_nothing(case: str) -> None:
    text, word = WRONG[case]
    with pytest.raises(SDPError, match=word) as caught:
        parse_offer(crlf(text))
    assert "abcdefghijklmnopqrstuvwx" not in str(caught.value)
    assert isinstance(caught.value, NoSupportedMedia) == (case in ("no audio", "audio rejected", "no Opus"))


@settings(max_examples=examples(300))
@given(st.data())
def test_a_damaged_offer_is_answered_or_refused_and_nothing_else(data: st.DataObject) -> None:
    lines = RTVI.split("\n")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["drop", "repeat", "cut", "replace", "move"]))
        if what == "drop":
            del lines[at]
        elif what == "repeat":
            lines.insert(at, lines[at])
        elif what == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif what == "replace":
            lines[at] = data.draw(st.text(max_size=40))
        else:
            lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        if not lines:
            break
    try:
        offer = parse_offer(crlf("\n".join(lines)))
    except SDPError:
        return
    answer = write_answer(offer, OURS)
    assert sum(line.startswith("m=") for line in answer.split("\r\n")) == len(offer.sections)
