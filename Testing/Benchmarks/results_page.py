"""The tables of docs/results.md and of other pages, each cell from the results in JSON.

figures.py puts them between `<!-- figures: NAME -->` and `<!-- /figures -->`, and checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from _figure_origins import Cell, FigureError, record, value_of

#: Text, a number, or several of both in one cell.
Content = str | Cell | tuple[str | Cell, ...]


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
    """The mean with the range over subjects and seeds; a dash where nothing was measured."""
    if not _there(path):
        return "–"
    return (Cell(f"{path}:mean", form), " (", Cell(f"{path}:min", form), " to ",
            Cell(f"{path}:max", form), ")")  # fmt: skip


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

_CT_CASES = {
    "low dose 5e3": "5,000 photons a ray",
    "low dose 2e4": "20,000 photons a ray",
    "low dose 1e5": "100,000 photons a ray",
    "soft kernel 5e3": "soft kernel, 5,000 photons",
}
_CT_GROUPS = {"subject~sts": "two sarcomas", "subject~abdomen": "abdomen"}
_MR_CASES = {name: name for name in ("Rician 3 %", "Rician 5 %", "Rician 10 %", "Rician 15 %")}


def _enhancement(groups: dict[str, str], cases: dict[str, str]) -> Table:
    """PSNR beside peers. groups: conditions on the volumes, with what they are called."""
    rows = []
    for group, volumes in groups.items():
        for case, name in cases.items():
            base = f"enhancement.rows[{group}; case={case}; arm="
            ours = f"{base}ours].psnr_image"
            rival = "BM4D" if _there(f"{base}BM4D].psnr_image") else "NLM"
            gain = f"({base}ours; seed=0].{{0}} - {base}{rival}; seed=0].{{0}}):mean"
            inside, whole = gain.format("psnr_foreground"), gain.format("psnr_image")
            rows.append((inside, (
                volumes,
                name,
                _one(f"{base}input].psnr_image:mean"),
                _one(f"{base}NLM].psnr_image:mean"),
                _one(f"{base}BM4D].psnr_image:mean"),
                _mean(ours),
                Cell(f"{ours}:count", ".0f"),
                (Cell(whole, "+.2f"), "" if rival == "BM4D" else " (NLM)"),
                Cell(inside, "+.2f"),
            )))  # fmt: skip
    head = ("volumes", "damage", "input", "NLM", "BM4D", "MedEnhance (range)", "n", "over BM4D",
            "over BM4D within the body")  # fmt: skip
    return Table(head, _worst_first(rows))


def _over(base: str, arms: tuple[str, str], figure: str) -> str:
    """The differences between two arms, entry by entry; `base` ends in "arm="."""
    ours, theirs = (f"{base}{arm}].{figure}" for arm in arms)
    return f"({ours} - {theirs})"


def real() -> Table:
    """Repeated real scans: the error that is left, as a share of the input's, and σ."""
    arms = ("single", "sequence", "true", "guided", "nlm", "bm4d", "bm4d_true", "mp_pca")
    rows: list[Sequence[Content]] = []
    for group in ("SNR to 10", "SNR 10 to 50", "SNR above 50", "frames differ"):
        path = f"real.rows[group={group}]"
        if _there(f"{path}.single"):
            row = [group, Cell(f"{path}.single:count", ".0f")]
            rows.append([*row, *(_mean(f"{path}.{arm}") for arm in arms)])
    head = ("scans", "n", "each frame alone (range)", "as a sequence (range)", "true σ (range)",
            "guided by a repeat, over alone")  # fmt: skip
    return Table((*head, "NLM", "BM4D", "BM4D, true σ", "MP-PCA of the sequence"), rows)


