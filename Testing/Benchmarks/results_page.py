"""The tables of docs/results.md and of other pages, each cell from the results in JSON.

figures.py puts them between `<!-- figures: NAME -->` and `<!-- /figures -->`, and checks them.

A table is a head, and a template of each column, filled in for each entry: `$0`, `$1` … are the
fields of the entry, and a number is in braces, its origin (_figure_origins.py) and its form:
`{real.rows[group=$0].single:mean|.2f}`. `{?…}` is a dash where nothing was measured; `{±…}` is the
mean with the range over subjects and seeds, from five volumes on with the interval of the mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import Template

from _figure_origins import Cell, FigureError, record, value_of

#: Texts and numbers of one cell.
Content = Sequence[str | Cell]
#: From how many volumes on a mean has an interval.
_FEWEST_VOLUMES = 5
_NUMBER = re.compile(r"\{([?±]?)([^|{}]+)\|([^|{}]+)\}")


@dataclass(frozen=True)
class Table:
    """A Markdown table.

    columns: templates. entries: a row each. order: a template of an origin, by whose value rows are
    sorted, the least first, so that where we lose stands above; rows without one are last. A column
    in which nothing was measured is left out.
    """

    head: Sequence[str]
    columns: Sequence[str]
    entries: Sequence[Sequence[str]] = ((),)
    order: str = ""

    @property
    def rows(self) -> list[list[Content]]:
        """Contents of all cells."""
        return [
            [*map(_content, self._filled(entry))] for entry in sorted(self.entries, key=self._key)
        ]

    def _filled(self, entry: Sequence[str]) -> Iterator[str]:
        fields = {f"f{number}": field for number, field in enumerate(entry)}
        for column in self.columns:
            yield _substituted(column, fields)

    def _key(self, entry: Sequence[str]) -> float:
        fields = {f"f{number}": field for number, field in enumerate(entry)}
        origin = _substituted(self.order, fields)
        return value_of(origin) if origin else float("inf")

    def __str__(self) -> str:
        body = [["".join(map(str, content)) for content in row] for row in self.rows]
        shown = [n for n in range(len(self.head)) if any(line[n] != "–" for line in body)]
        lines = [[line[n] for n in shown] for line in (self.head, ["---"] * len(self.head), *body)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _substituted(template: str, fields: dict[str, str]) -> str:
    """Fill in fields twice: a field may name others."""
    for _ in range(2):
        template = Template(re.sub(r"\$(\d)", r"${f\1}", template)).substitute(fields)
    return template


def _content(text: str) -> Content:
    """Texts and numbers of a filled template."""
    parts: list[str | Cell] = []
    end = 0
    for match in _NUMBER.finditer(text):
        kind, origin, form = match.groups()
        parts.append(text[end : match.start()])
        parts += [Cell(origin, form)] if not kind else _optional(kind, origin, form)
        end = match.end()
    return [*parts, text[end:]]


def _optional(kind: str, origin: str, form: str) -> Content:
    try:
        if kind == "?":
            value_of(origin)
            return [Cell(origin, form)]
        volumes = value_of(f"{origin}:volumes")
    except FigureError:
        return ["–"]
    mean, low, high, least, most = (
        Cell(f"{origin}:{reducer}", form) for reducer in ("mean", "low", "high", "min", "max")
    )
    interval = [] if volumes < _FEWEST_VOLUMES else [" [", low, ", ", high, "]"]
    return [mean, *interval, " (", least, " to ", most, ")"]


def gain(path: str) -> str:
    """Template of a mean gain, its range and how many values it is of."""
    least, most, count = f"{{{path}:min|+.2f}}", f"{{{path}:max|+.2f}}", f"{{{path}:count|.0f}}"
    return f"{{{path}:mean|+.2f}} ({least} to {most}, n {count})"


def over(base: str, arms: tuple[str, str], figure: str) -> str:
    """The differences between two arms, entry by entry; `base` ends in "arm="."""
    ours, theirs = (f"{base}{arm}].{figure}" for arm in arms)
    return f"({ours} - {theirs})"


# --- enhancement

_STS, _CLEANED = "subject~sts; subject!~cleaned", "subject~cleaned"
_DOSES = {"low dose 5e3": "5,000 photons", "low dose 2e4": "20,000 photons",
          "low dose 1e5": "100,000 photons"}  # fmt: skip
#: BM4D ran with the first seed alone.
_CASE = "enhancement.rows[{}; case={}; seed=0; arm="


def _over_bm4d(group: str, case: str) -> str:
    return over(_CASE.format(group, case), ("ours", "BM4D"), "psnr_image") + ":mean"


def enhancement() -> Table:
    """PSNR over the whole image with simulated noise, beside peers; CT with `--for-viewing`."""
    cases = [("modality=MR", f"Rician {n} %", f"brains, {n} %") for n in (3, 5, 10, 15)]
    cases += [
        (group, case, f"{name}, {dose}")
        for group, name in ((_STS, "sarcomas"), ("subject~abdomen", "abdomen"),
                            (_CLEANED, "sarcomas, cleaned by BM4D"))
        for case, dose in _DOSES.items()
    ]  # fmt: skip
    base, lead = _CASE.format("$0", "$1"), _over_bm4d("$0", "$1")
    means = [f"{{{base}{arm}].psnr_image:mean|.2f}}" for arm in ("input", "NLM", "BM4D", "ours")]
    return Table(
        ("volumes, noise", "input", "NLM", "BM4D", "MedEnhance", "over BM4D", "n"),
        ("$2", *means, f"{{{lead}|+.2f}}", f"{{{base}ours].psnr_image:count|.0f}}"),
        cases, lead,
    )  # fmt: skip


def real() -> Table:
    """Repeated real scans: the error that is left, as a share of the input's, and σ."""
    path = "real.rows[group=$0]"
    peers = ("true", "nlm", "bm4d", "bm4d_true", "mp_pca")
    groups = ("SNR to 10", "SNR 10 to 50", "SNR above 50", "frames differ")
    return Table(
        ("scans", "n", "one frame (range)", "sequence (range)", "one frame, true σ", "NLM", "BM4D",
         "BM4D, true σ", "MP-PCA"),
        ("$0", f"{{{path}.single:count|.0f}}", f"{{±{path}.single|.2f}}",
         f"{{±{path}.sequence|.2f}}", *(f"{{?{path}.{arm}:mean|.2f}}" for arm in peers)),
        [(group,) for group in groups],
    )  # fmt: skip


