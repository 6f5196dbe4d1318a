"""The tables of docs/results.md and of other pages, each cell from the results in JSON.

figures.py puts them between `<!-- figures: NAME -->` and `<!-- /figures -->`, and checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from _figure_origins import Cell, FigureError, record, value_of

#: Text, a number, or several of both in one cell.
Content = str | Cell | tuple[str | Cell, ...]
#: From how many volumes on a mean has an interval.
_FEWEST_VOLUMES = 5


@dataclass(frozen=True)
class Table:
    """A Markdown table: a head, and rows of contents."""

    head: Sequence[str]
    rows: Sequence[Sequence[Content]]

    def __str__(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *(map(_text, row) for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _text(content: Content) -> str:
    return "".join(map(str, content)) if isinstance(content, tuple) else str(content)


def _mean(path: str, form: str = ".2f") -> tuple[Cell, ...] | str:
    """The mean with the range over subjects and seeds; a dash where nothing was measured.

    From five volumes on with the 95 % interval of the mean over them.
    """
    if not _there(path):
        return "–"
    ends = (" (", Cell(f"{path}:min", form), " to ", Cell(f"{path}:max", form), ")")
    if value_of(f"{path}:volumes") < _FEWEST_VOLUMES:
        return (Cell(f"{path}:mean", form), *ends)
    return (Cell(f"{path}:mean", form), " [", Cell(f"{path}:low", form), ", ",
            Cell(f"{path}:high", form), "]", *ends)  # fmt: skip


def _one(path: str, form: str = ".2f") -> Cell | str:
    return Cell(path, form) if _there(path.rpartition(":")[0] or path) else "–"


def _there(path: str) -> bool:
    try:
        return value_of(f"({path}):count") > 0
    except FigureError:
        return False


def _worst_first(rows: Iterable[tuple[str, Sequence[Content]]]) -> list[Sequence[Content]]:
    """Rows by the value of a path, the lowest first: where we lose stands above."""
    return [row for _, row in sorted(rows, key=lambda entry: value_of(entry[0]))]


# --- enhancement

_CASES = {
    "Rician 3 %": ("modality=MR", "brains, 3 %"),
    "Rician 5 %": ("modality=MR", "brains, 5 %"),
    "Rician 10 %": ("modality=MR", "brains, 10 %"),
    "Rician 15 %": ("modality=MR", "brains, 15 %"),
    "low dose 5e3": ("subject~sts; subject!~cleaned", "sarcomas, 5,000 photons"),
    "low dose 2e4": ("subject~sts; subject!~cleaned", "sarcomas, 20,000 photons"),
    "low dose 1e5": ("subject~sts; subject!~cleaned", "sarcomas, 100,000 photons"),
    "low dose 5e3 ": ("subject~abdomen", "abdomen, 5,000 photons"),
    "low dose 2e4 ": ("subject~abdomen", "abdomen, 20,000 photons"),
    "low dose 1e5 ": ("subject~abdomen", "abdomen, 100,000 photons"),
    "low dose 5e3  ": ("subject~cleaned", "sarcomas, cleaned by BM4D, 5,000 photons"),
    "low dose 2e4  ": ("subject~cleaned", "sarcomas, cleaned by BM4D, 20,000 photons"),
    "low dose 1e5  ": ("subject~cleaned", "sarcomas, cleaned by BM4D, 100,000 photons"),
}


def enhancement() -> Table:
    """PSNR over the whole image with simulated noise, beside peers; CT with `--smooth`."""
    rows = []
    for case, (group, name) in _CASES.items():
        base = f"enhancement.rows[{group}; case={case.strip()}; seed=0; arm="
        gain = _over_bm4d(group, case.strip())
        ours = f"{base}ours].psnr_image"
        rows.append((gain, (
            name,
            *(Cell(f"{base}{arm}].psnr_image:mean") for arm in ("input", "NLM", "BM4D", "ours")),
            Cell(gain, "+.2f"), Cell(f"{ours}:count", ".0f"),
        )))  # fmt: skip
    head = ("volumes, noise", "input", "NLM", "BM4D", "MedEnhance", "over BM4D", "n")
    return Table(head, _worst_first(rows))


def _over_bm4d(group: str, case: str) -> str:
    """On the same noisy volumes: BM4D ran with the first seed alone."""
    base = f"enhancement.rows[{group}; case={case}; seed=0; arm="
    return f"{_over(base, ('ours', 'BM4D'), 'psnr_image')}:mean"


def _over(base: str, arms: tuple[str, str], figure: str) -> str:
    """The differences between two arms, entry by entry; `base` ends in "arm="."""
    ours, theirs = (f"{base}{arm}].{figure}" for arm in arms)
    return f"({ours} - {theirs})"


def real() -> Table:
    """Repeated real scans: the error that is left, as a share of the input's, and σ."""
    ranged = ("single", "sequence")
    peers = ("true", "nlm", "bm4d", "bm4d_true", "mp_pca")
    rows: list[Sequence[Content]] = []
    for group in ("SNR to 10", "SNR 10 to 50", "SNR above 50", "frames differ"):
        path = f"real.rows[group={group}]"
        if _there(f"{path}.single"):
            means = [_one(f"{path}.{arm}:mean") for arm in peers]
            row = [group, Cell(f"{path}.single:count", ".0f")]
            rows.append([*row, *(_mean(f"{path}.{arm}") for arm in ranged), *means])
    head = ("scans", "n", "one frame (range)", "sequence (range)", "one frame, true σ", "NLM",
            "BM4D", "BM4D, true σ", "MP-PCA")  # fmt: skip
    return Table(head, rows)


