import json
from pathlib import Path

import pytest

from codec.config import Config, json_schema
from codec.config_files import load_config, save_config
from codec.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_keys_left_out_have_their_defaults(tmp_path):
    config = load_config(write(tmp_path, "a.yaml", "name: a\n"))
    assert config == Config(name="a")


def test_base_is_merged_key_by_key_and_overrides_come_last(tmp_path):
    write(tmp_path, "base.yaml", "training: {steps: 10, log_every: 5}\nseed: 1\n")
    path = write(tmp_path, "a.yaml", "base: base.yaml\ntraining: {steps: 20}\n")
    config = load_config(path, ["seed=7", "losses.mel.weight=3e-1", "data.gain_db=[-3, 3]"])
    assert (config.training.steps, config.training.log_every, config.seed) == (20, 5, 7)
    assert config.losses.mel.weight == 0.3
    assert config.data.gain_db == [-3, 3]


def test_merge_keys_work(tmp_path):
    text = "losses: {mel: &a {weight: 3.0}, waveform: {<<: *a}}\n"
    assert load_config(write(tmp_path, "a.yaml", text)).losses.waveform.weight == 3.0


def test_whisper_needs_a_segment_it_can_take(tmp_path):
    path = write(tmp_path, "a.yaml", "losses: {whisper: {weight: 1.0}}\n")
    with pytest.raises(ConfigError, match=r"data\.segment_samples 640000 are 40 s.*0.025 to 30 s"):
        load_config(path, ["data.segment_samples=640000"])


def test_exponents_are_numbers_without_a_point(tmp_path):
    path = write(tmp_path, "a.yaml", "optimizer: {learning_rate: 3e-4}\n")
    assert load_config(path).optimizer.learning_rate == 3e-4


