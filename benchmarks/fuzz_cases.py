"""What benchmarks/fuzz.py feeds to the readers: small good files, and ways to spoil them."""

import hashlib
import io
import json
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.building import build_autoencoder, inference_tensors
from codec.config import ModelConfig
from codec.entropy import EntropyTables
from codec.model_file import write_model_file
from codec.nn.convolution import fold_weight_norm
from infer.bitstream import Header, Writer

FINGERPRINT = "00112233445566778899aabbccddeeff"
INTERESTING = [0, 1, 2, 3, 7, 8, 15, 16, 17, 127, 128, 254, 255]
WIDE = [0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63, 2**64 - 1]
# Offsets and widths of the numbers in a header.
FIELDS = [(4, 4), (8, 1), (9, 1), (26, 1), (27, 2), (29, 4), (33, 4), (37, 2), (39, 1), (40, 1)]
FIELDS += [(41, 4), (45, 1), (46, 8), (54, 4)]


def tables(n_quantizers: int = 4, codebook_size: int = 64) -> EntropyTables:
    """Small tables that say nothing about anything, for codes of 6 bits."""
    random_numbers = np.random.default_rng(0)

    def integers(dtype: type, *shape: int) -> Any:
        return random_numbers.integers(-9, 10, shape).astype(dtype)

    n, hidden, mixed = n_quantizers, 4, 4
    falling = np.sort(random_numbers.integers(0, 1000, (n, 16)))[:, ::-1] + 1
    return EntropyTables(
        contexts=integers(np.int8, 2, n, codebook_size + 1, hidden),
        hidden_bias=integers(np.int32, n, hidden),
        mixing=integers(np.int8, n, hidden, mixed),
        mixing_bias=integers(np.int32, n, mixed),
        output=integers(np.int8, n, mixed, codebook_size),
        output_bias=integers(np.int32, n, codebook_size),
        weights=falling.astype(np.int32),
        shifts=np.full((n, 2), 3, np.int32),
    )