def real_ct() -> Table:
    """Phantoms on real scanners: the noise that is measured, and what denoisers do to each."""
    rows = []
    for scan in sorted({row["scan"] for row in record("real_ct")["rows"]}):
        base = f"real_ct.rows[scan={scan}; arm="
        ours = f"{base}default]"
        gains = [_one(f"{base}{arm}].auc_gain:mean", "+.3f") for arm in ("default", "smooth")]
        left = [_one(f"{base}{arm}].left:mean") for arm in ("default", "smooth", "NLM", "BM4D")]
        rows.append((f"0 - {ours}.left", (
            scan.replace("_", " "), Cell(f"{ours}.sigma", ".1f"), Cell(f"{ours}.sigma_ratio"),
            (Cell(f"{ours}.low", ".1f"), " to ", Cell(f"{ours}.high", ".1f")),
            *gains, _one(f"{ours}.kept:mean"), _one(f"{ours}.mtf_30:mean"), *left,
        )))  # fmt: skip
    head = ("phantom", "σ, HU", "measured over σ", "interval, HU", "AUC", "AUC, smooth",
            "contrast kept", "MTF50, 30 HU", "error left", "smooth", "NLM", "BM4D")  # fmt: skip
    return Table(head, _worst_first(rows))


#: Rows of `sequences`: what, selected rows, figure with a factor, form, whether less is better.
_SERIES = (
    ("DWI of two averages: error left", "table=repeats; scan~DWI, ", "left", ".2f", True),
    ("DWI, other scans: error left", "table=repeats; scan!=DWI, first average or DWI, second "
     "average; kind=diffusion", "left", ".2f", True),
    ("others, SNR to 50: error left", "kind!=diffusion; snr<50", "left", ".2f", True),
    ("others, SNR above 50: error left", "kind!=diffusion; snr>50", "left", ".2f", True),
    ("simulated, 22 frames: FA error", "table=tensors; case~22 frames", "fa_error", ".3f", True),
    ("simulated, 66 frames: FA error", "table=tensors; case~66 frames", "fa_error", ".3f", True),
    ("simulated, noise in the truth: FA error", "table=rough", "fa_error", ".3f", True),
    ("simulated: MD error, %", "table=tensors", "md_error * 100", ".1f", True),
    ("moved by 4°, 2 voxels: error left", "degrees=4", "left", ".2f", True),
    ("activation of 1 %, as scanned: kept", "case~1 %; case~as scanned", "kept", ".2f", False),
    ("activation of 3 %, SNR 25: kept", "case~3 %; case~SNR 25", "kept", ".2f", False),
    ("activation of 3 %, SNR 25: AUC of t", "case~3 %; case~SNR 25", "auc", ".3f", False),
    ("SD of t elsewhere, distance from 1", "table=activation", "null_off", ".2f", True),
    ("CPU time over MP-PCA's", "table=tensors", "cpu_s_per_mvoxel / {peer}", ".2f", True),
)  # fmt: skip


