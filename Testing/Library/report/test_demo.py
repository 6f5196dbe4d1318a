"""The demo's page: its sentences follow its numbers."""

from __future__ import annotations

from MedEnhanceLib.report.demo import (
    Compression,
    Findings,
    Quality,
    Step,
    compression_table,
    quality_table,
    summary,
)


def findings(psnr_after: float, dice_after: float) -> Findings:
    return Findings(
        quality=[
            Quality("undamaged", None, None, {"gray matter": 0.9, "white matter": 0.92}),
            Quality("damaged", 20.0, 0.5, {"gray matter": 0.5, "white matter": 0.6}),
            Quality("enhanced", psnr_after, 0.8, {"gray matter": dice_after, "white matter": 0.9}),
        ],
        compression=[
            Compression("lossless", "a.ucv", 3.25, 0.0, None, 1.5, 0.4, "every voxel equal"),
            Compression("largest error 2", "b.ucv", 7.5, 2.0, 51.2, 1.2, 0.3, "all within ± 2"),
        ],
        steps=[Step("damage", 1.5), Step("enhance", 20.25)],
    )


def test_summary_says_that_it_got_better() -> None:
    text = " ".join(summary(findings(25.0, 0.8)))
    assert "raised the PSNR in the brain from 20.0 to 25.0 dB" in text
    assert "rose from 0.550 on the damaged volume to 0.850" in text


def test_summary_says_that_it_got_worse() -> None:
    text = " ".join(summary(findings(19.0, 0.1)))
    assert "lowered the PSNR in the brain from 20.0 to 19.0 dB" in text
    assert "fell from 0.550 on the damaged volume to 0.500" in text


def test_tables_have_a_cell_for_every_column() -> None:
    for table in (quality_table(findings(25, 0.8)), compression_table(findings(25, 0.8))):
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert quality_table(findings(25, 0.8)).columns[-1] == "Dice, white matter"
    assert compression_table(findings(25, 0.8)).rows[0][3] == "no difference"
