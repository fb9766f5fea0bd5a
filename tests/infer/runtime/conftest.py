from pathlib import Path

import pytest

from codec.codec import Codec
from infer.export import export
from infer.runtime import Codec as LightCodec


@pytest.fixture(scope="session")
def exported(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of `codec`, exported."""
    folder = tmp_path_factory.mktemp("export") / "out"
    export(codec, folder)
    return folder


@pytest.fixture(scope="session")
def light(exported: Path) -> LightCodec:
    return LightCodec.load(exported)