def sequences() -> Table:
    """Denoisers of 4-D series; rows where the joint filter does worst beside MP-PCA first."""
    arms = {"input": "input", "each": "each frame alone", "MP-PCA": "MP-PCA", "joint": "joint",
            "auto": "default"}  # fmt: skip
    rows = []
    for name, selected, figure, form, is_error in _SERIES:
        field, _, factor = figure.partition(" ")
        means = {arm: f"sequences.rows[{selected}; arm={arm}].{field}:mean" for arm in arms}
        paths = [f"{mean} {factor}".strip().format(peer=means["MP-PCA"]) for mean in means.values()]
        count = Cell(means["auto"].replace(":mean", ":count"), ".0f")
        lead = ("MP-PCA", "joint") if is_error else ("joint", "MP-PCA")
        row = name, *(Cell(path, form) for path in paths), count
        rows.append((" / ".join(means[arm] for arm in lead), row))
    return Table(("series, measure", *arms.values(), "n"), _worst_first(rows))


def network() -> Table:
    """What the set network adds to the filter, where the model learned from nothing alike."""
    noises = [
        ("MR", f"noise=scanner; percent={n}; case~measured", f"MR, scanner, {n} %")
        for n in (5, 10, 15)
    ]
    noises.append(("MR", "noise=white; case~measured", "MR, white, 5 to 15 %"))
    noises += [
        ("CT", "case=low dose 2e4", "CT, 20,000 photons"),
        ("CT", "case=low dose 5e3", "CT, 5,000 photons"),
        ("unlearned MR", "noise=white; case~measured", "MR of 11 other sources, white, 5 to 15 %"),
        ("unlearned MR", "noise=scanner; case~measured", "MR of 11 other sources, scanner, 10 %"),
        ("unlearned CT", "case=low dose 2e4", "CT of 7 other sources, 20,000 photons"),
        ("unlearned CT", "case=low dose 5e3", "CT of 7 other sources, 5,000 photons"),
    ]
    rows = []
    for part, selected, name in noises:
        base = f"denoising.rows[part={part}; {selected}; in_card!=volume; arm="
        gain = _over(base, ("network", "filter"), "psnr")
        rows.append((f"{gain}:mean", (
            name, _one(f"{base}filter].psnr:mean"), _mean(gain, "+.2f"),
            Cell(f"{gain}:count", ".0f"),
        )))  # fmt: skip
    head = ("noise", "filter, dB", "network over filter (range), dB", "n")
    return Table(head, _worst_first(rows))


def guided() -> Table:
    """What a guide adds to the network, right ones and others."""
    rows = []
    kinds = [("2 mm", percent, "") for percent in (5, 10, 15)] + [("1 mm", 10, "")]
    kinds += [("2 mm", 10, arm) for arm in ("mirrored", "other patient", "shifted 1")]
    for group, percent, wrong in kinds:
        seeds = "; seed=0" if wrong else ""
        base = f"guidance.rows[group={group}; percent={percent}{seeds}; arm="
        gain = _over(base, (wrong or "right guide", "no guide"), "psnr")
        rows.append((f"{gain}:mean", (group, f"{percent} %", wrong or "right", _gain(gain))))
    return Table(("voxels", "noise", "guide", "over no guide, dB"), _worst_first(rows))


def composite() -> Table:
    """Bias field, blur and noise together, within the body, beside BM4D followed by N4."""
    arms = {"input": "input", "BM4D, then N4": "BM4D + N4", "MedEnhance": "ours + N4"}
    path = "enhancement.rows[case=composite; seed=0; arm={}].psnr_foreground"
    rows: list[Sequence[Content]] = [
        (name, _mean(path.format(arm)), Cell(f"{path.format(arm)}:count", ".0f"))
        for name, arm in arms.items()
    ]
    return Table(("arm", "PSNR, dB", "n"), rows)


def lesions() -> Table:
    """Faint lesions in CT: what is kept of them, how surely observers find them, what remains."""
    columns = {
        "low dose 5e3": "5,000 photons",
        "low dose 2e4": "20,000 photons",
        "phantom, real noise": "phantom, real noise",
    }
    arms = {"input": "input", "ours": "MedEnhance", "ours, smooth": "`--smooth`",
            "smooth, strength .3": "`--smooth --strength 0.3`", "BM4D": "BM4D"}  # fmt: skip
    rows: list[Sequence[Content]] = []
    for column, text in columns.items():
        for arm, name in arms.items():
            row = f"faint_lesions.rows[column={column}; arm={arm}]"
            if not _there(f"{row}.auc"):
                continue
            less: Content = (Cell(f"{row}.auc_less_input", "+.3f"), " ± ",
                             Cell(f"{row}.auc_sd", ".3f"))  # fmt: skip
            rows.append((
                text, name, less if arm != "input" else ("AUC ", Cell(f"{row}.auc", ".3f")),
                *(Cell(f"{row}.{key}", ".3f") for key in ("hotelling", "hotelling_internal_noise")),
                Cell(f"{row}.kept"), Cell(f"{row}.noise_removed * 100", ".0f"),
                Cell(f"{row}.blobs_per_100_ml", ".0f"), Cell(f"{row}.psnr"),
                Cell(f"{row}.lesions", ".0f"),
            ))  # fmt: skip
    head = ("noise", "result", "AUC less the input's", "Hotelling", "with noise of its own",
            "contrast kept", "noise removed, %", "blobs per 100 mL", "PSNR, dB", "n")  # fmt: skip
    return Table(head, rows)