def real_ct() -> Table:
    """Phantoms on real scanners: the noise that is measured, and what denoisers do to each."""
    scans = sorted({row["scan"] for row in record("real_ct")["rows"]})
    base = "real_ct.rows[scan=$0; arm="
    ours = f"{base}default]"
    left = (f"{{?{base}{arm}].left:mean|.2f}}" for arm in ("default", "smooth", "NLM", "BM4D"))
    gains = (
        f"{{?{base}{arm}].{observer}_gain:mean|+.3f}}"
        for arm in ("default", "smooth") for observer in ("own_noise", "hotelling", "auc")
    )  # fmt: skip
    return Table(
        ("phantom", "σ, HU", "measured over σ", "own noise", "Hotelling", "template",
         "viewing: own noise", "viewing: Hotelling", "viewing: template", "MTF50, 10 HU",
         "error left", "viewing: error left", "NLM: error left", "BM4D: error left"),
        ("$1", f"{{{ours}.sigma|.1f}}", f"{{{ours}.sigma_ratio|.2f}}", *gains,
         f"{{?{ours}.mtf_10:mean|.2f}}", *left),
        [(scan, scan.replace("_", " ")) for scan in scans], f"0 - {ours}.left",
    )  # fmt: skip


#: Rows of `sequences`: what, selected rows, figure, factor, form, arms whose ratio is the order.
_LESS, _MORE = ("MP-PCA", "joint"), ("joint", "MP-PCA")
_SERIES = (
    ("DWI of two averages: error left", "table=repeats; scan~DWI, ", "left", "", ".2f", *_LESS),
    ("DWI, other scans: error left", "table=repeats; scan!=DWI, first average or DWI, second "
     "average; kind=diffusion", "left", "", ".2f", *_LESS),
    ("DWI, b = 1,000, twice: rest beyond the tensor kept", "scan~DWI, ", "rest_kept", "", ".2f",
     *_MORE),
    ("DWI, b = 2,000, twice: distance to the repeat, %", "scan~b2000", "distance", " * 100", ".1f",
     "joint", "MP-PCA"),
    ("DWI, b = 2,000, twice: rest beyond the tensor kept", "scan~b2000", "rest_kept", "", ".2f",
     *_MORE),
    ("DWI, b = 2,000, twice: fourth order, correlation", "scan~b2000", "fourth_order", "", ".3f",
     *_MORE),
    ("DWI of two averages: FA error", "table=repeats; scan~DWI, ", "fa_error", "", ".3f", *_LESS),
    ("others, SNR to 50: error left", "kind!=diffusion; snr<50", "left", "", ".2f", *_LESS),
    ("others, SNR above 50: error left", "kind!=diffusion; snr>50", "left", "", ".2f", *_LESS),
    ("simulated, 22 frames: FA error", "table=tensors; case~22 frames", "fa_error", "", ".3f",
     *_LESS),
    ("simulated, 66 frames: FA error", "table=tensors; case~66 frames", "fa_error", "", ".3f",
     *_LESS),
    ("simulated, noise in the truth: FA error", "table=rough", "fa_error", "", ".3f", *_LESS),
    ("simulated: MD error, %", "table=tensors", "md_error", " * 100", ".1f", *_LESS),
    ("moved by 4°, 2 voxels: error left", "degrees=4", "left", "", ".2f", *_LESS),
    ("activation of 1 %, as scanned: kept", "case~1 %; case~as scanned", "kept", "", ".2f", *_MORE),
    ("activation of 3 %, SNR 25: kept", "case~3 %; case~SNR 25", "kept", "", ".2f", *_MORE),
    ("activation of 3 %, SNR 25: AUC of t", "case~3 %; case~SNR 25", "auc", "", ".3f", *_MORE),
    ("SD of t elsewhere, distance from 1", "table=activation", "null_off", "", ".2f", *_LESS),
    ("CPU time over MP-PCA's", "table=tensors", "cpu_s_per_mvoxel",
     " / sequences.rows[table=tensors; arm=MP-PCA].cpu_s_per_mvoxel:mean", ".2f", *_LESS),
)  # fmt: skip