def network() -> Table:
    """What the set network adds to the filter, where the model learned from nothing alike."""
    references = {"averaged": "2 voxels averaged", "plain": "as scanned"}
    damages = [
        ("MR", f"noise={noise}; percent={n}; case~measured", f"{name} {n} %")
        for noise, name in (("scanner", "noise of a scanner"), ("white", "white noise"))
        for n in (5, 10, 15)
    ]
    damages += [("CT", f"case=low dose {n}", f"low dose {n}") for n in ("5e3", "2e4")]
    rows = []
    for part, chosen, damage in damages:
        for reference, name in references.items():
            base = f"denoising.rows[part={part}; reference={reference}; {chosen}; "
            base += "in_card!=volume; arm="
            gain = _over(base, ("network", "filter"), "psnr")
            rows.append((f"{gain}:mean", (
                part, name, damage,
                _one(f"{base}filter].psnr:mean"),
                _mean(gain, "+.2f"),
                Cell(_over(base, ("network", "filter"), "ssim") + ":mean", "+.3f"),
                Cell(f"{gain}:count", ".0f"),
            )))  # fmt: skip
    head = ("modality", "reference", "damage", "filter, dB", "network over filter (range), dB")
    return Table((*head, "SSIM", "n"), _worst_first(rows))


def guided() -> Table:
    """What a guide adds to the network, right ones and others."""
    rows = []
    others = ("mirrored", "other patient", "shifted 1", "bad in one half", "noise 5 %")
    for group in ("2 mm", "1 mm"):
        for percent in (5, 10, 15):
            base = f"guidance.rows[group={group}; percent={percent}; arm="
            gain = _over(base, ("right guide", "no guide"), "psnr")
            rows.append((f"{gain}:mean", (group, f"{percent} %", "right", _gain(gain))))
        base = f"guidance.rows[group={group}; percent=10; seed=0; arm="
        for arm in others:
            gain = _over(base, (arm, "no guide"), "psnr")
            rows.append((f"{gain}:mean", (group, "10 %", arm, _gain(gain))))
    return Table(("voxels", "noise", "guide", "over no guide, dB"), _worst_first(rows))


def composite() -> Table:
    """Bias field, blur and noise together, within the body, beside BM4D followed by N4."""
    corrected = "ours, field corrected"
    arms = {
        "input": ("input", "input"),
        "BM4D, then N4": ("BM4D + N4", "BM4D → N4"),
        "MedEnhance": ("ours + N4", corrected),
    }
    rows: list[Sequence[Content]] = []
    for name, (slabs, other) in arms.items():
        rows.append((
            name,
            _mean(f"enhancement.rows[case=composite; seed=0; arm={slabs}].psnr_foreground"),
            _mean(f"bias_field.rows[damage=composite; arm={other}].psnr"),
        ))  # fmt: skip
    counts = ["enhancement.rows[case=composite; seed=0; arm=ours + N4].psnr_foreground"]
    counts.append(f"bias_field.rows[damage=composite; arm={corrected}].psnr")
    rows.append(("n", *(Cell(f"{path}:count", ".0f") for path in counts)))
    return Table(("arm", "slabs of brains", "crops"), rows)


def blur() -> Table:
    """Blur: input, noise removed alone, blur undone too."""
    path = "blur.rows[part=damaged; sigma>0].psnr"
    gain = f"({path}.ours - {path}.input)"
    row = (
        Cell(f"{path}.input:mean"), Cell(f'{path}."noise alone":mean'), Cell(f"{path}.ours:mean"),
        Cell(f"{gain}:mean", "+.2f"), Cell(f"{gain}:min", "+.2f"),
        Cell(f"{path}.ours:count", ".0f"),
    )  # fmt: skip
    head = ("input", "task noise", "task sharpness", "gain", "least gain", "n")
    return Table(head, [row])