# --- thin slices

_SLICES = {
    "template": "template, MR",
    "studyforrest": "studyforrest, MR, unseen scanner",
    "C07": "C07, MR",
    "STS_005 MR": "STS_005, MR",
    "STS_037 CT": "STS_037, CT",
    "STS_013 CT, 3 mm": "STS_013, CT",
    "abdomen CT": "abdomen, CT, unseen collection",
    "abdomen CT, table": "abdomen with its table, CT",
}


def slices() -> Table:
    """Gains over the cubic B-spline, by volume."""
    rows = []
    for reference, name in _SLICES.items():
        base = f"slices.rows[reference={reference}; arm="
        gain = _over(base, ("ours", "spline"), "psnr")
        rows.append((f"{gain}:mean", (
            name, *(Cell(f"{base}{arm}].psnr:mean") for arm in ("spline", "ours")), _gain(gain),
        )))  # fmt: skip
    return Table(("volume", "B-spline", "MedEnhance", "over B-spline"), _worst_first(rows))


# --- segmentation, GradProm


#: Rows of `segmented`: what, selected rows, figure, goal of its mean; errors have a goal below 0.5.
_LABELS = (
    ("FreeSurfer's labels, whole heads: mean of 13", "table=FreeSurfer", "dice", 0.80),
    ("… cortex", "table=FreeSurfer", "cortex", 0.85),
    ("… white matter", "table=FreeSurfer", "white", 0.91),
    ("… worst structure", "table=FreeSurfer", "worst", None),
    ("… on the wrong side, share", "table=FreeSurfer", "wrong_side", None),
    ("labels drawn by people: mean of 13", "table=manual", "dice", 0.80),
    ("… cortex", "table=manual", "cortex", 0.85),
    ("… white matter", "table=manual", "white", 0.91),
    ("… worst structure", "table=manual", "worst", None),
    ("… on the wrong side, share", "table=manual", "wrong_side", None),
    ("T1, T2, FLAIR of a patient: mean of 13", "table=sequences", "dice", 0.80),
    ("… white matter", "table=sequences", "white", 0.86),
    ("outside the brain, share", "table=outside", "outside", 0.02),
    ("brain without a label, share", "table=outside", "missed", 0.05),
    ("volumes of two scans, median difference", "table=retest", "difference", 0.03),
    ("… largest of 13", "table=retest", "largest", None),
    ("volumes of other storages, largest difference", "table=storages", "largest", 0.0),
    ("slices of 5 mm beside 1 mm", "table=thick", "dice", 0.85),
    ("noise of 10 % beside none", "table=noise; percent=10; arm=noisy", "dice", None),
    ("… enhanced", "table=noise; percent=10; arm=enhanced", "dice", None),
    ("noise of 15 % beside none", "table=noise; percent=15; arm=noisy", "dice", 0.95),
    ("… enhanced", "table=noise; percent=15; arm=enhanced", "dice", 0.97),
    ("expected Dice: correlation with the true", "table=quality", "r", None),
    ("… error", "table=quality", "error", None),
)


def segmented() -> Table:
    """Labels of heads, where the goal is missed by most first; last those without a goal."""
    ranked, others, group = [], [], ""
    for name, selected, figure, goal in _LABELS:
        if name.startswith("…"):
            name = f"{group}: {name[2:]}"
        group = name.partition(":")[0]
        base = f"segmentation.rows[{selected}"
        ours = f"{base}].{figure}" if "arm" in selected else f"{base}; arm=head].{figure}"
        if not _there(ours):
            continue
        peers = [_one(f"{base}; arm={arm}].{figure}:mean", ".3f") for arm in _PEERS]
        bar = "–" if goal is None else f"{'≤' if goal < 0.5 else '≥'} {goal:.2f}"
        row = (name, bar, *peers, _mean(ours, ".3f"), Cell(f"{ours}:count", ".0f"))
        if goal is None:
            others.append(row)
        else:
            ranked.append(
                (f"0 - {ours}:mean + {goal}" if goal < 0.5 else f"{ours}:mean - {goal}", row)
            )
    head = ("labels", "goal", "mixture alone", "one template", "model (range)", "n")
    return Table(head, [*_worst_first(ranked), *others])