def sequences() -> Table:
    """Denoisers of 4-D series; rows where the joint filter does worst beside MP-PCA first."""
    arms = {"input": "input", "each": "each frame alone", "MP-PCA": "MP-PCA",
            "images": "images alone", "joint": "joint", "auto": "default"}  # fmt: skip
    base = "sequences.rows[$1; arm="
    return Table(
        ("series, measure", *arms.values(), "n"),
        ("$0", *(f"{{?{base}{arm}].$2:mean$3|$4}}" for arm in arms),
         f"{{{base}auto].$2:count|.0f}}"),
        _SERIES, f"{base}$5].$2:mean / {base}$6].$2:mean",
    )  # fmt: skip


def network() -> Table:
    """What the set network adds to the filter, where the model learned from nothing alike."""
    other_mr, other_ct = "MR of 11 other sources", "CT of 7 other sources"
    noises = [
        ("MR", "noise=scanner; case~measured", "MR, scanner, 5 to 15 %"),
        ("MR", "noise=white; case~measured", "MR, white, 5 to 15 %"),
        ("CT", "case=low dose 2e4", "CT, 20,000 photons"),
        ("CT", "case=low dose 5e3", "CT, 5,000 photons"),
        ("unlearned MR", "noise=white; case~measured", f"{other_mr}, white, 5 to 15 %"),
        ("unlearned MR", "noise=scanner; case~measured", f"{other_mr}, scanner, 10 %"),
        ("unlearned CT", "case=low dose 2e4", f"{other_ct}, 20,000 photons"),
        ("unlearned CT", "case=low dose 5e3", f"{other_ct}, 5,000 photons"),
    ]
    base = "denoising.rows[part=$0; $1; in_card!=volume; arm="
    added = over(base, ("network", "filter"), "psnr")
    return Table(
        ("noise", "filter, dB", "network over filter (range), dB", "n"),
        ("$2", f"{{?{base}filter].psnr:mean|.2f}}", f"{{±{added}|+.2f}}", f"{{{added}:count|.0f}}"),
        noises, f"{added}:mean",
    )  # fmt: skip


def guided() -> Table:
    """What a guide adds to the network, right ones and others."""
    kinds = [("2 mm", str(n), "", "right", "right guide") for n in (5, 10, 15)]
    kinds += [("1 mm", "10", "", "right", "right guide")]
    kinds += [("2 mm", "10", "; seed=0", arm, arm)
              for arm in ("mirrored", "other patient", "shifted 1")]  # fmt: skip
    path = over("guidance.rows[group=$0; percent=$1$2; arm=", ("$4", "no guide"), "psnr")
    head = ("voxels", "noise", "guide", "over no guide, dB")
    return Table(head, ("$0", "$1 %", "$3", gain(path)), kinds, f"{path}:mean")