def lesions() -> Table:
    """Planted lesions: contrast that is kept, and how surely an observer finds faint ones."""
    rows = []
    for modality, case in (("CT", "5,000 photons"), ("MR", "Rician 10 %")):
        gate = f"enhancement.gates[name={modality}: planted lesions, "
        rows.append((
            f"{modality}, {case}", "contrast kept, share", Cell(f"{gate}mean contrast kept].value"),
        ))  # fmt: skip
        rows.append((
            f"{modality}, {case}", "lesions of which less than half is kept, share",
            Cell(f"{gate}share lost (less than half kept)].value"),
        ))  # fmt: skip
    rows += [
        ("CT, 5,000 photons", "faint lesions: AUC of an observer below that on the input",
         Cell("harm.gates[name=faint lesions: AUC below the input's].value", ".3f")),
        ("CT, 5,000 photons", "the same, above that on BM4D's result",
         Cell("harm.gates[name=faint lesions: AUC above BM4D's].value", ".3f")),
        ("CT, 5,000 photons", "contrast kept of lesions that can be seen (d′ ≥ 8), share",
         _one("harm.gates[name=contrast kept at d′ ≥ 8].value")),
        ("CT, 5,000 photons", "new blobs per 100 mL without lesions, most",
         Cell("enhancement.gates[name=CT: lesion-free input, new blobs per 100 mL, most].value",
              ".1f")),
    ]  # fmt: skip
    return Table(("volumes", "measure", "MedEnhance"), rows)


def undamaged() -> Table:
    """Volumes as they are: how near a result is to its input."""
    views = {
        "CT, middle slices": "harm.rows[table=undamaged; modality=CT]",
        "MR, middle slices": "harm.rows[table=undamaged; modality=MR]",
        "MR, crops, bias field corrected": (
            "bias_field.rows[damage=none; arm=ours, field corrected]"
        ),
    }
    rows = [
        (name, Cell(f"{path}.psnr:count", ".0f"), _mean(f"{path}.psnr", ".1f"))
        for name, path in views.items()
    ]
    return Table(("volumes", "n", "PSNR to the input (range), dB"), rows)


def uncertainty() -> Table:
    """How many errors lie within ± 1.645 of the stated deviations."""
    rows = []
    for modality in ("MR", "CT"):
        path = f"uncertainty.rows[modality={modality}].coverage_other_sites"
        rows.append((
            modality, Cell(f"{path}:count", ".0f"), Cell(f"{path}:min * 100", ".0f"),
            Cell(f"{path}:mean * 100", ".0f"), Cell(f"{path}:max * 100", ".0f"),
        ))  # fmt: skip
    return Table(("modality", "volumes and noise levels", "least, %", "mean, %", "most, %"), rows)


# --- thin slices

_SLICES = {
    "template": "MR, average of 152 brains",
    "studyforrest": "MR, scanner that no training saw",
    "C07": "MR, other patients of the collection seen",
    "STS_005 MR": "MR, other patients of the collection seen",
    "STS_037 CT": "CT, other patients of the collection seen",
    "STS_013 CT, 3 mm": "CT, other patients of the collection seen",
    "abdomen CT": "CT, collection that no training saw",
    "abdomen CT, table": "the same with the scanner's table",
}


def slices() -> Table:
    """Gains over the cubic B-spline, by volume."""
    rows = []
    for reference, site in _SLICES.items():
        base = f"slices.rows[reference={reference}; arm="
        gain = _over(base, ("ours", "spline"), "psnr")
        rows.append((f"{gain}:mean", (
            reference, site,
            *(Cell(f"{base}{arm}].psnr:mean") for arm in ("linear", "spline", "ours")),
            _mean(gain, "+.2f"),
            Cell(f"{gain}:count", ".0f"),
        )))  # fmt: skip
    head = ("volume", "what", "linear", "spline", "MedEnhance", "over spline (range)", "n")
    return Table(head, _worst_first(rows))


# --- segmentation, GradProm