_PEERS = ("mixture", "one template")


def sarcomas() -> Table:
    """The experiment for sarcomas, on images as they are and enhanced."""
    rows: list[Sequence[Content]] = []
    for case in ("undamaged", "5,000 photons"):
        base = f"segmentation.rows[table=sarcomas; case={case}; input="
        means = [_mean(f"{base}{state}].dice", ".3f") for state in ("as it is", "enhanced")]
        rows.append((case, *means, Cell(f"{base}as it is].dice:count", ".0f")))
    return Table(("damage", "Dice, as it is", "Dice, enhanced", "n"), rows)


def refused() -> Table:
    """Volumes that the segmentation models refuse, by what they show; brains first."""
    judged = [row for row in record("segmentation")["rows"] if row["table"] == "refused"]
    kinds = dict.fromkeys((row["model"], row["kind"], row["is_like"]) for row in judged)
    rows = []
    for model, kind, is_like in sorted(kinds, key=lambda entry: (entry[0], not entry[2])):
        those = f"segmentation.rows[table=refused; model={model}; kind={kind}].refused"
        bar = "none" if is_like else "all"
        rows.append((model, kind, bar, Cell(f"{those}:sum", ".0f"), Cell(f"{those}:count", ".0f")))
    return Table(("model", "volumes", "goal", "refused", "of"), rows)


_ANATOMIES = {
    "brain": "brain, 16 structures, MR",
    "lesions": "multiple sclerosis, MR",
    "sarcoma-ct": "sarcoma, CT",
    "sarcoma-mr": "sarcoma, MR",
}


def gate() -> Table:
    """Dice of a head on noisy, enhanced and clean images, and what taught steps change."""
    taught = ("joint", "gate, binary", "gate, EMA 0.99")
    rows = []
    for anatomy, what in _ANATOMIES.items():
        base = f"gradprom.rows[anatomy={anatomy}; arm="
        if not _there(f"{base}clean].dice"):
            rows.append((what, "not measured yet", *[""] * 7))
            continue
        images = ("noisy", "head of noisy images", "enhanced", "clean")
        lost = [_over(base, (arm, "enhancement only"), "psnr") for arm in taught]
        rows.append((
            what, *(_one(f"{base}{arm}].dice:mean", ".3f") for arm in images),
            *(_one(f"{path}:mean", "+.2f") for path in lost),
            Cell(f"{base}clean].dice:count", ".0f"),
        ))  # fmt: skip
    return Table((
        "labels", "noisy scan", "noisy scan, head of noisy images", "enhanced", "clean scan",
        "sum of both losses, dB", "gate as published, dB", "gate on averages, dB", "n",
    ), rows)  # fmt: skip


def distilled() -> Table:
    """What networks gain that learned from volumes of each kind, from scratch."""
    arms = ("raw", "template", "synthetic")
    rows = []
    for cell in ("enhancer MR", "enhancer CT", "slices MR", "slices CT"):
        base = f"distillation.rows[cell={cell}; arm="
        share = f"({base}statistics].held_out_db:mean / {base}raw].held_out_db:mean)"
        for where, persons in (("held_out_db", "other patients"), ("other_site_db", "other site")):
            means = (_one(f"{base}{arm}].{where}:mean", "+.2f") for arm in arms)
            sets = (_mean(f"{base}{arm}].{where}", "+.2f") for arm in ("statistics", "matching"))
            rows.append((share, (cell, persons, *means, *sets)))
    head = ("network", "measured on", "raw data", "template", "synthetic", "statistics (range)",
            "matching (range)")  # fmt: skip
    return Table(head, _worst_first(rows))


# --- compression

_VOLUMES = ("EM medulla_v_z0", "MR studyforrest T1", "MR open_ms L20", "MR open_ms C19",
            "CT STS_013")  # fmt: skip


_JPEG_XL = (
    "JPEG XL effort 7 or JPEG XL effort 7, slices stacked or JPEG XL effort 9, slices stacked"
)


