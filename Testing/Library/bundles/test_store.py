"""Models: found, verified, imported, removed; nothing damaged or hostile is used."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from MedEnhanceLib.bundles import importing, store
from MedEnhanceLib.bundles.export import comparison, export_bundle, load_tensors
from MedEnhanceLib.bundles.importing import import_bundle, remove_bundle
from MedEnhanceLib.bundles.schema import METADATA, WEIGHTS
from MedEnhanceLib.bundles.store import (
    Bundle,
    find_bundle,
    is_taken,
    list_bundles,
    open_bundle,
    read_bundle,
    unreadable_bundles,
    verify_bundle,
)
from MedEnhanceLib.errors import MedEnhanceError, ModelError, OutputError

METADATA_FIELDS = {
    "name": "toy",
    "kind": "slices",
    "modality": "MR",
    "description": "A toy.",
    "license": "Apache-2.0",
    "limits": ["None of it is real."],
    "measured": [{"test": "a", "PSNR": 30.0}],
}


pytestmark = pytest.mark.usefixtures("user_models")


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return export_bundle(tmp_path / "toy", {"w": torch.arange(6.0)}, METADATA_FIELDS)


def test_an_exported_bundle_reads_back(toy: Bundle) -> None:
    verify_bundle(toy)
    assert torch.equal(load_tensors(toy)["w"], torch.arange(6.0))
    card = (toy.folder / "docs/README.md").read_text()
    assert "not a medical device" in card
    assert "| a | 30.0 |" in card


@pytest.mark.parametrize(
    ("gain", "error", "advice"),
    [
        (0.02, 0.001, "chance: use mr-slices."),
        (0.3, 0.2, "chance: use mr-slices."),
        (0.3, 0.1, "Use toy: it"),
    ],
)
def test_a_model_is_advised_only_where_its_gain_is_certain(
    gain: float, error: float, advice: str
) -> None:
    gains = {"over_shipped_db": gain, "over_shipped_error_db": error}
    training = {"validation": gains, "config": {}}
    assert advice in comparison(METADATA_FIELDS | {"name": "toy", "training": training})


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_model_comes_in_and_goes(
    is_zip: bool, toy: Bundle, user_models: Path, tmp_path: Path
) -> None:
    source = toy.folder
    if is_zip:
        source = Path(shutil.make_archive(str(tmp_path / "toy"), "zip", tmp_path, "toy"))
    imported = import_bundle(source)
    assert imported.folder == user_models / "toy"
    assert imported.identity()["origin"] == "imported"
    names = [bundle.name for bundle in list_bundles()]
    # Panels offer models in this order, and recommend the first.
    assert names.index("mr-slices") < names.index("toy")
    assert open_bundle("toy", kind="slices", modality="MR").sha256 == toy.sha256
    shipped = open_bundle("auto", kind="slices", modality="MR")
    assert (shipped.name, shipped.origin) == ("mr-slices", "shipped with MedEnhance")
    with pytest.raises(OutputError, match="already"):
        import_bundle(source)
    remove_bundle("toy")
    assert not imported.folder.exists()
    assert toy.folder.exists()


def test_a_link_is_not_removed_and_what_it_leads_to_stays(toy: Bundle, user_models: Path) -> None:
    user_models.mkdir(exist_ok=True)
    (user_models / "toy").symlink_to(toy.folder)
    for name, said in (("toy", "is a link"), (".", "no model '.'")):
        with pytest.raises(MedEnhanceError, match=said):
            remove_bundle(name)
    assert (user_models / "toy").is_symlink()
    assert toy.folder.exists()


def test_an_imported_model_is_no_default_by_the_name_of_one_before(
    toy: Bundle, user_models: Path
) -> None:
    import_bundle(toy.folder)
    store.set_default("toy")
    shutil.rmtree(user_models / "toy")
    import_bundle(toy.folder)
    assert open_bundle("auto", kind="slices", modality="MR").name == "mr-slices"


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 250_000), ("MOST_FILES", 2)])
def test_a_zip_of_more_than_a_model_is_refused_before_it_is_unpacked(
    tmp_path: Path, user_models: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as contents:
        for number in range(3):
            contents.writestr(f"{number}.bin", bytes(100_000))
    monkeypatch.setattr(importing, limit, value)
    with pytest.raises(ModelError, match="in 3 files, more than a model has"):
        import_bundle(archive)
    assert list(user_models.iterdir()) == []


@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "no space"), (errno.EIO, "cannot be")])
@pytest.mark.parametrize("is_zip", [False, True])
@pytest.mark.parametrize("call", ["write", "flush"])
def test_a_full_or_failing_disk_is_not_blamed_on_the_model(
    toy: Bundle, user_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    number: int, says: str, is_zip: bool, call: str,
) -> None:  # fmt: skip
    source = toy.folder
    if is_zip:
        source = Path(shutil.make_archive(str(tmp_path / "toy"), "zip", tmp_path, "toy"))

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if call == "flush":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(*((Path, "write_bytes") if is_zip else (shutil, "copyfile")), fail)
    with pytest.raises(OutputError, match=says) as caught:
        import_bundle(source)
    assert str(user_models) in caught.value.message
    assert list(user_models.iterdir()) == []


def test_files_outside_of_a_model_are_refused(toy: Bundle, tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as contents:
        contents.writestr("../../evil.txt", "x")
    _edit(toy, files={**toy.metadata["files"], "../../etc/passwd": "0"})
    for source in (archive, toy.folder):
        with pytest.raises(ModelError, match="outside"):
            import_bundle(source)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_damage_is_found_and_leaves_nothing_behind(toy: Bundle, user_models: Path) -> None:
    data = bytearray((toy.folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (toy.folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        import_bundle(toy.folder)
    assert list(user_models.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "medenhance-bundle"}']
)
def test_what_is_no_metadata_is_refused(toy: Bundle, text: str) -> None:
    (toy.folder / METADATA).write_text(text)
    with pytest.raises(ModelError, match=r"metadata\.json"):
        read_bundle(toy.folder)


def test_kind_and_modality_must_fit(toy: Bundle) -> None:
    with pytest.raises(ModelError, match="restores thin slices of; a model that segments is needed"):
        open_bundle(str(toy.folder), kind="head", modality="MR")
    with pytest.raises(ModelError, match="for MR, the volume is CT"):
        open_bundle(str(toy.folder), kind="slices", modality="CT")


def test_shipped_models_verify_and_cannot_be_removed() -> None:
    shipped = [bundle for bundle in list_bundles() if bundle.shipped]
    names = {"brain", "ct-slices", "mr-slices", "codec-ct", "codec-em", "codec-mr"}
    assert {bundle.name for bundle in shipped} == names
    for bundle in shipped:
        verify_bundle(bundle)
        assert bundle.anatomy or bundle.kind == "codec"
        assert bundle.metadata["measured"], f"{bundle.name} has no measured table"
        assert bundle.metadata["data"], f"{bundle.name} does not name its data"
        with pytest.raises(MedEnhanceError, match="part of MedEnhance"):
            remove_bundle(bundle.name)
    total = sum(path.stat().st_size for b in shipped for path in b.folder.rglob("*"))
    assert total < 20e6


def test_the_name_of_a_shipped_model_is_taken(toy: Bundle, user_models: Path) -> None:
    _edit(toy, name="mr-slices")
    with pytest.raises(OutputError, match="came with MedEnhance"):
        import_bundle(toy.folder)
    # One that lay there before is distinguished, and can be removed.
    shutil.copytree(toy.folder, user_models / "mr-slices")
    assert open_bundle("mr-slices", kind="slices", modality="MR").origin.startswith("shipped")
    (error,) = unreadable_bundles().values()
    assert "another model is named 'mr-slices'" in error.message
    assert "models remove mr-slices" in error.hint
    assert is_taken("mr-slices") and is_taken("toy") is False
    (user_models / "toy").mkdir()
    assert is_taken("toy")
    remove_bundle("mr-slices")
    assert not (user_models / "mr-slices").exists()
    assert find_bundle("mr-slices").shipped


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"network": [[]]}, "network is [[]], not an object"),
        ({"name": "a" * 5000}, "name has 5000 characters"),
        ({"name": "../up"}, "name is '../up'"),
        ({"name": 7}, "name is 7"),
        ({"name": None}, "name is None"),
        ({"name": "a\nb"}, "several lines"),
        ({"kind": "oracle"}, "of the kind 'oracle'"),
        ({"modality": "XX"}, "modality is 'XX'"),
        ({"training": {"config": [1]}}, "training.config is [1], not an object"),
        ({"labels": [{"value": 1, "name": 2}]}, "labels[0].name is 2, not text"),
        ({"labels": [{"value": 1, "name": "a\n=b"}]}, "labels[0].name has several lines"),
        ({"labels": [{"name": "ab"}, {"name": "a"}, {"name": "ab"}]}, "the name 'ab' twice"),
        ({"data": [{"name": []}]}, "data is"),
        ({"keep_components": 10**400}, "too many digits"),
        ({"keep_components": math.nan}, "keep_components is not a finite number"),
        ({"files": {str(WEIGHTS): 3}}, "files is"),
        ({"files": {str(WEIGHTS): "00"}}, "no path with its SHA-256"),
        ({"more": json.loads("[" * 60 + "]" * 60)}, "nested too deeply"),
    ],
    ids=str,
)
def test_metadata_are_what_the_schema_says_or_refused(
    toy: Bundle, user_models: Path, fields: dict[str, Any], said: str
) -> None:
    _edit(toy, **fields)
    for refuse in (import_bundle, read_bundle):
        with pytest.raises(ModelError, match=re.escape(said)) as caught:
            refuse(toy.folder)
        assert caught.value.hint
    # One that lies there already hides no other, and can be removed.
    shutil.copytree(toy.folder, user_models / "odd")
    assert "mr-slices" in [bundle.name for bundle in list_bundles()]
    assert said in unreadable_bundles()[user_models / "odd"].message
    assert [row["name"] for row in store.installed() if not row["ok"]] == ["odd"]
    with pytest.raises(ModelError, match=re.escape(said)):
        find_bundle("odd")
    remove_bundle("odd")
    assert not unreadable_bundles()


def test_json_that_python_cannot_follow_hides_no_other_model(
    toy: Bundle, user_models: Path
) -> None:
    text = (toy.folder / METADATA).read_text()
    deep = "[" * 100_000 + "]" * 100_000
    (toy.folder / METADATA).write_text(text.replace('"format":', f'"x": {deep}, "format":', 1))
    shutil.copytree(toy.folder, user_models / "deep")
    (user_models / "pipe" / "configs").mkdir(parents=True)
    os.mkfifo(user_models / "pipe" / METADATA)
    assert "mr-slices" in [bundle.name for bundle in list_bundles()]
    messages = [error.message for error in unreadable_bundles().values()]
    assert ["deeply" in messages[0], "pipe" in messages[1]] == [True, True]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    bundle = export_bundle(tmp_path / "nan", {"w": torch.tensor([1.0, value])}, METADATA_FIELDS)
    with pytest.raises(ModelError, match="not all finite"):
        load_tensors(bundle)


def _edit(bundle: Bundle, **fields: object) -> None:
    path = bundle.folder / METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