def segmented() -> Table:
    """The heads that ship, on images as they are and enhanced."""
    rows = []
    for model, cases in (("brain-tissue", ("undamaged", "Rician 10 %", "composite")),
                         ("sarcoma-ct", ("undamaged", "5,000 photons"))):  # fmt: skip
        for case in cases:
            base = f"segmentation.rows[model={model}; case={case}; input="
            rows.append((
                model, case, _mean(f"{base}as it is].dice", ".3f"),
                _mean(f"{base}enhanced].dice", ".3f"),
                Cell(f"{base}as it is].dice:count", ".0f"),
            ))  # fmt: skip
    return Table(("model", "damage", "Dice, as it is", "Dice, enhanced", "n"), rows)


def refused() -> Table:
    """Volumes that the heads that ship refuse, by what they show."""
    damages = ("as it is", "Rician 5%", "Rician 10%", "Rician 20%", "bias field", "defaced",
               "half", "cropped by a third", "slices of 6 mm")  # fmt: skip
    brains = [f"{name}, {case}" for name in ("learned", "other sources") for case in damages]
    kinds = {
        "brain-tissue": (*brains, "brains, T1 with contrast agent", "brains, T2", "brains, FLAIR",
                         "limbs and trunk, MR", "limbs and trunk, CT named MR",
                         "abdomen, CT named MR"),
        "sarcoma-ct": ("learned, as it is", "abdomen, CT", "brains, MR named CT",
                       "whole head, MR named CT", "limbs and trunk, MR named CT"),
    }  # fmt: skip
    rows = []
    for model, names in kinds.items():
        for name in names:
            those = f"likeness.rows[model={model}; kind={name}].distance:"
            rows.append((
                model, name, Cell(f"likeness.gates[name~{model}: {name}, refused].value", ".0f"),
                *(Cell(f"{those}{end}", form)
                  for end, form in (("count", ".0f"), ("min", ".2f"), ("max", ".2f"))),
            ))  # fmt: skip
    return Table(("model", "volumes", "refused", "of", "nearest", "farthest"), rows)


_ANATOMIES = {
    "tissue": "brain tissue, MR",
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
            what, *(Cell(f"{base}{arm}].dice:mean", ".3f") for arm in images),
            *(Cell(f"{path}:mean", "+.2f") for path in lost),
            Cell(f"{base}clean].dice:count", ".0f"),
        ))  # fmt: skip
    return Table((
        "labels", "noisy scan", "noisy scan, head of noisy images", "enhanced", "clean scan",
        "sum of both losses, dB", "gate as published, dB", "gate on averages, dB", "n",
    ), rows)  # fmt: skip


def distilled() -> Table:
    """What networks gain that learned from volumes of each kind, from scratch."""
    arms = ("raw", "template", "synthetic", "statistics", "matching")
    rows = []
    for cell in ("enhancer MR", "enhancer CT", "slices MR", "slices CT"):
        base = f"distillation.rows[cell={cell}; arm="
        share = f"({base}statistics].held_out_db:mean / {base}raw].held_out_db:mean)"
        for where, persons in (("held_out_db", "other patients"), ("other_site_db", "other site")):
            rows.append((
                share, (cell, persons, *(_mean(f"{base}{arm}].{where}", "+.2f") for arm in arms))
            ))  # fmt: skip
    head = ("network", "measured on", "raw data", "template", "synthetic", "statistics", "matching")
    return Table(head, _worst_first(rows))


def ablation() -> Table:
    """What each part of the training gains, on an examination that no row learned from."""
    rows: list[tuple[str, Sequence[Content]]] = []
    names = {row["part"]: "right_guide_db" in row for row in record("ablation")["rows"]}
    for is_guided in (False, True):
        figure = "right_guide_db" if is_guided else "unguided_db"
        parts = [name for name, guided in names.items() if guided == is_guided]
        group = parts[0]
        for part in parts:
            path = f"ablation.rows[part={part}].{figure}"
            over = f"({path} - ablation.rows[part={group}].{figure})"
            wrong = f"ablation.rows[part={part}].wrong_guide_db"
            rows.append((f"{over}:mean", (
                part, "no guide" if is_guided else "filter",
                _mean(path, "+.3f"),
                "" if part == group else Cell(f"{over}:mean", "+.3f"),
                Cell(f"{wrong}:mean", "+.3f") if _there(wrong) else "",
                Cell(f"{path}:count", ".0f"),
            )))  # fmt: skip
    head = ("training", "compared with", "gain (range), dB", "over the first of its kind, dB",
            "with wrong guides, dB", "n")  # fmt: skip
    return Table(head, _worst_first(rows))


