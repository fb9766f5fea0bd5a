"""The header of a `.sc` file, versions 0 and 1: what the file says of itself (docs/format.md)."""

import dataclasses
import struct
import zlib
from dataclasses import dataclass

from codec.errors import BitstreamError
from infer.packing import MAX_BITS, packed_bytes

MAGIC = bytes.fromhex("12121212")
MAX_QUANTIZERS = 255
MAX_CHANNELS = 255
# A block of more codes than these is not written and not read: memory stays bounded, and so does
# the time of one block, which entropy coding takes most of.
MAX_BLOCK_CODES = 1 << 22
MAX_COMPACT_CODES = 1 << 18
MAX_BLOCK_FRAMES = 2**16 - 1
MAX_GAIN_DB = 200.0
UNKNOWN_FRAMES = 2**32 - 1
UNKNOWN_SAMPLES = 2**64 - 1
CRITICAL = 0x80
TABLES_FIELD = CRITICAL | 1

START = struct.Struct(">4sIBB16sB")
_REST = struct.Struct(">HIIHBBIBQi")
_FIELD = struct.Struct(">BH")
_CRC = struct.Struct(">I")
SHORTEST = START.size + _REST.size + _CRC.size
LONGEST = 2**16 - 1
# Version 0 has no blocks: its codes are read in pieces of about so many.
_VERSION_0_CODES = 1 << 15


