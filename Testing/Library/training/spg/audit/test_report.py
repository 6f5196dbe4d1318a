"""The report: true in every case, in plain words, and naming nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.spg.audit import (
    Audited,
    AuditReport,
    audit,
    write_confidential,
    write_report,
)

from .conftest import Anatomy, Make, groups

#: A name that no word of a report holds by chance.
REAL = "Müller^{}".format


@pytest.fixture(scope="module")
def report(people: Anatomy) -> AuditReport:
    """Of everything that can run, on a set with one leak."""
    named = [{REAL(name): slices for name, slices in group.items()} for group in groups(people)]
    images = people["outside"].copy()
    images[3] = people["train3"][5]
    return audit(Audited(images, *named, prior=people["outside"]))


def test_every_attack_is_in_it_and_only_the_leak_alarms(report: AuditReport) -> None:
    attacks = [finding.attack for finding in report.findings]
    assert attacks == ["copies", "likeness-ncc", "likeness-ssim"]
    tried = list(map(str, report.tried))
    assert tried[-1].startswith("**Not tried:** membership inference")
    assert [finding.attack for finding in report.alarms] == ["copies"]
    assert [line.endswith("**ALARM: it found a leak.**") for line in tried[1:3]] == [True, False]
    assert str(report.verdict).startswith("ALARM: 1 of 3 attacks found that the images reveal")
    assert report.weight == "severe"


def test_what_cannot_alarm_never_claims_that_it_could(people: Anatomy) -> None:
    """Three and three patients: no exact test comes below its level, only copies are found."""
    reported = audit(Audited(people["outside"][:9], *groups(people, 3)))
    blind = [finding.attack for finding in reported.findings if finding.is_blind]
    assert blind == ["likeness-ncc", "likeness-ssim"]
    verdict = str(reported.verdict)
    assert verdict.startswith("This audit could have found a slice that makes up")
    assert "1 of 3 attacks were able to, with 3 used and 3 held-out patients" in verdict
    nothing = replace(reported, findings=reported.findings[1:])
    assert str(nothing.verdict).startswith("This audit could not have found a leak, however large")
    assert reported.weight == nothing.weight == "warning"
    assert replace(reported, findings=reported.findings[:1]).weight == "info"


def test_files_name_nobody_but_in_the_confidential_folder(
    report: AuditReport, tmp_path: Path
) -> None:
    folder = write_report(report, tmp_path / "audit")
    secret = write_confidential(report, tmp_path / "secret")
    assert sorted(path.name for path in folder.iterdir()) == ["audit.json"]
    names = ["README.txt", *(f"pair-{n}.png" for n in range(1, 6)), "patients.json"]
    assert sorted(path.name for path in secret.iterdir()) == names
    reported = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert reported["alarm"] is True
    assert reported["findings"][0]["measured"]["suspects"][0]["patient"] == "T4"
    assert reported["nearest_pairs"][0]["image"] == 3
    assert reported["counts"]["training_slices"] == 50
    assert all({"p", "level", "detectable", "power"} <= set(f) for f in reported["findings"])
    texts = [json.dumps(reported), *map(str, report.tried)]
    assert not any("ller" in text for text in texts)
    patients = json.loads((secret / "patients.json").read_text(encoding="utf-8"))
    assert patients["T4"] == REAL("train3")
    assert "Do not share" in (secret / "README.txt").read_text(encoding="utf-8")


def test_it_reports_progress_and_stops_when_asked(people: Anatomy, audited: Make) -> None:
    received: list[float] = []

    def listen(event: Event) -> None:
        received.append(event.fields["fraction"])

    audit(audited(people["outside"]), monitor=Monitor(listen))
    assert received == sorted(received)
    assert received[-1] > 0.75
    with pytest.raises(Cancelled):
        audit(audited(people["outside"]), monitor=Monitor(cancel=lambda: True))