def _sc(header: Header, frames: int, coder: EntropyTables | None = None) -> bytes:
    file = io.BytesIO()
    codes = np.random.default_rng(frames).integers(
        0, 2**header.bits, (header.channels, header.n_quantizers, frames)
    )
    codes[:, :, frames // 2 :] = 1
    writer = Writer(file, header, tables=coder)
    writer.write(codes)
    writer.finish()
    return file.getvalue()


def good_sc_files(coder: EntropyTables) -> dict[str, list[bytes]]:
    """Small files of every kind."""
    old = Header(0, 0, 2, 10, FINGERPRINT)
    new = Header(1, None, 4, 6, FINGERPRINT, 16000, 320, block_frames=5, source_rate=44100)
    sizes = [(1, 1, 0), (2, 10, 3), (4, 6, 50), (255, 16, 2), (3, 13, 41)]
    return {
        "sc-0": [
            _sc(replace(old, frames=frames, n_quantizers=n, bits=bits), frames)
            for n, bits, frames in sizes
        ],
        "sc-1": [
            _sc(replace(new, n_quantizers=n, bits=bits, channels=channels, frames=known), frames)
            for n, bits, frames in sizes
            for channels, known in ((1, None), (2, frames))
        ],
        "sc-1-compact": [
            _sc(replace(new, compact=True, n_quantizers=n, channels=channels), frames, coder)
            for n, channels, frames in [(1, 1, 0), (1, 2, 12), (4, 1, 23), (2, 1, 110), (4, 3, 5)]
        ],
    }


def good_models(coder: EntropyTables) -> list[bytes]:
    """Tiny model files: without tables and with, and in half precision."""
    half = {"channels": 2, "dilations": [1]}
    config = ModelConfig.model_validate(
        {
            "sample_rate": 8000,
            "hop_length": 8,
            "strides": [2, 4],
            "dimension": 4,
            "encoder": half,
            "decoder": half,
            "quantizer": {"n_quantizers": 4, "codebook_size": 64},
            "default_kbps": 6.0,
        }
    )
    torch.manual_seed(0)
    autoencoder = build_autoencoder(config)
    fold_weight_norm(autoencoder)
    tensors = inference_tensors(autoencoder)
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (weights, some) in enumerate(
            ((tensors, None), (tensors, coder), (halves, coder))
        ):
            path = Path(folder) / f"{index}.safetensors"
            write_model_file(path, config, weights, some)
            models.append(path.read_bytes())
    return models


# -- Spoiling bytes ----------------------------------------------------------------------------


def spoil(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A few mutations of bytes, one after the other."""
    spoiled = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        chance.choice(_MUTATIONS)(spoiled, other, chance)
    return bytes(spoiled)


def _flip(data: bytearray, _: bytes, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _set(data: bytearray, _: bytes, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] = chance.choice([*INTERESTING, chance.randrange(256)])


def _number(data: bytearray, _: bytes, chance: random.Random) -> None:
    width = chance.choice((2, 4, 8))
    at = _place(data, chance)
    number = chance.choice(WIDE) % 256**width
    data[at : at + width] = number.to_bytes(width, chance.choice(("big", "little")))


def _cut(data: bytearray, _: bytes, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _drop(data: bytearray, _: bytes, chance: random.Random) -> None:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 2, 5, 30, 300))]


def _insert(data: bytearray, _: bytes, chance: random.Random) -> None:
    at = _place(data, chance)
    filling = chance.choice((b"\0", b"\xff", b"\0\5", chance.randbytes(7)))
    data[at:at] = filling * chance.choice((1, 1, 2, 20, 300))


def _repeat(data: bytearray, _: bytes, chance: random.Random) -> None:
    start, at = _place(data, chance), _place(data, chance)
    data[at:at] = data[start : start + chance.choice((1, 16, 40, 200))]


def _overwrite(data: bytearray, _: bytes, chance: random.Random) -> None:
    start, length = _place(data, chance), chance.choice((4, 16, 64, 500))
    data[start : start + length] = (
        bytes(length) if chance.random() < 0.3 else chance.randbytes(length)
    )


def _splice(data: bytearray, other: bytes, chance: random.Random) -> None:
    start = chance.randrange(len(other) + 1)
    data[_place(data, chance) :] = other[start:]


def _place(data: bytearray, chance: random.Random) -> int:
    """Anywhere, but often near the beginning or the end, where most is to be misunderstood."""
    size = max(1, len(data))
    near = chance.random()
    if near < 0.3:
        return chance.randrange(min(70, size))
    return size - 1 - chance.randrange(min(40, size)) if near < 0.45 else chance.randrange(size)


_Mutation = Callable[[bytearray, bytes, random.Random], None]
_MUTATIONS: list[_Mutation] = [
    _flip,
    _set,
    _number,
    _cut,
    _drop,
    _insert,
    _repeat,
    _overwrite,
    _splice,
]


def spoil_sc(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Spoils a `.sc` file; half of the time checks are made right again, so as to be believed."""
    if chance.random() < 0.3:
        spoiled = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 4))):
            at, width = chance.choice(FIELDS)
            number = chance.choice([chance.choice(WIDE), chance.randrange(300)]) % 256**width
            spoiled[at : at + width] = number.to_bytes(width)
        data = bytes(spoiled)
    if chance.random() < 0.8:
        data = spoil(data, other, chance)
    return _believable(data, chance) if chance.random() < 0.6 else data