def lesions() -> Table:
    """Faint lesions in CT: what is kept of them, how surely observers find them, what remains."""
    arms = {"input": "input", "ours": "MedEnhance", "ours, smooth": "`--for-viewing`",
            "BM4D": "BM4D"}  # fmt: skip
    rows = {(row["column"], row["arm"]) for row in record("faint_lesions")["rows"]}
    row = "faint_lesions.rows[column=$0; arm=$1]"
    less = f"{{{row}.auc_less_input|+.3f}} ± {{{row}.auc_sd|.3f}}"
    figures = {"hotelling": ".3f", "hotelling_internal_noise": ".3f", "kept": ".2f",
               "noise_removed * 100": ".0f", "blobs_per_100_ml": ".0f",
               "lesions": ".0f"}  # fmt: skip
    return Table(
        ("noise", "result", "AUC less the input's", "Hotelling", "with noise of its own",
         "contrast kept", "noise removed, %", "blobs per 100 mL", "n"),
        ("$2", "$3", "$4", *(f"{{?{row}.{figure}|{form}}}" for figure, form in figures.items())),
        [(column, arm, _DOSES.get(column, column), name,
          f"AUC {{{row}.auc|.3f}}" if arm == "input" else less)
         for column in ("low dose 5e3", "low dose 2e4", "phantom, real noise")
         for arm, name in arms.items() if (column, arm) in rows],
    )  # fmt: skip


# --- thin slices, segmentation, GradProm, distillation


def slices() -> Table:
    """Gains over the cubic B-spline, by volume."""
    names = (
        ("template", "template, MR"), ("studyforrest", "studyforrest, MR, unseen scanner"),
        ("C07", "C07, MR"), ("STS_005 MR", "STS_005, MR"), ("STS_037 CT", "STS_037, CT"),
        ("STS_013 CT, 3 mm", "STS_013, CT"), ("abdomen CT", "abdomen, CT, unseen collection"),
        ("abdomen CT, table", "abdomen with its table, CT"),
    )  # fmt: skip
    base = "slices.rows[reference=$0; arm="
    path = over(base, ("ours", "spline"), "psnr")
    means = (f"{{{base}{arm}].psnr:mean|.2f}}" for arm in ("spline", "ours"))
    head = ("volume", "B-spline", "MedEnhance", "over B-spline")
    return Table(head, ("$1", *means, gain(path)), names, f"{path}:mean")


def inverted() -> Table:
    """Arms of each simulated scanner: means, and the worst case of the inversion's figures."""
    arms = (
        ("as scanned", "as scanned"), ("enhance", "`enhance`"), ("and N4", "and N4"),
        ("and histogram", "and histogram"), ("inverted", "`enhance --scanner`"),
        ("inverted, true scanner", "true scanner inverted"),
    )  # fmt: skip
    names = ("low field", "old spin echo", "low field, brains", "CT kernel")
    entries = [
        (name, *arm) for name in names for arm in arms
        if name != "CT kernel" or not arm[0].startswith("and")
    ]  # fmt: skip
    count = f"{{{_ARM}.psnr:count|.0f}}"
    return Table(("scanner", *_HEAD, "n"), ("$0", "$2", *_means(), count), entries)


_ARM = "scanner.rows[scanner=$0; arm=$1]"
_HEAD = ("result", "PSNR", "best curve", "SSIM", "contrast of lesions")


def _means() -> Iterator[str]:
    figures = (("psnr", ".1f"), ("psnr_curve", ".1f"), ("ssim", ".2f"), ("lesions", ".2f"))
    for name, form in figures:
        yield f"{{{_ARM}.{name}:mean|{form}}} ({{{_ARM}.{name}:min|{form}}})"


#: Rows of `segmented`: what, selected rows, figure, goal of its mean; errors have one below 0.5.
_LABELS = (
    ("FreeSurfer's labels, whole heads: Dice, mean of 13", "table=FreeSurfer", "dice", "0.82"),
    ("… Dice of cortex", "table=FreeSurfer", "cortex", "0.85"),
    ("… Dice of white matter", "table=FreeSurfer", "white", "0.92"),
    ("… error of the volumes, median of 13", "table=FreeSurfer", "volume_error", "0.1"),
    ("labels drawn by people: Dice, mean of 13", "table=manual", "dice", "0.81"),
    ("… Dice of cortex", "table=manual", "cortex", "0.85"),
    ("… Dice of white matter", "table=manual", "white", "0.92"),
    ("… error of the volumes, median of 13", "table=manual", "volume_error", "0.1"),
    ("T1, T2, FLAIR of one patient: Dice between them, mean of 13",
     "table=sequences", "dice", "0.76"),
    ("T1, T2 of a patient with stroke: Dice between them, mean of 28",
     "table=sequences; subject=cstar_stroke; case=T1, T2", "labels", "0.78"),
    ("two scans of one person: difference of the volumes, median",
     "table=retest", "difference", ""),
    ("… of the structure that differs most", "table=retest", "largest", ""),
    ("slices of 5 mm against 1 mm: Dice", "table=thick; slice_mm=5", "dice", ""),
    ("slices of 8 mm against 1 mm: Dice", "table=thick; slice_mm=8", "dice", "0.90"),
    ("noise of 15 % against none: Dice", "table=noise; percent=15; arm=noisy", "dice", "0.90"),
    ("… enhanced before", "table=noise; percent=15; arm=enhanced", "dice", ""),
    ("share of the labels outside the brain", "table=outside", "outside", "0.025"),
    ("share of the brain without a label", "table=outside", "missed", ""),
    ("expected Dice: its correlation with the true one", "table=quality", "r", ""),
    ("CPU seconds for a whole head", "table=cost", "cpu_s", ""),
)  # fmt: skip