def exact() -> Table:
    """Ratios without loss, and where no voxel is off by more than 2."""
    modes = {
        "lossless": {"gzip 9": "gzip", "JPEG 2000": "", "JPEG-LS": "JPEG-LS",
                     "JPEG XL effort 9": "JPEG XL"},
        "max_error; setting=2": {"SZ3": "±2: SZ3", "JPEG-LS near-lossless": "",
                                 "quantized, JPEG XL effort 7": "±2: JPEG XL"},
    }  # fmt: skip
    head = ["volume"]
    for peers in modes.values():
        prefix = "±2: " if "SZ3" in peers else ""
        head += [name for name in peers.values() if name]
        head += [f"{prefix}MedEnhance", f"{prefix}over the best, %"]
    rows = []
    for volume in _VOLUMES:
        row: list[Content] = [volume]
        for mode, peers in modes.items():
            base = f"compression.rows[volume={volume}; mode={mode}; codec="
            rivals = f" or {_JPEG_XL}" if mode == "lossless" else ""
            better = f"{base}ours].ratio / {base}{' or '.join(peers)}{rivals}].ratio:max"
            shown = [peer for peer, name in peers.items() if name]
            row += [Cell(f"{base}{codec}].ratio") for codec in (*shown, "ours")]
            row.append(Cell(f"{better} - 1 * 100", "+.1f"))
        rows.append((row[-1].path if isinstance(row[-1], Cell) else "", row))
    return Table(head, _worst_first(rows))


@dataclass(frozen=True)
class Between(Cell):
    """The PSNR of a peer at the bytes of our file, read between the qualities measured."""

    volume: str = ""
    codec: str = ""
    bytes: str = ""

    def __str__(self) -> str:
        value = _psnr_at(self.volume, self.codec, value_of(self.bytes))
        return "–" if value is None else f"{value:.2f}"


def _psnr_at(volume: str, codec: str, size: float) -> float | None:
    from _compression_curves import psnr_at

    results = record("compression")
    points = [
        (row["bytes"], row["psnr_db"])
        for row in results["rows"]
        if (row["volume"], row["mode"], row["codec"]) == (volume, "ratio", codec)
        and row.get("psnr_db") is not None
    ]
    return psnr_at(points, size)


_RATIO_PEERS = {
    "JPEG 2000": "", "SPERR": "", "HEVC 12 bit, slow": "HEVC",
    "SVT-AV1 10 bit, slow": "AV1",
}  # fmt: skip


def ratio() -> Table:
    """PSNR at fixed ratios beside the peers at the same bytes."""
    shown = {peer: name for peer, name in _RATIO_PEERS.items() if name}
    rows = []
    for volume in _VOLUMES:
        for number in (32, 512):
            path = _at_ratio(volume, number)
            best = _over_best(volume, number)
            rows.append((best.difference, (
                volume, str(number),
                *(Between(f"compression.rows: psnr_at({volume}, {peer}, {number})", volume=volume,
                          codec=peer, bytes=f"{path}.bytes") for peer in shown),
                Cell(f"{path}.psnr_db"), best,
            )))  # fmt: skip
    rows.sort(key=lambda entry: entry[0])
    head = ("volume", "ratio", *shown.values(), "MedEnhance", "over the best")
    return Table(head, [row for _, row in rows])


def _at_ratio(volume: str, number: int) -> str:
    return f"compression.rows[volume={volume}; mode=ratio; codec=ours; setting={number}]"


def _over_best(volume: str, number: int) -> Best:
    path = _at_ratio(volume, number)
    size = value_of(f"{path}.bytes")
    values = [_psnr_at(volume, peer, size) for peer in _RATIO_PEERS]
    return Best(
        f"compression.rows: ours less the best at {volume}, {number}",
        difference=value_of(f"{path}.psnr_db")
        - max(value for value in values if value is not None),
    )


@dataclass(frozen=True)
class Best(Cell):
    """A difference to the best of several peers."""

    difference: float = 0.0

    def __str__(self) -> str:
        return f"{self.difference:+.2f}".replace("-", "−")


def downstream() -> Table:
    """What radiomics and segmentation keep of a volume that was compressed."""
    labels = {"MR": "Left cerebral cortex", "CT": "Gross tumor volume"}
    rows: list[Sequence[Content]] = []
    for modality, label in labels.items():
        for setting in ("error 1", "error 2", "error 8", "ratio 8", "ratio 32"):
            path = f"downstream.rows[modality={modality}; setting={setting}]"
            rows.append((
                modality, setting, Cell(f"{path}.ratio:mean", ".1f"),
                Cell(f"{path}.within:mean * 100", ".0f"), Cell(f"{path}.within:min * 100", ".0f"),
                _one(f'{path}.dice_original."{label}":min', ".3f"),
            ))  # fmt: skip
    head = ("modality", "setting", "ratio, mean", "features kept, %", "worst patient, %",
            "Dice with the labels before")  # fmt: skip
    return Table(head, rows)


