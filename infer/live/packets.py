r"""Codes in UDP packets: the bytes.

All numbers are big-endian, codes are packed as in `.sc` (most significant bit first, frame by
frame, codebook by codebook), the last byte of each run filled with zeros.

    offset  bytes
         0      2  magic, "\xA5S"
         2      1  version, 1
         3      1  bits of a code
         4      1  codebooks of each frame
         5      1  frames; 0 in the packet that ends a stream
         6      1  earlier frames that are carried once more
         7      1  codebooks of each earlier frame
         8      4  stream: chosen at random when a sender starts
        12      2  sequence number of the packet, from 0, modulo 2^16
        14      4  number of the first frame in the stream, from 0, modulo 2^32; in the packet that
                   ends a stream the number of frames it had
        18      4  first bytes of the model's fingerprint
        22         the frames; then the earlier frames, the oldest first
      last      4  CRC-32 of all before it
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError, SottoError
from infer.packing import MAX_BITS, pack, packed_bytes, unpack

MAGIC = b"\xa5S"
VERSION = 1
SEQUENCE_BITS = 16
FRAME_BITS = 32
MOST_BYTES = 1200
"""Of a packet: it is not taken apart on any path (IPv6's least MTU is 1280)."""
UDP_BYTES = 28
"""Of IPv4 and UDP before each packet."""

_HEAD = struct.Struct(">2sBBBBBBIHI4s")
_CHECK = struct.Struct(">I")
_ENDS = 3  # times that the end is said: the link may lose it

Codes = NDArray[np.uint16]


class RefusedPacketError(BitstreamError):
    """A packet that is not one of this stream's model; the message is short, to be counted by."""


@dataclass(frozen=True, eq=False)
class Packet:
    """What a packet says.

    Attributes:
        stream: 32 bits that tell one sender's run from another's.
        sequence: number of the packet, modulo 2^16.
        first_frame: number of its first frame, modulo 2^32.
        bits: of a code.
        fingerprint: of the model, 32 hex digits; 8 come back.
        codes: (n_quantizers, frames); no frames: the stream ends here.
        earlier: (fewer codebooks, frames) of the frames just before, carried once more.
    """

    stream: int
    sequence: int
    first_frame: int
    bits: int
    fingerprint: str
    codes: Codes
    earlier: Codes = field(default_factory=lambda: np.zeros((0, 0), np.uint16))

    def to_bytes(self) -> bytes:
        """The packet's bytes."""
        head = _HEAD.pack(
            MAGIC,
            VERSION,
            self.bits,
            *self.codes.shape,
            self.earlier.shape[1],
            self.earlier.shape[0],
            self.stream,
            self.sequence % 2**SEQUENCE_BITS,
            self.first_frame % 2**FRAME_BITS,
            bytes.fromhex(self.fingerprint)[:4],
        )
        runs = (pack(codes.T.reshape(-1), self.bits) for codes in (self.codes, self.earlier))
        content = head + b"".join(runs)
        return content + _CHECK.pack(zlib.crc32(content))

    @classmethod
    def parse(cls, data: bytes, *, fingerprint: str, bits: int, n_quantizers: int) -> "Packet":
        """Reads a packet of a model.

        Args:
            data: as it came.
            fingerprint: of the model, 32 hex digits.
            bits: of the model's codes.
            n_quantizers: the model's codebooks.

        Raises:
            RefusedPacketError: foreign, damaged, of another version or another model.
        """
        if len(data) < _HEAD.size + _CHECK.size or data[:2] != MAGIC:
            raise RefusedPacketError("foreign")
        content, (check,) = data[: -_CHECK.size], _CHECK.unpack(data[-_CHECK.size :])
        if zlib.crc32(content) != check:
            raise RefusedPacketError("damaged")
        _, version, width, n, frames, again, n_again, stream, sequence, first, model = (
            _HEAD.unpack_from(content)
        )
        if version != VERSION:
            raise RefusedPacketError("of another version")
        if (
            model != bytes.fromhex(fingerprint)[:4]
            or width != bits
            or max(n, n_again) > n_quantizers
        ):
            raise RefusedPacketError("of another model")
        sizes = [packed_bytes(count, bits) for count in (n * frames, n_again * again)]
        if len(content) != _HEAD.size + sum(sizes) or (frames and not n) or (again and not n_again):
            raise RefusedPacketError("damaged")
        middle = _HEAD.size + sizes[0]
        codes = unpack(content[_HEAD.size : middle], n * frames, bits).reshape(frames, n).T
        earlier = unpack(content[middle:], n_again * again, bits).reshape(again, n_again).T
        return cls(stream, sequence, first, bits, model.hex(), codes, earlier)


class Packetizer:
    """Makes packets of the frames of one stream.

    Attributes:
        packets: made so far.
        bytes: of them.
    """

    def __init__(
        self,
        *,
        stream: int,
        fingerprint: str,
        bits: int,
        n_quantizers: int,
        frames: int = 1,
        redundancy: int = 0,
    ) -> None:
        """`frames` go in a packet, with the lower half of the codes of `redundancy` earlier ones.

        Raises:
            SottoError: so much does not fit into a packet.
        """
        if not (1 <= frames <= 255 and 0 <= redundancy <= 255 and 1 <= bits <= MAX_BITS):
            raise SottoError(f"{frames} frames and {redundancy} earlier ones: give 1 and 0 to 255")
        self._n_again = -(-n_quantizers // 2) if redundancy else 0
        size = _HEAD.size + _CHECK.size + packed_bytes(n_quantizers * frames, bits)
        size += packed_bytes(self._n_again * redundancy, bits)
        if size > MOST_BYTES:
            raise SottoError(f"a packet of {size:,} bytes: put fewer frames into each")
        self.packets = self.bytes = 0
        self._stream, self._fingerprint, self._bits = stream, fingerprint, bits
        self._at_once, self._redundancy = frames, redundancy
        self._pending = np.zeros((n_quantizers, 0), np.uint16)
        self._earlier = np.zeros((self._n_again, 0), np.uint16)
        self._frames = 0

    def put(self, codes: NDArray[np.integer]) -> Iterator[bytes]:
        """Takes (n_quantizers, frames) and gives the packets that are full."""
        self._pending = np.concatenate((self._pending, codes.astype(np.uint16)), axis=1)
        while self._pending.shape[1] >= self._at_once:
            yield self._packet(self._at_once)

    def finish(self) -> Iterator[bytes]:
        """Gives what is left, and the packets that say that it was the last."""
        if self._pending.shape[1]:
            yield self._packet(self._pending.shape[1])
        for _ in range(_ENDS):
            yield self._packet(0)

    def _packet(self, frames: int) -> bytes:
        codes, self._pending = self._pending[:, :frames], self._pending[:, frames:]
        packet = Packet(
            stream=self._stream,
            sequence=self.packets,
            first_frame=self._frames,
            bits=self._bits,
            fingerprint=self._fingerprint,
            codes=codes,
            earlier=self._earlier if frames else self._earlier[:0, :0],
        ).to_bytes()
        kept = np.concatenate((self._earlier, codes[: self._n_again]), axis=1)
        self._earlier = kept[:, max(0, kept.shape[1] - self._redundancy) :]
        self._frames += frames
        self.packets += 1
        self.bytes += len(packet)
        return packet