def segmented() -> Table:
    """Labels of heads beside other labels, with the goals that were set before measuring."""
    entries, group = [], ""
    for name, selected, figure, bar in _LABELS:
        full = f"{group}: {name[2:]}" if name.startswith("…") else name
        group = full.partition(":")[0]
        arm = "" if "arm" in selected else "; arm=head"
        ours = f"segmentation.rows[{selected}{arm}].{figure}"
        if not _is_measured(ours):
            continue
        is_error = bool(bar) and float(bar) < 0.5
        goal, reached = "–", "–"
        if bar:
            mean = value_of(f"{ours}:mean")
            goal = f"{'≤' if is_error else '≥'} {bar}"
            reached = "yes" if (mean <= float(bar) if is_error else mean >= float(bar)) else "no"
        interval = f"{{{ours}:low|.3f}} to {{{ours}:high|.3f}}"
        is_sure = value_of(f"{ours}:volumes") >= _FEWEST_VOLUMES
        entries.append((full, ours, interval if is_sure else "–", goal, reached))
    return Table(
        ("compared with", "result", "95 % CI", "lowest to highest", "scans", "goal", "reached"),
        ("$0", "{$1:mean|.3f}", "$2", "{$1:min|.3f} to {$1:max|.3f}", "{$1:count|.0f}", "$3", "$4"),
        entries,
    )


def _is_measured(path: str) -> bool:
    try:
        return value_of(f"{path}:count") > 0
    except FigureError:
        return False


def volumes() -> Table:
    """Dice of each structure and the error of its volume, beside FreeSurfer and readers."""
    rows = record("segmentation")["rows"]
    names = next(row["structures"] for row in rows if row["table"] == "FreeSurfer")
    columns = []
    for table in ("FreeSurfer", "manual"):
        base = f"segmentation.rows[table={table}; arm=head]"
        error = f'{base}.volume_errors."$0"'
        spread = f"{{?{error}:median|+.0%}} ({{?{error}:min|+.0%}} to {{?{error}:max|+.0%}})"
        columns += [f'{{{base}.structures."$0":mean|.2f}}', spread]
    return Table(
        ("structure", "FreeSurfer, whole heads: Dice", "volume (range)",
         "drawn by people: Dice", "volume (range)"),
        ("$0", *columns), [(name,) for name in names],
    )  # fmt: skip


def reach() -> Table:
    """Scans beyond what the segmentation model learned."""
    rows = [row for row in record("segmentation")["rows"] if row["table"] == "reach"]
    base = "{?segmentation.rows[table=reach; case=$0]."
    return Table(
        ("scan", "of", "refused", "beside", "Dice of 13", "cortex", "white matter"),
        ("$0", "$1", "$2", "$3", *(f"{base}{each}:mean|.2f}}" for each in
                                   ("dice", "cortex", "white"))),
        [(row["case"], row["subject"], row["reason"] or "no",
          row["beside"] if row["beside"] in ("drawn", "–") else "its own labels") for row in rows],
    )  # fmt: skip


def refused() -> Table:
    """Volumes that the segmentation model refuses, by what they show; brains first."""
    judged = [row for row in record("segmentation")["rows"] if row["table"] == "refused"]
    kinds = dict.fromkeys((row["model"], row["kind"], row["is_like"]) for row in judged)
    those = "segmentation.rows[table=refused; model=$0; kind=$1].refused"
    return Table(
        ("model", "volumes", "goal", "refused", "of"),
        ("$0", "$1", "$2", f"{{{those}:sum|.0f}}", f"{{{those}:count|.0f}}"),
        [(model, kind, "none" if is_like else "all")
         for model, kind, is_like in sorted(kinds, key=lambda each: (each[0], not each[2]))],
    )  # fmt: skip