# --- DICOM, speed, reliability


def time() -> Table:
    """What a user waits for, on two cores, by size, beside the same work of peers."""
    rows: list[Sequence[Content]] = []
    measured = ("wall_s", ".0f"), ("cpu_s", ".0f"), ("peak_gib", ".1f")

    def whole(name: str, case: str) -> Sequence[Content]:
        return name, *(Cell(f"speed.rows[case={case}].{field}", form) for field, form in measured)

    rows += [
        whole("enhance CT, 512×512×300", "whole volume"), whole("enhance MR, 256×256×160", "head"),
    ]  # fmt: skip
    # Peers got a slab, and ours beside them: the ratio counts.
    head, cost = "speed.rows[case=head].cpu_s:mean", "speed.rows[case=peers; arm={}].cpu_s:mean"
    rows += [
        (name, "–", Cell(f"{head} * {cost.format(arm)} / {cost.format('ours')}", ".0f"), "–")
        for name, arm in (("the same by NLM", "NLM"), ("the same by BM4D", "BM4D"))
    ]
    rows.append(("enhance MR, 64×64×30", "–", Cell(f"{head} * 0.123 / 10.5", ".1f"), "–"))
    for model, name in (("ct", "first preview, CT 512×512×300"), ("mr", "MR 256×256×160")):
        preview = f"speed.rows[case=preview; model={model}; seen={{}}]"
        rows += [
            (f"{name}: {what}", Cell(f"{preview.format(seen)}.first_wall_s", ".1f"),
             Cell(f"{preview.format(seen)}.first_cpu_s", ".1f"), "–")
            for seen, what in (("slice", "a slice"), ("region", "128 × 128 pixels of it"))
        ]  # fmt: skip
    rows.append(whole("thin slices, MR from 256×256×40 to 160", "thin slices"))
    for setting, name in (
        ("lossless", "compress CT, 512×512×100, lossless"),
        ("JPEG XL effort 7", "the same by JPEG XL"),
        ("ratio 64", "compress it, ratio 64"),
        ("HEVC 12 bit, slow", "the same by HEVC"),
    ):
        large = f"compression.rows[mode=large; setting={setting}]"
        rows.append((name, Cell(f"{large}.encode_s", ".1f"), Cell(f"{large}.encode_cpu_s", ".1f"),
                     Cell(f"{large}.extra_peak_mb / 1074", ".1f")))  # fmt: skip
    rows += [
        (name, Cell(f"dicom.rows[what={what}].seconds", ".1f"), "–",
         Cell(f"dicom.rows[what={what}].peak_bytes / 1073741824", ".1f"))
        for what, name in {
            "read, ours": "read DICOM, 512×512×300",
            "read, SimpleITK": "the same by SimpleITK",
            "scan, ours": "find the series of 10,000 files",
            "scan, SimpleITK": "the same by SimpleITK",
        }.items()
    ]  # fmt: skip
    return Table(("work", "s", "CPU s", "memory, GiB"), rows)


# --- README