# --- compression

_VOLUMES = ("EM medulla_v_z0", "MR studyforrest T1", "MR open_ms L20", "MR open_ms C19",
            "CT STS_013")  # fmt: skip


_JPEG_XL = (
    "JPEG XL effort 7 or JPEG XL effort 7, slices stacked or JPEG XL effort 9, slices stacked"
)


def lossless() -> Table:
    """Ratios without loss."""
    peers = {
        "gzip 9": "gzip",
        "zstd 19, bytes shuffled": "zstd",
        "JPEG-LS": "JPEG-LS",
        "JPEG 2000": "JPEG 2000",
        "JPEG XL effort 9": "JPEG XL",
    }
    return _ratios("lossless", peers, f" or {_JPEG_XL}")


def bounded() -> Table:
    """Ratios at a largest error of 2."""
    peers = {
        "SZ3": "SZ3",
        "JPEG-LS near-lossless": "JPEG-LS",
        "quantized, JPEG XL effort 7": "quantized JPEG XL",
    }
    return _ratios("max_error; setting=2", peers)


def _ratios(mode: str, peers: dict[str, str], rivals: str = "") -> Table:
    """Ratios of peers and ours by volume. rivals: further codecs that the best peer may be."""
    names = peers | {"ours, fast": "MedEnhance, fast", "ours": "MedEnhance"}
    rows = []
    for volume in _VOLUMES:
        base = f"compression.rows[volume={volume}; mode={mode}; codec="
        better = f"{base}ours].ratio / {base}{' or '.join(peers)}{rivals}].ratio:max"
        rows.append((better, (
            volume, *(Cell(f"{base}{name}].ratio") for name in names),
            Cell(f"{better} - 1 * 100", "+.1f"),
        )))  # fmt: skip
    return Table(("volume", *names.values(), "over the best peer, %"), _worst_first(rows))


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


def ratio() -> Table:
    """PSNR at fixed ratios beside the peers at the same bytes."""
    peers = ("JPEG 2000", "SPERR", "HEVC 12 bit, slow", "SVT-AV1 10 bit, slow")
    found = []
    for volume in _VOLUMES:
        for number in (32, 512):
            path = f"compression.rows[volume={volume}; mode=ratio; codec=ours; setting={number}]"
            values = [_psnr_at(volume, peer, value_of(f"{path}.bytes")) for peer in peers]
            best = max(value for value in values if value is not None)
            ours = value_of(f"{path}.psnr_db")
            found.append((ours - best, (
                volume, str(number),
                *(Between(f"compression.rows: psnr_at({volume}, {peer}, {number})", volume=volume,
                          codec=peer, bytes=f"{path}.bytes") for peer in peers),
                Cell(f"{path}.psnr_db"),
                Best(f"compression.rows: ours less the best at {volume}, {number}",
                     difference=ours - best),
            )))  # fmt: skip
    rows = [row for _, row in sorted(found, key=lambda entry: entry[0])]
    return Table(("volume", "ratio", *peers, "MedEnhance", "over the best"), rows)


@dataclass(frozen=True)
class Best(Cell):
    """A difference to the best of several peers."""

    difference: float = 0.0

    def __str__(self) -> str:
        return f"{self.difference:+.2f}".replace("-", "−")