def gate() -> Table:
    """What an enhancer gains and loses that `brain` taught, in each way of joining both losses."""
    cases = ("noise 15 %", "slices of 8 mm", "another scanner")
    arms = (("damaged", ""), ("enhancement only", ""),
            *((arm, "; weight=3.0") for arm in
              ("joint", "gate by step", "gate by layer", "gate, EMA 0.99")))  # fmt: skip
    base = "gradprom.rows[case=$0; arm=$1$2]"
    return Table(
        ("damage", "taught by", "Dice beside labels of the clean scan",
         "Dice beside readers' labels", "PSNR, dB", "contrast of planted lesions kept", "n"),
        ("$0", "$1", *(f"{{?{base}.{name}:mean|{form}}}" for name, form in
         (("dice", ".3f"), ("dice_truth", ".3f"), ("psnr", ".2f"), ("lesions_kept", ".2f"))),
         f"{{{base}.dice:count|.0f}}"),
        [(case, *arm) for case in cases for arm in arms],
    )  # fmt: skip


def weights() -> Table:
    """The same for weights of the task over three decades, with noise, in one person."""
    base = "gradprom.rows[case=noise 15 %; seed=0; arm=$0; weight=$1]"
    arms = ("joint", "gate by step", "gate by layer", "gate, EMA 0.99")
    return Table(
        ("taught by", "λ", "Dice beside labels of the clean scan", "Dice beside readers' labels",
         "PSNR, dB", "steps in which the gate is open, %"),
        ("$0", "$1", f"{{{base}.dice|.3f}}", f"{{{base}.dice_truth|.3f}}", f"{{{base}.psnr|.2f}}",
         f"{{{base}.open * 100|.0f}}"),
        [(arm, weight) for arm in arms for weight in ("0.3", "3.0", "30.0")],
    )  # fmt: skip


def enhanced_head() -> Table:
    """What a head gains that goes on learning, and from enhanced scans too."""
    base = "enhanced_head.rows[arm=$0; noise=$2]"
    arms = ("as shipped", "painted scans", "painted and enhanced scans")
    noises = (("none", "0.0"), ("5 %", "0.05"), ("15 %", "0.15"))
    return Table(
        ("learned from", "noise", "Dice beside labels of the clean scan",
         "Dice beside readers' labels", "n"),
        ("$0", "$1", f"{{{base}.dice:mean|.3f}}", f"{{{base}.dice_truth:mean|.3f}}",
         f"{{{base}.dice:count|.0f}}"),
        [(arm, *noise) for noise in noises for arm in arms],
    )  # fmt: skip


def distilled() -> Table:
    """What networks gain that learned from volumes of each kind, from scratch."""
    base = "distillation.rows[cell=$0; arm="
    cells = ("enhancer MR", "enhancer CT", "slices MR", "slices CT")
    places = (("held_out_db", "other patients"), ("other_site_db", "other site"))
    means = (f"{{?{base}{arm}].$1:mean|+.2f}}" for arm in ("raw", "template", "synthetic"))
    sets = (f"{{±{base}{arm}].$1|+.2f}}" for arm in ("statistics", "matching"))
    return Table(
        ("network", "measured on", "raw data", "template", "synthetic", "statistics (range)",
         "matching (range)"),
        ("$0", "$2", *means, *sets),
        [(cell, *where) for cell in cells for where in places],
        f"({base}statistics].held_out_db:mean / {base}raw].held_out_db:mean)",
    )  # fmt: skip


# --- compression

_VOLUMES = ("EM medulla_v_z0", "MR studyforrest T1", "MR open_ms L20", "MR open_ms C19",
            "CT STS_013")  # fmt: skip
_JPEG_XL = (
    "JPEG XL effort 7 or JPEG XL effort 7, slices stacked or JPEG XL effort 9, slices stacked"
)


def exact() -> Table:
    """Ratios without loss, and where no voxel is off by more than 2."""
    columns, lead = ["$0"], ""
    for mode, shown, peers in (
        ("lossless", ("gzip 9", "JPEG-LS", "JPEG XL effort 9"),
         f"gzip 9 or JPEG 2000 or JPEG-LS or JPEG XL effort 9 or {_JPEG_XL}"),
        ("max_error; setting=2", ("SZ3", "quantized, JPEG XL effort 7"),
         "SZ3 or JPEG-LS near-lossless or quantized, JPEG XL effort 7"),
    ):  # fmt: skip
        base = f"compression.rows[volume=$0; mode={mode}; codec="
        lead = f"{base}ours].ratio / {base}{peers}].ratio:max - 1 * 100"
        columns += [f"{{{base}{codec}].ratio|.2f}}" for codec in (*shown, "ours")]
        columns.append(f"{{{lead}|+.1f}}")
    return Table(
        ("volume", "gzip", "JPEG-LS", "JPEG XL", "MedEnhance", "over the best, %", "±2: SZ3",
         "±2: JPEG XL", "±2: MedEnhance", "±2: over the best, %"),
        columns, [(volume,) for volume in _VOLUMES], lead,
    )  # fmt: skip


