from pathlib import Path

import pytest

from codec import shipped as shipping
from codec.codec import Codec
from codec.errors import ModelFileError, SottoError
from infer.models import find_model, load_model


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a shipped model would be; none is."""
    monkeypatch.delenv("SOTTO_MODEL", raising=False)
    monkeypatch.setattr(shipping, "SHIPPED", tmp_path / "default.safetensors")
    return tmp_path / "default.safetensors"


def test_no_model_says_how_to_name_one() -> None:
    with pytest.raises(SottoError, match="--model FILE, or in SOTTO_MODEL"):
        find_model()


def test_the_name_comes_before_the_variable_and_that_before_the_shipped_one(
    monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    shipped.touch()
    assert find_model() == shipped
    monkeypatch.setenv("SOTTO_MODEL", "")
    assert find_model() == shipped
    monkeypatch.setenv("SOTTO_MODEL", "variable.safetensors")
    assert find_model() == Path("variable.safetensors")
    assert find_model(Path("named.safetensors")) == Path("named.safetensors")


def test_the_model_that_is_found_is_loaded(codec: Codec, shipped: Path) -> None:
    codec.save(shipped)
    assert load_model().fingerprint == codec.fingerprint
    assert load_model(device="auto").fingerprint == codec.fingerprint
    with pytest.raises(ModelFileError, match="gone"):
        load_model(shipped.with_name("gone"))