def downstream() -> Table:
    """What radiomics and segmentation keep of a volume that was compressed."""
    labels = {"MR": "Gray matter", "CT": "Gross tumor volume"}
    rows: list[Sequence[Content]] = []
    for modality, label in labels.items():
        for setting in ("error 1", "error 2", "error 8", "ratio 8", "ratio 32"):
            path = f"downstream.rows[modality={modality}; setting={setting}]"
            rows.append((
                modality, setting, Cell(f"{path}.ratio:mean", ".1f"),
                Cell(f"{path}.within:mean * 100", ".0f"), Cell(f"{path}.within:min * 100", ".0f"),
                Cell(f'{path}.dice_original."{label}":min', ".3f"),
            ))  # fmt: skip
    head = ("modality", "setting", "ratio, mean", "features kept, %", "worst patient, %",
            "Dice with the labels before")  # fmt: skip
    return Table(head, rows)


# --- DICOM, speed, reliability


def dicom() -> Table:
    """Time and memory of reading, beside pydicom and SimpleITK."""
    names = {
        "scan, SimpleITK": "find the series of 10,000 files, SimpleITK",
        "scan, pydicom": "the same, headers one by one with pydicom",
        "scan, ours": "the same, MedEnhance",
        "read, SimpleITK": "read 512×512×300, SimpleITK",
        "read, ours": "the same, MedEnhance",
        "straighten": "straighten 512×512×600 (tilted), MedEnhance",
    }
    rows = [
        (name, Cell(f"dicom.rows[what={what}].seconds"),
         Cell(f"dicom.rows[what={what}].peak_bytes / 1e6", ".0f"))
        for what, name in names.items()
    ]  # fmt: skip
    return Table(("work", "s", "memory, MB"), rows)


def time() -> Table:
    """What a user waits for, on two cores, beside the same work of peers."""
    volume = "speed.rows[case=whole volume]"
    large = "compression.rows[mode=large; setting="
    rows: list[Sequence[Content]] = [
        ("enhance 512×512×300 CT", Cell(f"{volume}.wall_s", ".0f"),
         Cell(f"{volume}.cpu_s", ".0f")),
        ("first preview of a slice", Cell("speed.rows[case=preview].first_wall_s", ".1f"),
         Cell("speed.rows[case=preview].first_cpu_s", ".1f")),
    ]  # fmt: skip
    for arm in ("ours", "NLM", "BM4D"):
        base = f"enhancement.rows[modality=MR; case=Rician 10 %; arm={arm}]"
        name = "MedEnhance" if arm == "ours" else arm
        rows.append((f"a million voxels of MR, {name}", "–",
                     Cell(f"{base}.cpu_s_per_mvoxel:mean", ".1f")))  # fmt: skip
    for setting, name in (
        ("lossless", "compress 512×512×100 CT, lossless"),
        ("lossless, fast", "the same, fast"),
        ("JPEG XL effort 7", "the same, JPEG XL effort 7"),
        ("ratio 64", "compress it, ratio 64"),
        ("HEVC 12 bit, slow", "the same, HEVC 12 bit, slow"),
    ):
        rows.append((name, Cell(f"{large}{setting}].encode_s", ".1f"),
                     Cell(f"{large}{setting}].encode_cpu_s", ".1f")))  # fmt: skip
    return Table(("work", "s", "CPU s"), rows)


def reliability() -> Table:
    """Attempts to lose data, and how many succeeded."""
    rows = [
        ("damaged and forged `.ucv` files read",
         Cell("fuzz.gates[name=damaged and forged files].value", ",.0f"),
         Cell("fuzz.gates[name~wrong voxels called right].value", ".0f")),
        ("writers killed at random points",
         Cell("kills.gates[name=points of SIGKILL].value", ".0f"),
         Cell("kills.gates[name~neither the old file].value", ".0f")),
        ("volumes of a batch on a cluster",
         Cell("scale.rows[run=nothing goes wrong].volumes", ",.0f"),
         Cell("scale.gates[name~nothing goes wrong].value", ".0f")),
    ]  # fmt: skip
    return Table(("attempts to lose data", "number", "that succeeded"), rows)