_HEVC, _AV1 = "HEVC 12 bit, slow", "SVT-AV1 10 bit, slow"


def _over_best(volume: str, number: str) -> str:
    """Our PSNR less the best of the peers at the same bytes."""
    ours = f"compression.rows[volume={volume}; mode=ratio; codec=ours; setting={number}].psnr_db"
    return f"{ours} - psnr_at({volume}; {number}; JPEG 2000 or SPERR or {_HEVC} or {_AV1})"


def ratio() -> Table:
    """PSNR at fixed ratios beside the peers at the same bytes."""
    ours = "compression.rows[volume=$0; mode=ratio; codec=ours; setting=$1].psnr_db"
    lead = _over_best("$0", "$1")
    return Table(
        ("volume", "ratio", "HEVC", "AV1", "MedEnhance", "over the best"),
        ("$0", "$1", *(f"{{?psnr_at($0; $1; {peer})|.2f}}" for peer in (_HEVC, _AV1)),
         f"{{{ours}|.2f}}", f"{{{lead}|+.2f}}"),
        [(volume, number) for volume in _VOLUMES for number in ("32", "512")], lead,
    )  # fmt: skip


def downstream() -> Table:
    """What radiomics and segmentation keep of a volume that was compressed."""
    path = "downstream.rows[modality=$0; setting=$2]"
    labels = (("MR", "Left cerebral cortex"), ("CT", "no model"))
    settings = ("error 1", "error 2", "error 8", "ratio 8", "ratio 32")
    return Table(
        ("modality", "setting", "ratio, mean", "features kept, %", "worst patient, %",
         "Dice with the labels before"),
        ("$0", "$2", f"{{{path}.ratio:mean|.1f}}", f"{{{path}.within:mean * 100|.0f}}",
         f"{{{path}.within:min * 100|.0f}}", f'{{?{path}.dice_original."$1":min|.3f}}'),
        [(*label, setting) for label in labels for setting in settings],
    )  # fmt: skip


# --- speed, README, cards


def time() -> Table:
    """What a user waits for, on two cores, by size, beside the same work of peers."""
    widths = {"avx2": "", "bf16": ", AVX-512", "amx": ", AMX"}
    missing = ["–"] * (2 * len(widths) - 2)

    def ours(name: str, case: str, wall: str = "wall_s", cpu: str = "cpu_s") -> Sequence[str]:
        paths = [f"speed.rows[width={width}; case={case}]" for width in widths]
        is_preview = "first" in wall
        digits = ".1f" if is_preview else ".0f"
        seconds = (f"{{?{path}.{field}|{digits}}}" for path in paths for field in (wall, cpu))
        return name, *seconds, "–" if is_preview else f"{{{paths[0]}.peak_gib|.1f}}"

    def peer(arm: str) -> Sequence[str]:
        """A peer got a slab, and ours beside it: the ratio counts."""
        cells = list[str]()
        for width in widths:
            path = f"speed.rows[width={width}; case={{}}].cpu_s:mean"
            whole, theirs = path.format("head"), path.format(f"peers; arm={arm}")
            cells += "–", f"{{?{whole} * {theirs} / {path.format('peers; arm=ours')}|.0f}}"
        return f"the same by {arm}", *cells, "–"

    rows = [
        ours("enhance CT, 512×512×300", "whole volume"),
        ours("enhance MR, 256×256×160", "head"), peer("NLM"), peer("BM4D"),
        ours("enhance diffusion, 102×102×18, 42 frames", "diffusion"),
        ours("enhance diffusion, 104×104×72, 512 frames", "large diffusion"),
    ]  # fmt: skip
    for model, name in (("ct", "first preview, CT 512×512×300"), ("mr", "MR 256×256×160")):
        for seen, what in (("slice", "a slice"), ("region", "128 × 128 pixels of it")):
            case = f"preview; model={model}; seen={seen}"
            rows.append(ours(f"{name}: {what}", case, "first_wall_s", "first_cpu_s"))
        case = f"preview; model={model}; seen=draft"
        rows.append(ours(f"{name}: a draft of these", case, "first_wall_s", "draft_cpu_s"))
    after = "{speed.rows[width=avx2; case=thin slices].slices_after|.0f}"
    rows.append(ours(f"thin slices, MR from 256×256×40 to {after}", "thin slices"))
    for setting, name in (
        ("lossless", "compress CT, 512×512×100, lossless"),
        ("JPEG XL effort 7", "the same by JPEG XL"),
        ("ratio 64", "compress it, ratio 64"),
        (_HEVC, "the same by HEVC"),
    ):
        path = f"compression.rows[mode=large; setting={setting}]"
        rows.append((name, f"{{{path}.encode_s|.1f}}", f"{{{path}.encode_cpu_s|.1f}}", *missing,
                     f"{{{path}.extra_peak_mb / 1074|.1f}}"))  # fmt: skip
    for what, name in (
        ("read, ours", "read DICOM, 512×512×300"),
        ("read, SimpleITK", "the same by SimpleITK"),
        ("scan, ours", "find the series of 10,000 files"),
        ("scan, SimpleITK", "the same by SimpleITK"),
    ):
        path = f"dicom.rows[what={what}]"
        rows.append((name, f"{{{path}.seconds|.1f}}", "–", *missing, "–"))
    times = [f"{unit}{width}" for width in widths.values() for unit in ("s", "CPU s")]
    columns = ("work", *times, "memory, GiB")
    return Table(columns, [f"${n}" for n in range(len(columns))], rows)