@dataclass(frozen=True)
class Header:
    """What a `.sc` file says of itself.

    Attributes:
        version: of the format, 0 or 1.
        frames: number of frames, 0 to 2^32 - 2 (version 0: 2^32 - 1); none: not known (yet).
        n_quantizers: codebooks used per frame, 1 to 255.
        bits: bits of one code, 1 to 16.
        fingerprint: the model's, 32 lower-case hex digits.
        sample_rate: the model's, Hz; none in version 0.
        hop_length: the model's samples a frame; none in version 0.
        block_frames: frames a block, 1 to 65535 (version 0: a multiple of 8, by which it is read);
            0 in a header to be written: about a second.
        channels: coded one by one, 1 to 255.
        compact: whether the codes are entropy coded.
        tables: fingerprint of the probability tables of a compact file, 32 lower-case hex digits.
        source_rate: Hz of the audio that was encoded; none: not known.
        source_channels: of that audio, 1 to 255; none: not known.
        source_samples: of each of its channels, at `source_rate`; none: not known (yet).
        gain_db: applied before encoding, within 200 dB, a multiple of 0.001.
    """

    version: int
    frames: int | None
    n_quantizers: int
    bits: int
    fingerprint: str
    sample_rate: int | None = None
    hop_length: int | None = None
    block_frames: int = 0
    channels: int = 1
    compact: bool = False
    tables: str | None = None
    source_rate: int | None = None
    source_channels: int | None = None
    source_samples: int | None = None
    gain_db: float = 0.0

    @property
    def frame_rate(self) -> float | None:
        """Frames a second; none in version 0."""
        if self.sample_rate is None or self.hop_length is None:
            return None
        return self.sample_rate / self.hop_length

    @property
    def seconds(self) -> float | None:
        """Duration of the audio, as exact as it is known; none: not known."""
        if self.source_samples is not None and self.source_rate is not None:
            return self.source_samples / self.source_rate
        rate = self.frame_rate
        return None if rate is None or self.frames is None else self.frames / rate

    @property
    def kbps(self) -> float | None:
        """Rate of the codes alone at a fixed rate, kbit/s; none in version 0."""
        rate = self.frame_rate
        return None if rate is None else self.codes_per_frame * self.bits * rate / 1000

    @property
    def codes_per_frame(self) -> int:
        """Codes of all channels and codebooks."""
        return self.channels * self.n_quantizers

    @property
    def most_codes(self) -> int:
        """Codes that one block may have."""
        return MAX_COMPACT_CODES if self.compact else MAX_BLOCK_CODES

    def body_bytes(self, frames: int) -> int:
        """Bytes of the packed codes of so many frames."""
        return packed_bytes(frames * self.codes_per_frame, self.bits)

    def checked(self) -> "Header":
        """This header as a file can hold it: block_frames chosen, gain rounded.

        Raises:
            BitstreamError: no file can hold it.
        """
        problem = _problem(self)
        if problem is not None:
            raise BitstreamError(f"a .sc file cannot have {problem}")
        frames = self.block_frames
        if self.version == 0:
            frames = max(1, _VERSION_0_CODES // self.n_quantizers // 8) * 8
        elif frames == 0:
            second = round(self.frame_rate or 1)
            frames = min(second, MAX_BLOCK_FRAMES, self.most_codes // self.codes_per_frame)
            frames = max(1, frames)
        gain = round(self.gain_db * 1000) / 1000
        return dataclasses.replace(
            self,
            block_frames=frames,
            gain_db=gain,
            fingerprint=self.fingerprint.lower(),
            tables=None if self.tables is None else self.tables.lower(),
        )

    def to_bytes(self) -> bytes:
        """The bytes of a header that `checked` gave."""
        frames = UNKNOWN_FRAMES if self.frames is None else self.frames
        start = START.pack(
            MAGIC,
            frames,
            self.n_quantizers,
            self.bits,
            bytes.fromhex(self.fingerprint),
            self.version,
        )
        if self.version == 0:
            return start
        fields = b""
        if self.tables is not None:
            fields = _FIELD.pack(TABLES_FIELD, 16) + bytes.fromhex(self.tables)
        rest = _REST.pack(
            SHORTEST + len(fields),
            self.sample_rate,
            self.hop_length,
            self.block_frames,
            self.channels,
            int(self.compact),
            self.source_rate or 0,
            self.source_channels or 0,
            UNKNOWN_SAMPLES if self.source_samples is None else self.source_samples,
            round(self.gain_db * 1000),
        )
        data = start + rest + fields
        return data + _CRC.pack(zlib.crc32(data))


def is_sc(start: bytes) -> bool:
    """Whether a file that begins with these bytes (4 or more) is a `.sc` file of any version."""
    return start[: len(MAGIC)] == MAGIC


def header_bytes(data: bytes, name: str) -> int:
    """The length of the header that begins with these bytes: SHORTEST, or what there is.

    Raises:
        BitstreamError: no `.sc` file, of another version, or cut short.
    """
    if not data:
        raise BitstreamError(f"{name} is empty: a .sc file has at least {START.size} bytes")
    if not is_sc(data):
        raise BitstreamError(
            f"{name} is not a .sc file: it begins with {data[:4].hex(' ')}, not {MAGIC.hex(' ')}"
        )
    if len(data) < START.size:
        raise _cut(name, len(data), START.size)
    version = data[START.size - 1]
    if version > 1:
        raise BitstreamError(
            f"{name} is of .sc version {version} and this Sotto reads versions 0 and 1: "
            "a newer Sotto made it (update yours), or it is damaged"
        )
    if version == 0:
        return START.size
    if len(data) < SHORTEST:
        raise _cut(name, len(data), SHORTEST)
    length = int(_REST.unpack_from(data, START.size)[0])
    if length < SHORTEST:
        raise BitstreamError(f"{name} is damaged: its header cannot have {length} bytes")
    return length


def parse(data: bytes, name: str) -> Header:
    """Reads the header from its bytes, as many as `header_bytes` says.

    Raises:
        BitstreamError: cut short, damaged, or not to be understood.
    """
    _, frames, n_quantizers, bits, fingerprint, version = START.unpack_from(data)
    if version == 0:
        return _checked(Header(0, frames, n_quantizers, bits, fingerprint.hex()), name)
    rest = _REST.unpack_from(data, START.size)
    if len(data) < rest[0]:
        raise _cut(name, len(data), rest[0])
    if zlib.crc32(data[:-4]) != _CRC.unpack(data[-4:])[0]:
        raise BitstreamError(f"{name} is damaged: the checksum of its header is wrong")
    _, sample_rate, hop, block, channels, coding, rate, source_channels, samples, gain = rest
    if coding > 1:
        raise BitstreamError(
            f"{name} is coded in a way (number {coding}) that this Sotto does not know: update it"
        )
    header = Header(
        version=version,
        frames=None if frames == UNKNOWN_FRAMES else frames,
        n_quantizers=n_quantizers,
        bits=bits,
        fingerprint=fingerprint.hex(),
        sample_rate=sample_rate,
        hop_length=hop,
        block_frames=block,
        channels=channels,
        compact=coding == 1,
        tables=_tables_in(data[START.size + _REST.size : -4], name),
        source_rate=rate or None,
        source_channels=source_channels or None,
        source_samples=None if samples == UNKNOWN_SAMPLES else samples,
        gain_db=gain / 1000,
    )
    if block == 0:  # "about a second" in a Header
        raise BitstreamError(f"{name} is damaged: its header says 0 frames a block")
    return _checked(header, name)


def _tables_in(fields: bytes, name: str) -> str | None:
    """Goes through the optional fields; those that are not known are skipped if they may be."""
    tables = None
    while fields:
        kind, length = _FIELD.unpack_from(fields) if len(fields) >= 3 else (0, LONGEST)
        value, fields = fields[3 : 3 + length], fields[3 + length :]
        if len(value) < length or (kind == TABLES_FIELD and (length != 16 or tables)):
            raise BitstreamError(f"{name} is damaged: the fields of its header do not fit")
        if kind == TABLES_FIELD:
            tables = value.hex()
        elif kind & CRITICAL:
            raise BitstreamError(
                f"{name} cannot be read without understanding field {kind} of its header, and "
                "this Sotto does not know it: update it"
            )
    return tables


def _checked(header: Header, name: str) -> Header:
    problem = _problem(header)
    if problem is not None:
        raise BitstreamError(f"{name} is damaged: its header says {problem}")
    return header.checked()


def _problem(header: Header) -> str | None:
    """What of this header no file can have; none: nothing."""
    if header.version not in (0, 1):
        return f"version {header.version} of .sc (there are 0 and 1)"
    found = _out_of_range(
        ("bits of a code", header.bits, 1, MAX_BITS),
        ("codebooks", header.n_quantizers, 1, MAX_QUANTIZERS),
        ("frames", header.frames, 0, UNKNOWN_FRAMES - header.version),
    )
    if found is None and not _is_fingerprint(header.fingerprint):
        found = f"{header.fingerprint!r} as a model's fingerprint (which has 32 hex digits)"
    if found is None:
        check = _problem_of_version_1 if header.version else _problem_of_version_0
        found = check(header)
    return found


def _problem_of_version_0(header: Header) -> str | None:
    if header.frames is None:
        return "an unknown number of frames in version 0"
    if header.channels != 1 or header.compact:
        return "several channels or compact codes in version 0"
    return None


def _problem_of_version_1(header: Header) -> str | None:
    found = _out_of_range(
        ("Hz", header.sample_rate or 0, 1, 2**32 - 1),
        ("samples a frame", header.hop_length or 0, 1, 2**32 - 1),
        ("channels", header.channels, 1, MAX_CHANNELS),
        ("frames a block", header.block_frames, 0, MAX_BLOCK_FRAMES),
        ("codes a block", header.block_frames * header.codes_per_frame, 0, header.most_codes),
        ("Hz of the source", header.source_rate, 1, 2**32 - 1),
        ("channels of the source", header.source_channels, 1, MAX_CHANNELS),
        ("samples of the source", header.source_samples, 0, UNKNOWN_SAMPLES - 1),
    )
    if found is not None:
        return found
    if not abs(header.gain_db) <= MAX_GAIN_DB:
        return f"a gain of {header.gain_db:g} dB (up to {MAX_GAIN_DB:g} are possible)"
    if header.compact != (header.tables is not None):
        return "compact codes without probability tables, or tables without compact codes"
    if header.tables is not None and not _is_fingerprint(header.tables):
        return f"{header.tables!r} as the tables' fingerprint (which has 32 hex digits)"
    return None


def _out_of_range(*checks: tuple[str, int | None, int, int]) -> str | None:
    for what, value, least, most in checks:
        if value is not None and not least <= value <= most:
            return f"{value} {what} ({least} to {most} are possible)"
    return None


def _is_fingerprint(text: str) -> bool:
    try:
        return len(text) == 32 and len(bytes.fromhex(text)) == 16
    except ValueError:
        return False


def _cut(name: str, there: int, length: int) -> BitstreamError:
    return BitstreamError(
        f"{name} is cut short: {there} of the {length} bytes of its header are there; "
        "get the whole file again"
    )