# --- README


def methods() -> Table:
    """The four papers: what is here, whether it acts by default, what it gains on unseen data."""
    scanner, white = (
        _over(f"denoising.rows[part=MR; noise={noise}; percent=10; case~measured; arm=",
              ("network", "filter"), "psnr")
        for noise in ("scanner", "white")
    )  # fmt: skip
    ct = _over("denoising.rows[part=CT; in_card!=volume; arm=", ("network", "filter"), "psnr")
    guide = _over("guidance.rows[group=2 mm; percent=10; arm=", ("right guide", "no guide"), "psnr")
    thin = "(slices.rows[reference=studyforrest; arm=ours].psnr - "
    thin += "slices.rows[reference=studyforrest; arm=spline].psnr)"
    sets = "distillation.rows[cell=slices MR; arm={}].held_out_db"
    code = "compression.rows[volume=MR studyforrest T1; mode=lossless; codec="
    dice = "gradprom.rows[anatomy=tissue; arm="
    given_back = _over(dice, ("enhanced", "noisy"), "dice")
    rows: list[Sequence[Content]] = [
        ("[HQG-Net](https://arxiv.org/abs/2307.07829)", "set network",
         "yes",
         ("over the filter: MR, noise of a scanner 10 % ", *_gain(scanner), ", white noise 10 % ",
          *_gain(white), "; CT, low dose ", *_gain(ct))),
        ("", "guide", "on request", ("over no guide, 2 mm: MR ", *_gain(guide))),
        ("", "thin slices", "on request", ("over B-spline: MR ", *_gain(thin))),
        ("[GradProm](https://doi.org/10.1109/TPAMI.2025.3525671)", "gradient gate, heads",
         "in trainings",
         ("Dice of brain tissue, enhanced over noisy: ", *_gain(given_back, "+.3f"))
         if _there(given_back) else "not measured yet"),
        ("[UniCompress](https://arxiv.org/abs/2405.16850)", "`.ucv`",
         "yes; implicit network no",
         ("lossless over JPEG XL: MR ", Cell(f"{code}ours].ratio / {code}JPEG XL effort 9 or "
                                             f"{_JPEG_XL}].ratio:max - 1 * 100", "+.1f"),
          " % (n 1)")),
        ("[SPG](https://arxiv.org/abs/2511.13106)", "matching, audit",
         "no: statistics",
         ("thin slices learned from a set, over B-spline: MR ", *_gain(sets.format("statistics")),
          "; from raw data ", *_gain(sets.format("raw")))),
    ]  # fmt: skip
    head_row = ("paper", "implemented", "by default", "gain where nobody trained, dB")
    return Table(head_row, rows)


def _gain(path: str, form: str = "+.2f") -> tuple[str | Cell, ...]:
    return (Cell(f"{path}:mean", form), " (", Cell(f"{path}:min", form), " to ",
            Cell(f"{path}:max", form), ", n ", Cell(f"{path}:count", ".0f"), ")")  # fmt: skip


TABLES: dict[str, Callable[[], Table]] = {
    "real": real,
    "enhancement-mr": lambda: _enhancement({"modality=MR": "three brains"}, _MR_CASES),
    "enhancement-ct": lambda: _enhancement(_CT_GROUPS, _CT_CASES),
    "network": network,
    "guided": guided,
    "composite": composite,
    "blur": blur,
    "lesions": lesions,
    "undamaged": undamaged,
    "uncertainty": uncertainty,
    "slices": slices,
    "segmented": segmented,
    "refused": refused,
    "gate": gate,
    "distilled": distilled,
    "ablation": ablation,
    "lossless": lossless,
    "bounded": bounded,
    "ratio": ratio,
    "downstream": downstream,
    "time": time,
    "dicom": dicom,
    "reliability": reliability,
    "methods": methods,
}