def test_saved_config_reads_back_equal(tmp_path):
    path = write(tmp_path, "a.yaml", "name: uni.1\n")
    config = load_config(path, ["discriminators.period={periods: [2, 3]}", "training.steps=3"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.stpes=4", ["training.stpes", "4", "did you mean training.steps?"]),
        ("trainig.steps=4", ["trainig", "did you mean training?"]),
        ("training.steps=many", ["training.steps", "'many'", "integer"]),
        ("training.steps=true", ["training.steps", "True", "integer"]),
        ("training.steps=0", ["training.steps", "0", "greater than 0"]),
        ("training=4", ["training", "4", "section"]),
        ("balancer.kind=emma", ["balancer.kind", "'emma'", "'ema', 'gradient' or 'none'"]),
        ("data.segment_samples=16001", ["data.segment_samples", "16001", "320", "16000"]),
        ("data.segment_samples=320", ["data.segment_samples", "320", "2048", "2240"]),
        ("model.strides=[2, 4, 5]", ["[2, 4, 5]", "multiply to 40", "hop_length 320"]),
        ("model.quantizer.codebook_size=1000", ["codebook_size", "1000", "1024"]),
        ("model.default_kbps=2.2", ["default_kbps", "2.2", "0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4"]),
        ("validation.kbps=[3, 5]", ["validation.kbps", "5", "0.5, 1, 1.5"]),
        (
            "discriminators.stft=null",
            ["discriminators.stft", "bands", "frames", "losses.adversarial.weight"],
        ),
        (
            "discriminators={stft: null, parameters: {channels: 8}}",
            ["discriminators.stft", "all null", "losses.adversarial.weight"],
        ),
        ("discriminators.bands={n_ffts: [514]}", ["bands.n_ffts.0", "514", "multiple of 4"]),
        ("discriminators.frames={channels: 30}", ["frames", "30", "4 groups", "32 would"]),
        ("losses.adversarial.seconds=0.1", ["adversarial.seconds", "2048", "0.128"]),
        ("losses.adversarial.items=0", ["adversarial.items", "0", "greater than 0"]),
        ("losses.adversarial.generator_every=0", ["adversarial.generator_every", "greater"]),
        ("losses.mel.n_ffts=[]", ["losses.mel.n_ffts", "at least 1"]),
        ("data.gain_db=[3, -3]", ["data.gain_db", "[3, -3]", "[-3"]),
        ("model.strides=[0, 320]", ["model.strides.0", "0", "greater than 0"]),
        ("training.steps", ["training.steps", "section.key=value"]),
        ("optimizer.betas=[1.0, 2.0]", ["optimizer.betas.0", "1.0", "less than 1"]),
        ("losses.mel.weight=.inf", ["losses.mel.weight", "inf", "finite"]),
        ("validation.kbps=[]", ["validation.kbps", "at least 1"]),
        ("name=..", ["name", "'..'"]),
        (
            "model.encoder.chanels=3",
            ["model.encoder.chanels", "3", "did you mean model.encoder.channels?"],
        ),
        (
            "model.decoder={kind: convnext, bloks: [1]}",
            ["model.decoder.bloks", "did you mean model.decoder.blocks?"],
        ),
        (
            "model.encoder={kind: convnext, channels: [4], blocks: [1], strides: [320], "
            "noise_channels: 4}",
            ["encoder.noise_channels", "for the decoder; leave it out"],
        ),
        ("losses.spectrum={weight: 1, takes: 2}", ["spectrum.takes", "noise_channels: 32"]),
        ("losses.spectrum={takes: 3, weight: 1}", ["spectrum.takes", "less than or equal to 2"]),
        ("model.encoder={kind: lstm}", ["model.encoder.kind", "'seanet' or 'convnext'"]),
        ("model.encoder.channels=0", ["model.encoder.channels: 0", "greater than 0"]),
        ("seed=2024-13-45", ["seed=2024-13-45", "not valid YAML"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_named_in_one_line_with_what_would_do(tmp_path, override, told):
    path = write(tmp_path, "a.yaml", "name: a\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    message = str(caught.value)
    assert "\n" not in message
    for words in told:
        assert words in message


@pytest.mark.parametrize("judge", ["period", "bands", "frames"])
def test_any_discriminator_of_waves_will_do(tmp_path, judge):
    path = write(tmp_path, "a.yaml", f"discriminators: {{stft: null, {judge}: {{}}}}\n")
    discriminators = load_config(path).discriminators
    assert discriminators.of_waves() == [getattr(discriminators, judge)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- b\n", "holds a list"),
        ("{a: 1", "not valid YAML"),
        ("just words\n", "holds a str"),
        ("seed: 1\nseed: 2\n", "'seed' stands twice"),
        ("base: nowhere.yaml\n", "there is no file"),
        ("base: a.yaml\n", "leads back"),
        ("base: 3\n", "is not the path"),
        ("\x00\x01", "not valid YAML"),
        ("{{ name }}: x\n", "not valid YAML"),
        ("? [a, b]\n: c\n", "is no name"),
        ("3: x\n", "the key 3 is no name"),
        ("seed: 2024-13-45\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
    ids=[
        "list",
        "unclosed",
        "words",
        "twins",
        "no-base",
        "circle",
        "number-base",
        "binary",
        "template",
        "list-key",
        "number-key",
        "date",
        "deep",
    ],
)
def test_files_that_are_no_run_descriptions_say_so(tmp_path, text, told):
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError, match=r"a\.yaml") as caught:
        load_config(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_suggests_a_near_name(tmp_path):
    write(tmp_path, "quickstart.yaml", "name: a\n")
    with pytest.raises(ConfigError, match=r"did you mean .*quickstart\.yaml"):
        load_config(tmp_path / "quikstart.yaml")


def test_schema_describes_every_key_in_json():
    schema = json.loads(json.dumps(json_schema()))
    assert set(Config.model_fields) | {"base"} == set(schema["properties"])
    steps = schema["$defs"]["DataConfig"]["properties"]["segment_samples"]
    assert "multiple of the hop" in steps["description"]
    assert schema["additionalProperties"] is False


CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_configs_are_valid(path):
    config = load_config(path)
    assert config.name == path.stem


def test_there_are_committed_configs():
    assert {"quickstart", "speech-16k"} <= {path.stem for path in CONFIGS}
