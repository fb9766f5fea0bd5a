"""What `pip install sotto[runtime]` brings is all that the runtime needs."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.support.alone import ROOT, run_alone

# ONNX Runtime, and what it needs itself.
RUNTIME = ("numpy", "onnxruntime", "flatbuffers", "google", "packaging")

PROGRAM = textwrap.dedent("""
    import numpy as np
    from infer.runtime import Codec, decode_sc, encode_sc

    codec = Codec.load(sys.argv[1])
    wave = 0.1 * np.random.default_rng(0).standard_normal(1234).astype(np.float32)
    codes = codec.encode(wave)
    with codec.stream_encoder() as stream:
        assert np.array_equal(np.concatenate([stream.push(wave), stream.flush()], 1), codes)
    with codec.stream_decoder() as stream:
        spoken = np.concatenate([stream.push(frame) for frame in codes.T] + [stream.flush()])
    near = 1e-5 if codec.card.lookahead == 0 else 1e-2 * np.abs(spoken).max()
    assert np.abs(spoken[:1234] - codec.decode(codes, 1234)).max() < near
    encode_sc(codec, [wave[None]], sys.argv[2], n_quantizers=codec.n_quantizers)
    decoded = np.concatenate(list(decode_sc(codec, sys.argv[2])), axis=1)
    assert np.abs(decoded[0] - codec.decode(codes, 1234)).max() < near
    parts = {"codec", "infer"}
    print(*sorted(name for name in sys.modules if name.partition(".")[0] in parts))
""")


@pytest.mark.parametrize("model", ["exported", "exported_voice"])
def test_numpy_and_onnxruntime_are_enough(
    model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    result = run_alone(PROGRAM, request.getfixturevalue(model), tmp_path / "x.sc", packages=RUNTIME)
    assert result.returncode == 0, result.stderr
    assert {"infer.runtime", "infer.bitstream", "codec.errors"} <= set(result.stdout.split())


def test_the_package_asks_for_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = project["optional-dependencies"]["runtime"]
    named = [entry.partition(">=")[0] for entry in (*project["dependencies"], *runtime)]
    assert named == ["numpy", "onnxruntime"]


def test_the_rest_says_what_to_install() -> None:
    command = "sys.argv[1:] = ['encode', 'a.wav', 'a.sc']\nfrom infer.entry import main\nmain()"
    train = f"import runpy\nsys.argv[1:] = ['x.yaml']\nrunpy.run_path({str(ROOT / 'train.py')!r})"
    for program, package in ((command, "typer"), (train, "typer")):
        result = run_alone(program, packages=RUNTIME)
        assert result.returncode == 1
        assert result.stderr == f"error: {package} is not installed: pip install 'sotto[torch]'\n"
        assert result.stdout == ""


def test_a_command_that_lacks_only_torch_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    program = (
        "import sys\nsys.modules['torch'] = None\n"  # to import it fails, as if it were not there
        "from infer.entry import main\nsys.argv = ['sotto', *sys.argv[1:]]\nmain()"
    )
    arguments = ("encode", tmp_path / "a.wav", tmp_path / "a.sc", "--model", "x.safetensors")
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 1
    assert result.stderr == "error: torch is not installed: pip install 'sotto[torch]'\n"
