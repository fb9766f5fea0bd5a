from pathlib import Path

import pytest
from typer.testing import CliRunner

from codec.codec import Codec
from infer import cli
from infer.describing import latency

pytestmark = pytest.mark.usefixtures("quiet_environment")


@pytest.mark.parametrize(
    ("lookahead", "says"),
    [
        (0, "20 ms, a frame"),
        (1, "40 ms (20 ms frame, 20 ms look-ahead)"),
        (2, "60 ms (20 ms frame, 40 ms look-ahead)"),
        (None, "none: it takes whole signals"),
    ],
)
def test_latency_is_a_frame_and_what_is_waited_for(lookahead: int | None, says: str) -> None:
    assert latency(0.02, lookahead) == says


def test_info_says_how_late_a_voice_is(
    voice: Codec, exported: Path, exported_voice: Path, tmp_path: Path
) -> None:
    voice.save(tmp_path / "voice.safetensors")
    for one in (tmp_path / "voice.safetensors", exported_voice, exported_voice / "card.json"):
        result = CliRunner().invoke(cli.app, ["info", str(one)])
        assert result.exit_code == 0, result.output
        assert voice.fingerprint in result.stdout
        assert "40 ms (20 ms frame, 20 ms look-ahead)" in result.stdout
    assert "5 ms, a frame" in CliRunner().invoke(cli.app, ["info", str(exported)]).stdout
    (tmp_path / "card.json").write_text("{}")
    result = CliRunner().invoke(cli.app, ["info", str(tmp_path / "card.json")])
    assert result.exit_code == 1
    assert "card.json" in result.stderr
