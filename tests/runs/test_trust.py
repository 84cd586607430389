"""What the files of a run name is not run, looked up or downloaded, unless conf/ names it too."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from wmbench.commands.configuration import encoder_config
from wmbench.models.world_model import WorldModel
from wmbench.runs.find import SHIPPED, planned_run
from wmbench.runs.load import load_head, load_part, load_run, read_config
from wmbench.runs.trust import MOVED, RELEASE, check_names, plain

OPENED = {"_target_": "builtins.open", "file": "PROOF", "mode": "w"}  # makes a file where it is instantiated


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "proof"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "point_maze_lewm", tmp_path / "run"))


def edit(path: Path, changed: dict[str, Any], proof: Path) -> None:
    """Merge settings into a YAML file, with the place of the proof in them."""
    before = OmegaConf.load(path) if path.exists() else OmegaConf.create({})
    for key, value in changed.items():
        OmegaConf.update(before, key, value, merge=False, force_add=True)
    path.write_text(OmegaConf.to_yaml(before).replace("PROOF", str(proof)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": OPENED}, r"encoder\._target_ \(builtins\.open\) is none of the classes that conf/encoder names"),
        ({"predictor": OPENED}, r"predictor\._target_ \(builtins\.open\)"),
        ({"training.regularizer": OPENED}, r"training\.regularizer\._target_ \(builtins\.open\)"),
        ({"encoder.backbone": OPENED}, r"encoder\.backbone\._target_"),
        ({"encoder.widths": [OPENED]}, r"encoder\.widths\.0\._target_"),
        ({"encoder": OPENED | {"_target_": "pathlib.Path.touch"}}, r"\(pathlib\.Path\.touch\)"),
        ({"encoder": OPENED | {"_target_": "wmbench.runs.provenance.subprocess.run"}}, "is none of the classes"),
        ({"encoder": OPENED | {"_target_": "wmbench.encoders.lewm.SmallLeWM.load_state_dict"}}, "is none of the classes"),
        ({"predictor._target_": "wmbench.encoders.lewm.SmallLeWM"}, r"that conf/predictor names"),
        ({"encoder._args_": ["PROOF"]}, r"encoder\._args_ \(.*\) is no setting of a run"),
        ({"predictor._recursive_": False}, r"predictor\._recursive_ \(False\) is no setting of a run"),
        ({"encoder.release": {"_target_": RELEASE, "url": "file:///etc/hostname"}}, "is no release that conf/encoder names"),
        ({"../outputs/mine": OPENED}, "is none of the classes"),
    ],
)
def test_a_run_that_names_other_code_is_refused_and_runs_nothing(run: Path, proof: Path, changed: dict, message: str):
    edit(run / "config.yaml", changed, proof)
    with pytest.raises(ValueError, match=message) as error:
        load_run(run)
    assert str(run / "config.yaml") in str(error.value) and "take it from a copy" in str(error.value)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["decoder", "distance", "policy"])
def test_a_part_that_names_other_code_is_refused_and_runs_nothing(run: Path, proof: Path, name: str):
    model = object.__new__(WorldModel)  # which is not reached
    edit(run / f"{name}.yaml", OPENED, proof)
    (run / f"{name}.safetensors").touch()
    with pytest.raises(ValueError, match=rf"{name}\.yaml: {name}\._target_ \(builtins\.open\) is none.*; delete {name}\."):
        load_part(run, name, lambda config: pytest.fail("it is built")) if name == "decoder" else load_head(run, name, model)
    assert not proof.exists()


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "${oc.decode:'1'}",
        "${hydra:runtime.cwd}",
        "${seed}${oc.env:HOME}",
        "${${arm}:HOME}",
        "${nothing}",
        "${encoder}",
        "$${seed}",
        "${model_name}",  # itself an interpolation in this test
    ],
)
def test_an_interpolation_of_more_than_a_key_of_the_file_is_refused(run: Path, value: str):
    text = (run / "config.yaml").read_text().replace("model_name: point_maze_lewm", "model_name: ${seed}")
    (run / "config.yaml").write_text(text.replace("arm: native", f'arm: "{value}"'))
    with pytest.raises(ValueError, match=r"config\.yaml is damaged \(arm .* asks for more than a key of this file"):
        load_run(run)


def test_keys_of_the_same_file_are_looked_up():
    text = "a: {b: 3, c: '${.b}', d: [1, '${...e}']}\ne: text\nf: ${a.b}\ng: 1e-3\n"
    assert plain(text) == {"a": {"b": 3, "c": 3, "d": [1, "text"]}, "e": "text", "f": 3, "g": 1e-3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1, 2]\nb: [*a, *a]", r"it repeats \*a"),
        ("[" * 40, "lie within each other"),
        ("a: " + "x" * 2**17, "letters are more than"),
        ("a: [1, 0x" + "f" * 5000 + "]", r"a\.1 is a number of 20,000 bits, and at most 64 are read"),
        ("a: !!python/object/apply:os.system ['touch PROOF']", "could not determine a constructor"),
        ("a: !!python/object/apply:pathlib.PosixPath [x]", "is a PosixPath, and no text or number"),
    ],
)
def test_yaml_that_is_more_than_plain_values_is_refused(text: str, message: str, proof: Path):
    with pytest.raises(ValueError, match=message):
        plain(text.replace("PROOF", str(proof)))
    assert not proof.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": "???"}, r"encoder is a value that was still to be given"),
        ({"matched": ["a"]}, r"Cannot merge DictConfig with ListConfig"),
    ],
)
def test_a_configuration_of_other_kinds_of_values_is_refused_by_name(run: Path, proof: Path, changed: dict, message: str):
    edit(run / "config.yaml", changed, proof)
    with pytest.raises(ValueError, match=rf"config\.yaml is damaged \({message}"):
        load_run(run)


def test_a_result_looks_up_nothing_outside_its_file(tmp_path: Path, run: Path):
    edit(tmp_path / "config.yaml", {"ckpt_base_path": str(run.parent), "model_name": "run"}, run)
    assert planned_run(tmp_path) == run
    edit(tmp_path / "config.yaml", {"model_name": "${oc.env:HOME}"}, run)
    with pytest.raises(ValueError, match=r"config\.yaml .*model_name \(\${oc\.env:HOME}\) asks for more than a key"):
        planned_run(tmp_path)


def test_a_result_leads_to_a_run_below_the_folder_that_it_names(tmp_path: Path, run: Path):
    (tmp_path / "base").mkdir()
    for name in ("../run", "/" + str(run), "a/../../run"):
        edit(tmp_path / "config.yaml", {"ckpt_base_path": str(tmp_path / "base"), "model_name": name}, run)
        with pytest.raises(ValueError, match=r"model_name \(.*\) must name a folder below"):
            planned_run(tmp_path)


@pytest.mark.parametrize("name", ["dino_tok", "mae", "siglip2", "vfm_vae"])  # of several releases, or another's
def test_whatever_an_encoder_of_conf_writes_into_a_run_may_be_read_again(name: str):
    check_names(encoder_config(name), "encoder", "config.yaml", "remedy")


def test_a_release_keeps_the_name_that_its_address_has():
    release: dict = encoder_config("timm", ["encoder.model=vit_tiny_patch16_224.augreg_in21k"])["release"]
    check_names({"release": release}, "encoder", "config.yaml", "remedy")
    for changed in ({"file": "mae_pretrain_vit_base.pth"}, {"url": release["url"].replace("timm/", "others/")}):
        with pytest.raises(ValueError, match="is no release that conf/encoder names"):
            check_names({"release": release | changed}, "encoder", "config.yaml", "remedy")


def test_the_shipped_run_and_older_names_may_be_read():
    assert read_config(SHIPPED / "point_maze_lewm" / "config.yaml", "remedy").seed == 0
    for today in MOVED.values():
        check_names({"_target_": today}, "predictor", "config.yaml", "remedy")


def test_a_class_of_ours_in_the_wrong_place_is_refused_by_name(run: Path, proof: Path):
    release: dict = encoder_config("dinov2")["release"]
    edit(run / "config.yaml", {"encoder": release}, proof)
    with pytest.raises(ValueError, match=r"encoder \(.*\.Release\) builds a Release, and no encoder"):
        load_run(run)