def _believable(data: bytes, chance: random.Random) -> bytes:
    """Makes the checks right of the header, and of the records where they were."""
    if len(data) < 62 or data[26] != 1:
        return data
    length = int.from_bytes(data[27:29])
    if not 62 <= length <= len(data):
        length = 62
    start = data[:27] + struct.pack(">H", length) + data[29 : length - 4]
    fixed = bytearray(start + struct.pack(">I", zlib.crc32(start)) + data[length:])
    block, codes, compact = int.from_bytes(data[37:39]), data[8] * data[39], data[40] == 1
    width = -(-(-(-block * codes * data[9] // 8)).bit_length() // 8) if compact else 0
    at, number = length, chance.choice((0, 0, 0, 1, 7))
    while at + 6 + width <= len(fixed):
        frames = int.from_bytes(fixed[at : at + 2])
        size = 2 + width + -(-frames * codes * data[9] // 8)
        if compact:
            size = 2 + width + int.from_bytes(fixed[at + 2 : at + 2 + width])
        if frames == 0:
            size = len(fixed) - at - 4
            fixed[at + size - 4 : at + size] = struct.pack(">I", size + 4)
        if at + size + 4 > len(fixed):
            break
        check = zlib.crc32(fixed[at : at + size] + struct.pack(">I", number))
        fixed[at + size : at + size + 4] = struct.pack(">I", check)
        at, number = at + size + 4, number + chance.choice((1, 1, 1, 1, 1, 2, 90))
    return bytes(fixed)


# -- Spoiling model files ----------------------------------------------------------------------


def spoil_model(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Spoils a model file: its bytes, its JSON, or its JSON with everything else made right."""
    if chance.random() < 0.4:
        return spoil(data, other, chance)
    length = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    sotto = json.loads(about["__metadata__"]["sotto"])
    what = chance.random()
    if what < 0.4:
        config = json.loads(sotto["config"])
        _spoil_json(config, chance)
        sotto["config"] = json.dumps(config, sort_keys=True, separators=(",", ":"))
    elif what < 0.6:
        _spoil_json(sotto, chance)
    else:
        _spoil_json(about, chance)
    if isinstance(about.get("__metadata__"), dict):
        if chance.random() < 0.7 and isinstance(sotto.get("config"), str):
            sotto["fingerprint"] = _fingerprint(sotto["config"], about, body)
        about["__metadata__"]["sotto"] = json.dumps(sotto)
    header = json.dumps(about).encode()
    if chance.random() < 0.1:
        body = spoil(body, other, chance)
    return struct.pack("<Q", len(header)) + header + body


def _fingerprint(config: str, about: dict[str, Any], body: bytes) -> str:
    """What read_model_file should find, if the tensors make any sense."""
    digest = hashlib.blake2b(config.encode(errors="replace"), digest_size=16)
    names = {"F32": "float32", "I64": "int64", "BOOL": "bool", "F64": "float64", "I32": "int32"}
    for name in sorted(about):
        entry = about[name]
        if name == "__metadata__" or name.startswith("entropy.") or not isinstance(entry, dict):
            continue
        try:
            shape = "x".join(str(size) for size in entry["shape"])
            start, stop = entry["data_offsets"]
            digest.update(f"\n{name} {names.get(entry['dtype'])} {shape}\n".encode())
            digest.update(body[start:stop])
        except (KeyError, TypeError, ValueError):
            continue
    return digest.hexdigest()


def _spoil_json(root: Any, chance: random.Random) -> None:
    """Changes, drops or adds a few values somewhere in nested dicts and lists."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        node = root
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = chance.choice(keys)
            inner = node[key]
            if isinstance(inner, dict | list) and inner and chance.random() < 0.85:
                node = inner
                continue
            if chance.random() < 0.15:
                del node[key]
            else:
                node[key] = chance.choice(_values(inner))
            break


def _values(value: Any) -> list[Any]:
    odd: list[Any] = [
        None,
        True,
        "",
        "\ud800",
        "a" * 5000,
        [],
        {},
        [[]],
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
    ]
    odd += [1.5, float("nan"), float("inf"), "F32", "BF16", "F8_E4M3", "I64", "BOOL", "U8", "C64"]
    if isinstance(value, int):
        odd += [value + 1, value * 2, value - 1] * 5
    if isinstance(value, list):
        odd += [value * 2, value[::-1], value[:1], [*value, 2**40]] * 3
    return odd
