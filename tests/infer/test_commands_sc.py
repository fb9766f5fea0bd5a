import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from codec.codec import Codec
from infer import bitstream, cli

pytestmark = pytest.mark.usefixtures("quiet_environment")


def run(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def coded(codec: Codec, tmp_path: Path) -> Path:
    """Two seconds and a half, in three blocks."""
    codes = np.random.default_rng(0).integers(0, 64, (1, 3, 500))
    header = bitstream.Header(1, None, 3, 6, codec.fingerprint, 8000, 40, source_channels=1)
    with open(tmp_path / "in.sc", "wb") as file:
        writer = bitstream.Writer(file, header)
        writer.write(codes)
        writer.finish()
    return tmp_path / "in.sc"


@pytest.fixture
def folder(coded: Path) -> Path:
    """A whole file, one with a damaged block, and one that is none."""
    folder = coded.parent / "folder"
    folder.mkdir()
    data = bytearray(coded.read_bytes())
    (folder / "whole.sc").write_bytes(data)
    data[100] ^= 1
    (folder / "damaged.sc").write_bytes(data)
    (folder / "none.sc").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_is_verified_in_order_by_any_number_of_processes(folder: Path, jobs: int) -> None:
    result = run("verify", folder, "--jobs", jobs)
    assert result.exit_code == 1
    assert [line.rsplit(": ")[1] for line in result.stdout.splitlines()] == [
        "damaged, 2 blocks, 1.50 s",
        "whole, 3 blocks, 2.50 s",
    ]
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {folder / 'damaged.sc'}: 0:00.00 to 0:01.00")
    assert f"{folder / 'none.sc'} is not a .sc file" in second


@pytest.mark.parametrize("command", ["verify", "info"])
def test_what_only_reads_takes_stdin(coded: Path, command: str) -> None:
    result = run(command, "-", stdin=coded.read_bytes())
    assert result.exit_code == 0 and "standard input" in result.stdout
    assert "2.50 s" in result.stdout
    result = run(command, "-", stdin=b"no")
    assert result.exit_code == 1 and result.stderr.startswith("error: standard input: ")


def test_info_of_stdin_tells_its_size(coded: Path) -> None:
    out = run("info", "-", stdin=coded.read_bytes()).stdout
    assert re.search(rf"bytes +{coded.stat().st_size:,}", out)


def test_a_model_is_not_taken_from_stdin(model: Path) -> None:
    result = run("info", "-", stdin=model.read_bytes())
    assert result.exit_code == 1 and "a model is read from a file" in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("arguments", ["verify {pipe}", "info {pipe}", "cut {pipe} {out} --to 1"])
def test_a_named_pipe_is_read_to_its_end(
    coded: Path, tmp_path: Path, arguments: str, fed: Callable[[Path, bytes], None]
) -> None:
    paths = {"pipe": tmp_path / "pipe", "out": tmp_path / "out.sc"}
    os.mkfifo(paths["pipe"])
    fed(paths["pipe"], coded.read_bytes())
    result = run(*arguments.format(**paths).split())
    assert result.exit_code == 0, result.output


@pytest.fixture
def fed() -> Callable[[Path, bytes], None]:
    def feed(pipe: Path, data: bytes) -> None:
        threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True).start()

    return feed


def test_a_piece_behind_the_end_is_told_in_seconds(coded: Path, tmp_path: Path) -> None:
    result = run("cut", coded, tmp_path / "out.sc", "--from", 60, "--to", 90)
    assert result.exit_code == 1 and not (tmp_path / "out.sc").exists()
    assert "ends at 2.50 s: there is nothing from 60 s on" in result.stderr
