import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import SottoError
from infer.live.packets import MOST_BYTES, Packet, Packetizer, RefusedPacketError

MODEL = "0123456789abcdef" * 2


def random_codes(n: int, frames: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2**bits, size=(n, frames)).astype(np.uint16)


def parse(data: bytes, **changed: object) -> Packet:
    options = {"fingerprint": MODEL, "bits": 10, "n_quantizers": 8} | changed
    return Packet.parse(data, **options)  # type: ignore[arg-type]


@given(
    n=st.integers(1, 8),
    frames=st.integers(0, 9),
    again=st.integers(0, 4),
    bits=st.integers(1, 16),
    stream=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**17),
    first=st.integers(0, 2**33),
)
@settings(deadline=None, max_examples=60)
def test_packets_come_back(
    n: int, frames: int, again: int, bits: int, stream: int, sequence: int, first: int
) -> None:
    codes, earlier = random_codes(n, frames, bits), random_codes((n + 1) // 2, again, bits, 1)
    data = Packet(stream, sequence, first, bits, MODEL, codes, earlier).to_bytes()
    found = parse(data, bits=bits)
    assert (found.stream, found.sequence) == (stream, sequence % 2**16)
    assert found.first_frame == first % 2**32
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.earlier, earlier)


def test_the_bytes_are_those_of_the_docstring() -> None:
    codes = np.array([[0b1000000001], [0b0100000011]], np.uint16)
    data = Packet(0x01020304, 5, 6, 10, MODEL, codes).to_bytes()
    head = "a553 01 0a 02 01 00 00 01020304 0005 00000006 01234567"
    body = f"{int('1000000001' + '0100000011' + '0000', 2):06x}"
    expected = bytes.fromhex(head + body)
    assert data == expected + zlib.crc32(expected).to_bytes(4, "big")


@given(place=st.integers(0, 40), change=st.integers(1, 255))
@settings(deadline=None)
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(Packet(1, 2, 3, 10, MODEL, random_codes(3, 4, 10)).to_bytes())
    assert len(data) == 22 + 15 + 4
    data[place] ^= change
    with pytest.raises(RefusedPacketError, match=r"foreign|damaged"):
        parse(bytes(data))


@given(data=st.binary(max_size=80))
@settings(deadline=None)
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedPacketError, match="foreign"):
        parse(data)
    content = b"\xa5S\x01\x0a" + data
    with pytest.raises(RefusedPacketError):
        parse(content + zlib.crc32(content).to_bytes(4, "big"))


def test_packets_of_others_are_told_apart() -> None:
    data = Packet(1, 2, 3, 10, MODEL, random_codes(8, 2, 10)).to_bytes()
    for changed in ({"fingerprint": "f" * 32}, {"bits": 11}, {"n_quantizers": 7}):
        with pytest.raises(RefusedPacketError, match="of another model"):
            parse(data, **changed)
    newer = bytearray(data[:-4])
    newer[2] = 2
    with pytest.raises(RefusedPacketError, match="of another version"):
        parse(bytes(newer) + zlib.crc32(newer).to_bytes(4, "big"))


@pytest.mark.parametrize(("frames", "redundancy"), [(1, 0), (2, 0), (1, 3), (3, 2), (4, 7)])
@pytest.mark.parametrize("total", [0, 1, 7, 12])
def test_a_stream_in_packets(frames: int, redundancy: int, total: int) -> None:
    codes = random_codes(5, total, 10)
    packetizer = Packetizer(
        stream=9,
        fingerprint=MODEL,
        bits=10,
        n_quantizers=5,
        frames=frames,
        redundancy=redundancy,
    )
    made = [data for i in range(total) for data in packetizer.put(codes[:, i : i + 1])]
    assert len(made) == total // frames
    made += packetizer.finish()
    packets = [parse(data) for data in made]
    assert packetizer.packets == len(made)
    assert packetizer.bytes == sum(map(len, made))
    assert [packet.sequence for packet in packets] == list(range(len(packets)))
    first = 0
    for packet in packets[:-3]:
        assert packet.first_frame == first
        count = packet.codes.shape[1]
        np.testing.assert_array_equal(packet.codes, codes[:, first : first + count])
        again = min(redundancy, first)
        assert packet.earlier.shape == ((3 if redundancy else 0), again)
        if again:
            np.testing.assert_array_equal(packet.earlier, codes[:3, first - again : first])
        first += count
    assert first == total
    for packet in packets[-3:]:
        assert packet.codes.shape[1] == 0
        assert packet.first_frame == total


def test_what_fits_into_no_packet_is_refused() -> None:
    for frames, redundancy, says in (
        (0, 0, "0 frames"),
        (1, 256, "256 earlier"),
        (250, 0, "fewer frames"),
        (10, 250, "fewer frames"),
    ):
        with pytest.raises(SottoError, match=says):
            Packetizer(
                stream=1,
                fingerprint=MODEL,
                bits=10,
                n_quantizers=8,
                frames=frames,
                redundancy=redundancy,
            )
    assert MOST_BYTES <= 1232  # IPv6's least MTU without the heads of IPv6 and UDP