def offers() -> Table:
    """What is left, by the best other method and by MedEnhance, and the processor time."""
    pair = "sequences.rows[table=repeats; scan~DWI,; arm={}]"
    dose = _CASE.format(_STS, "low dose 2e4")
    thick = "slices.rows[reference=studyforrest; arm="
    thin, spline = (f"{over(thick, (arm, 'spline'), 'psnr')}:left" for arm in ("ours", "spline"))
    code = "compression.rows[volume=CT STS_013; mode=lossless; codec={}].ratio"
    packed = "compression.rows[mode=large; setting=lossless].encode_cpu_s"
    cost = "speed.rows[width=avx2; case={}].cpu_s"
    rows = (
        ("diffusion, 2×21 frames", "MP-PCA", f"{pair.format('MP-PCA')}.left:mean",
         f"{pair.format('joint')}.left:mean", cost.format("diffusion")),
        ("low-dose CT, simulated, `--for-viewing`", "BM4D",
         f"{over(dose, ('BM4D', 'input'), 'psnr_image')}:left",
         f"{over(dose, ('ours', 'input'), 'psnr_image')}:left",
         cost.format("whole volume")),
        ("thick slices of MR (B-spline: 100)", "B-spline", spline, thin,
         cost.format("thin slices")),
        ("CT, lossless", "JPEG XL",
         f"1 / {code.format(f'JPEG XL effort 9 or {_JPEG_XL}')}:max", f"1 / {code.format('ours')}",
         packed),
    )  # fmt: skip
    return Table(
        ("you have", "other method", "other, %", "MedEnhance, %", "CPU s"),
        ("$0", "$1", "{$2 * 100|.0f}", "{$3 * 100|.0f}", "{$4|.0f}"), rows,
    )  # fmt: skip


def card() -> Table:
    """Agreement with the CPU, time and resuming on a CUDA device."""
    rows = (
        ("enhanced CT, beside the CPU's", "{card.rows[row=agreement].half_mean_hu|.3f} HU on "
         "average, {card.rows[row=agreement].half_largest_hu|.0f} HU at most"),
        ("thin slices, beside the CPU's", "{card.rows[row=networks].thin_mean_percent|.2f} % of "
         "white on average, {card.rows[row=networks].thin_largest_percent|.1f} % at most"),
        ("labels of tissue, beside the CPU's", "the same in "
         "{card.rows[row=networks].labels_alike_percent|.0f} % of the voxels"),
        ("enhance CT, 512×512×300", "{card.rows[row=warm].wall_s|.0f} s, "
         "{card.rows[row=warm].host_s|.0f} CPU s of the cores, {card.rows[row=warm].peak_gib|.1f} "
         "GiB of the card"),
        ("the filter alone, 256×256×64", "{card.rows[row=filter].card_s|.1f} s; on the cores "
         "{card.rows[row=filter].cpu_s|.1f} s"),
        ("match a patient, preset full", "{card.rows[row=distill].patient_s / 60|.0f} min"),
    )  # fmt: skip
    return Table(("measured", "on the card"), ("$0", "$1"), rows)


TABLES: dict[str, Callable[[], Table]] = {
    table.__name__: table
    for table in (
        offers, sequences, real, real_ct, enhancement, network, guided, lesions, slices,
        inverted, segmented, volumes, reach, refused, gate, weights, enhanced_head, distilled,
        exact, ratio, downstream, time, card,
    )
}  # fmt: skip