def offers() -> Table:
    """What users have, what they get beside the best peer, and where it is worse."""

    def share(path: str) -> Cell:
        return Cell(f"{path} * 100", ".0f", "{} %")

    low, high = ("real.rows[group=SNR to 10]", "real.rows[group=SNR above 50]")
    abdomen = _over_bm4d("subject~abdomen", "low dose 5e3")
    thin = "slices.rows[reference={}; arm={}].psnr"
    brain, table = (
        f"({thin.format(name, 'ours')} - {thin.format(name, 'spline')})"
        for name in ("studyforrest", "abdomen CT, table")
    )
    code = "compression.rows[volume={}; mode=lossless; codec={}].ratio"
    rows: list[Sequence[Content]] = [
        (
            "noisy MR",
            ("real, still scans of SNR to 10: ", share(f"{low}.single:mean"),
             " of the RMS error remains; BM4D ", share(f"{low}.bm4d:mean"), ", NLM ",
             share(f"{low}.nlm:mean")),
            ("SNR above 50: ", share(f"{high}.single:mean"), " remains; a frame, alone, of scans "
             "that move, or differ as in diffusion: ",
             share("real.rows[group=frames differ].single:mean"),
             "; sequences of like frames, SNR to 10: ", share(f"{low}.sequence:mean"), ", MP-PCA ",
             share(f"{low}.mp_pca:mean")),
        ),
        (
            "low-dose CT",
            ("`--smooth`, simulated, 20,000 photons a ray: ",
             Cell(_over_bm4d("subject~sts; subject!~cleaned", "low dose 2e4"), "+.2f"),
             " dB over BM4D"),
            ("5,000 photons through an abdomen: ", Cell(abdomen, "+.2f"),
             " dB; by default small faint lesions keep ",
             share("faint_lesions.rows[column=low dose 5e3; arm=ours].kept"),
             " of their contrast"),
        ),
        (
            "thick slices",
            ("MR of an unseen scanner: ", Cell(f"{brain}:mean", "+.2f"), " dB over B-spline"),
            ("thin plates in air: ", Cell(f"{table}:min", "+.2f"),
             " dB; what a slice averaged away stays lost"),
        ),
        (
            "a volume to store",
            ("lossless, CT: ", Cell(code.format("CT STS_013", "ours")), " times smaller; JPEG XL ",
             Cell(code.format("CT STS_013", f"JPEG XL effort 9 or {_JPEG_XL}") + ":max"),
             ", gzip ", Cell(code.format("CT STS_013", "gzip 9"))),
            ("MR at a ratio of 512: ", _over_best("MR open_ms L20", 512),
             " dB to AV1; writing takes ",
             Cell("compression.rows[mode=large; setting=ratio 64].encode_cpu_s / "
                  "compression.rows[mode=large; setting=HEVC 12 bit, slow].encode_cpu_s", ".1f"),
             " times the processor time of HEVC"),
        ),
    ]  # fmt: skip
    return Table(("you have", "you get", "worse where"), rows)


def _gain(path: str, form: str = "+.2f") -> tuple[str | Cell, ...]:
    return (Cell(f"{path}:mean", form), " (", Cell(f"{path}:min", form), " to ",
            Cell(f"{path}:max", form), ", n ", Cell(f"{path}:count", ".0f"), ")")  # fmt: skip


def card() -> Table:
    """Agreement with the CPU, time and resuming on a CUDA device."""

    def cell(name: str, form: str, row: str, more: str = "") -> Cell:
        return Cell(f"cuda.rows[row={row}].{name}{more}", form)

    return Table(("measured", "on the card"), [
        ("enhanced CT, beside the CPU's", (
            cell("half_mean_hu", ".3f", "agreement"), " HU on average, ",
            cell("half_largest_hu", ".0f", "agreement"), " HU at most",
        )),
        ("thin slices, beside the CPU's", (
            cell("thin_mean_percent", ".2f", "networks"), " % of white on average, ",
            cell("thin_largest_percent", ".1f", "networks"), " % at most",
        )),
        ("labels of tissue, beside the CPU's", (
            "the same in ", cell("labels_alike_percent", ".0f", "networks"), " % of the voxels",
        )),
        ("enhance CT, 512×512×300", (
            cell("wall_s", ".0f", "warm"), " s, ", cell("host_s", ".0f", "warm"),
            " CPU s of the cores, ", cell("peak_gib", ".1f", "warm"), " GiB of the card",
        )),
        ("the filter alone, 256×256×64", (
            cell("card_s", ".1f", "filter"), " s; on the cores ", cell("cpu_s", ".1f", "filter"),
            " s",
        )),
        ("match a patient, preset full", (
            cell("patient_s", ".0f", "distill", " / 60"), " min",
        )),
        ("two of them at once", (
            Cell("(cuda.rows[row=two processes].steps_per_s:mean / "
                 "cuda.rows[row=distill].steps_per_s) * 100", ".0f"),
            " % of the speed, each",
        )),
        ("a distillation of two matches, stopped and resumed", (
            "up to ", Cell(
                "cuda.rows[row=resume].resumed_differs / cuda.rows[row=resume].changed * 100", ".0f"
            ), " % of the largest change away from one that ran through",
        )),
    ])  # fmt: skip


TABLES: dict[str, Callable[[], Table]] = {
    "offers": offers,
    "sequences": sequences,
    "real": real,
    "real_ct": real_ct,
    "enhancement": enhancement,
    "network": network,
    "guided": guided,
    "composite": composite,
    "lesions": lesions,
    "slices": slices,
    "segmented": segmented,
    "sarcomas": sarcomas,
    "refused": refused,
    "gate": gate,
    "distilled": distilled,
    "exact": exact,
    "ratio": ratio,
    "downstream": downstream,
    "time": time,
    "card": card,
}
