"""What an enhancement measured and removed, in words; after the run, when all of it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

# Limits of words, chosen by hand.
#: Use of a guide, in SD of the noise, that is hardly visible.
_LEAST_USE = 0.02
#: Changes of tissue, as shares of what was to be removed, below which that is the input, and below
#: which it is little: 87 %, √(1 − .5²), of the noise stays.
_NEARLY_NOTHING, _LITTLE = 0.05, 0.5
#: Upper over lower limit of the noise from which both are stated: 1.38 for a sure level.
_WIDE = 1.5
#: Numbers that the texts need, by the measurement.
_NUMBERS = {
    "noise": ("sigma", "share_removed"),
    "guide": ("used",),
    "sequence": ("frames", "images"),
    "slices": ("before", "after", "spacing_before_mm", "spacing_after_mm"),
}
#: What is corrected besides noise → the fact of the measurement that says so, and the words
#: wherever a result is described; {…}: a fact, without which nothing is said.
_CORRECTIONS = {"bias_field": ("corrected", "bias field corrected (N4)")}
#: Change of the mean of all frames over what noise leaves in it, with its share of σ, from which
#: more than noise went. Real series: EPI 1.2, DTI 1.3, DWI .3; 22 frames of the DWI, filtered one
#: by one, 2.3 and .37 σ (the error of their mean grew by 39 %); spinal fMRI 3.6 and fMRI of 156
#: frames 11, whose means lost .4 and .2 σ of what is no noise.
_UNEXPLAINED = ((3.0, 0.1), (2.0, 0.33))
#: How a run's log begins to describe the noise, before the removal.
_IN_LOG = ("noise found: ", "noise stated: ")
#: Change of tissue over σ up to which the rest of the error is computed from both.
_SURE_REST = 0.97
#: Verdicts on an enhancement that removes noise, as manifests record them.
CLEAN, REMOVED, UNCERTAIN = "clean", "removed", "uncertain"


class Door(NamedTuple):
    """A place where texts are read: how σ is measured and stated there, and the modality.

    Attributes:
        noise: how to measure σ in even tissue and to state it; "{place}" stands for a voxel.
        modality: the option that states the modality.
        place: what stands for a voxel where none in even tissue is known.
    """

    noise: str
    modality: str
    place: str = "SLICE,ROW,COLUMN"

    def noise_at(self, places: Sequence[Sequence[int]]) -> str:
        """Say how σ is measured and stated, in the first of the places (K, J, I)."""
        place = ",".join(map(str, places[0])) if places else self.place
        return self.noise.replace("{place}", place)


def command_door(noise: str = "medenhance noise INPUT") -> Door:
    """Return the command line as a door; noise: the command that measures the volume."""
    return Door(f"{noise} --at {{place}}", "--modality")


COMMAND = command_door()
PYTHON = Door(
    "measure_noise(volume, at=({place})), then noise=sigma", "modality=", "slice, row, column"
)


def describe(
    measured: Mapping[str, Any], strength: float = 1.0, *, door: Door = COMMAND
) -> list[str]:
    """Describe what was measured in a volume and how it was corrected, a line each.

    The first line is that of `verdict_on`, if noise was measured and the run has ended.

    Args:
        measured: `results.measured` of the manifest; what cannot be read there is left out.
        strength: of the result.
        door: where the lines are read.
    """
    facts = {
        name: value
        for name, value in measured.items()
        if isinstance(value, Mapping)
        and all(isinstance(value.get(key), (int, float)) for key in _NUMBERS.get(name, ()))
    }
    verdict, taken_as = verdict_on(measured, strength), facts.get("taken_as", {})
    lines = [verdict] if verdict else []
    if taken_as.get("left_alone"):
        return lines
    if guessed := taken_as.get("guessed_modality"):
        lines.append(f"taken as {guessed} (guessed from values; state it with {door.modality})")
    if quantity := taken_as.get("quantity"):
        lines.append(f"{quantity}, taken as intensities on request")
    if noise := facts.get("noise"):
        lines.append(_noise_in_words(noise, strength))
        if strength > 0 and noise.get("mean_changed"):
            mean, alone = (noise[f"mean_changed{by}"] for by in ("", "_by_noise"))
            text = f"the mean of all frames changed by {_level(strength * mean)} in tissue; noise"
            lines.append(f"{text} alone leaves about {_level(strength * alone)}")
        if noise.get("verdict") == UNCERTAIN and strength > 0 and "changed" in noise:
            how = door.noise_at(noise.get("places", ()))
            lines.append(f"to measure σ in even tissue: {how}")
    if strength == 0:  # the result is the input
        facts = {name: facts[name] for name in ("slices",) if name in facts}
    lines += _sequence_in_words(facts.get("sequence", {}))
    lines += corrections(facts).values()
    if guide := facts.get("guide"):
        text = f"changed the result by {strength * guide['used']:.2f} SD of the noise"
        if strength * guide["used"] < _LEAST_USE:
            text = "added almost nothing" if guide["used"] > 0 else "added nothing"
        lines.append(f"the guide {text}" + (f"; {guide['reason']}" if guide.get("reason") else ""))
    if slices := facts.get("slices"):
        text = (
            f"slices: {slices['before']} of {slices['spacing_before_mm']:g} mm became "
            f"{slices['after']} of {slices['spacing_after_mm']:g} mm"
        )
        if "thickness_mm" in slices:
            text += (
                f", taken as {slices['thickness_mm']:g} mm thick with a {slices['profile']} profile"
            )
        if strength < 1:
            text += f"; {100 * strength:.0f} % of the network's detail, the rest is interpolation"
        lines.append(text)
    if segmentation := facts.get("segmentation"):
        lines.append(f"not segmented: {segmentation.get('refused', '')}")
    return lines


def corrections(measured: Mapping[str, Any]) -> dict[str, str]:
    """Describe what was corrected besides noise, by its name; measured: as of `describe`."""
    texts = {}
    for name, (fact, words) in _CORRECTIONS.items():
        facts = measured.get(name)
        if isinstance(facts, Mapping) and facts.get(fact):
            with suppress(LookupError, TypeError, ValueError):
                texts[name] = words.format_map(facts)
    return texts


def corrections_in_words(measured: Mapping[str, Any], strength: float = 1.0) -> str:
    """Describe all corrections for a history note: `verdict_on`, then what it does not say."""
    noise = measured.get("noise", {})
    share = noise.get("share_removed", 1)
    verdict = verdict_on(measured, strength)
    parts = [verdict] if verdict else []
    if returned := noise.get("share_given_back", 0):
        parts.append(f"{returned:.0%} of the noise kept with faint lesions")
    if share > 0 and noise.get("sigma_used", math.inf) < noise.get("sigma", 0):
        parts.append(f"for noise of ±{noise['sigma_used']:.3g}")  # as the level is uncertain
    parts += corrections(measured).values()
    used = measured.get("guide", {}).get("used")
    parts += [f"guide changed it by {used:.2f} SD of the noise"] if used else []
    return "".join(f", {part}" for part in parts)


def verdict_on(measured: Mapping[str, Any], strength: float = 1.0) -> str:
    """Say in one sentence what came of a run: the same in every list, page, file and history.

    Args:
        measured: as of `describe`.
        strength: of the result.
    Returns "" before the run, and where no noise is known.
    """
    noise, taken_as = measured.get("noise"), measured.get("taken_as")
    if isinstance(taken_as, Mapping) and (quantity := taken_as.get("left_alone")):
        return f"it looks like {quantity}: nothing was changed"
    if not isinstance(noise, Mapping) or not isinstance(noise.get("changed"), (int, float)):
        return ""
    changed, verdict, units = strength * noise["changed"], noise.get("verdict"), noise.get("units")
    text = f"{REMOVED} {_level(changed)}{f' {units}' if units else ''}"
    text, beyond = text if changed else "nothing removed", ""
    if changed and noise.get("is_stated"):
        text += f" of the stated {_level(noise['sigma'])}"
    if times := mean_change(noise):
        beyond = f", but the mean of all frames changed {times:.2g} times as much as noise explains"
    if is_nearly_input(noise, strength):
        beyond += f" (the result is {'nearly ' if changed else ''}the input)"
    if strength == 0:
        return f"{text}: the strength is 0{beyond}"
    if verdict == CLEAN:
        snr = f" (SNR {noise['snr']:.0f})" if noise.get("snr") else ""
        return f"{CLEAN}{snr}: {'hardly anything' if changed else 'nothing'} to do"
    if verdict == UNCERTAIN:
        reason = noise.get("unfit") or noise.get("reason", "the noise cannot be measured")
        return f"{UNCERTAIN}, {text}{beyond}: {reason}"
    if more := corrections(measured):
        return f"{text}: noise and {' and '.join(more).replace('_', ' ')}"
    if noise.get("is_stated") or not changed:
        return f"{text}{beyond}"
    share = _removed_share(noise, strength)
    if share is None:
        return f"{text} of noise {_level(noise['sigma'])}{beyond}"
    return f"{text}, about {max(5, 5 * round(20 * share))} % of the error{beyond}"


def mean_change(noise: Mapping[str, Any]) -> float:
    """Return the change of the mean of all frames over what noise leaves in it; 0 for no excess.

    noise: `results.measured.noise` of the manifest.
    """
    mean, alone = (noise.get(f"mean_changed{by}") or 0.0 for by in ("", "_by_noise"))
    is_beyond = any(
        mean > times * alone and mean > share * noise["sigma"] for times, share in _UNEXPLAINED
    )
    return float(mean / alone) if alone and is_beyond else 0.0


def _removed_share(noise: Mapping[str, Any], strength: float) -> float | None:
    """Return the share of the error (RMS) that was removed; None if it cannot be computed.

    What a filter leaves of the noise has nothing in common with what it removes, so that the
    variance of the rest is σ² - 2 s c² + s² c², with c the change of tissue at strength 1. Not for
    CT, where σ differs from place to place and low frequencies of the noise stay.
    """
    ratio = (noise["changed"] / noise["sigma"]) ** 2
    if "share_given_back" in noise or noise.get("units") == "HU" or ratio > _SURE_REST**2:
        return None
    return 1 - math.sqrt(1 - (2 * strength - strength**2) * ratio)


def _sequence_in_words(sequence: Mapping[str, Any]) -> list[str]:
    """Describe how many images hold what the frames of a sequence share."""
    if not sequence:
        return []
    if reason := sequence.get("reason"):
        return [f"{sequence['frames']} frames were filtered one by one: {reason}"]
    text = f"{sequence['frames']} frames were filtered together"
    return [f"{text}; {sequence['images']} principal images hold signal"]


def is_nearly_input(noise: Mapping[str, Any], strength: float) -> bool:
    """Return whether the enhancement hardly changed tissue, or the strength is 0.

    noise: `results.measured.noise` of the manifest.
    """
    sigma = float(noise.get("sigma", math.nan))
    share = _LITTLE if float(noise.get("sigma_used", sigma)) < sigma else _NEARLY_NOTHING
    return strength == 0 or float(noise.get("changed", math.nan)) <= share * _removable(noise)


def _removable(noise: Mapping[str, Any]) -> float:
    """Return the σ that a change is compared with: a statement may be above all that there is."""
    used = float(noise.get("sigma_used", noise.get("sigma", math.nan)))
    return min(used, float(noise.get("measured", used)))


def noise_level(noise: Mapping[str, Any], units: str) -> str:
    """State the noise that a manifest or a card records, with limits where they are far apart."""
    low, high = noise.get("interval") or (0, 0)
    limits = f"; likely {_level(low)} to {_level(high)}" if high > _WIDE * low else ""
    return f"{_level(noise['sigma'])}{units and f' {units}'} (1 SD{limits})"


def _level(value: float) -> str:
    """Write ± and a number of three digits: ±0.262, ±7200."""
    return f"±{float(f'{value:.3g}'):g}"


def final_log(lines: Iterable[str], findings: Iterable[str]) -> list[str]:
    """Return a run's log with its findings, not with what was expected of them."""
    return [*(line for line in lines if not line.startswith(_IN_LOG)), *findings]


def _noise_in_words(noise: Mapping[str, Any], strength: float) -> str:
    """Say which noise was measured, what of it was filtered, and by how much tissue changed.

    All levels are standard deviations; that of an uncertain measurement comes with its limits.
    """
    sigma, reason, stated = noise["sigma"], noise.get("reason"), noise.get("is_stated")
    used, share = noise.get("sigma_used", sigma), strength * noise["share_removed"]
    changed, is_part = strength * noise.get("changed", math.nan), used < sigma
    returned = noise.get("share_given_back", 0)
    removed = "all" if share == 1 and not returned else f"{100 * share * (1 - returned):.0f} %"
    if is_part:
        removed = f"{_level(used)} of it" if removed == "all" else f"{removed} of {_level(used)}"
    if changed < _LITTLE * share * _removable(noise):  # the filter took most of it for anatomy
        removed = "little"
    is_cause = is_part or share < strength
    causes = [reason] if reason and is_cause and strength > 0 else []
    if strength < 1:
        causes.append(f"the strength is {strength:g}")
    removed = "nothing" if 0 in (changed, share) else removed
    if returned and removed not in ("little", "nothing"):
        causes.append("low frequencies stay, with small lesions in them")
    texts = [
        f"noise {'stated' if stated else 'found'}: {noise_level(noise, noise.get('units', ''))}",
        f"filtered: {removed}",
    ]
    if causes:
        texts[-1] += f", because {' and '.join(causes)}"
    if reason and not is_cause:
        texts[-1] += f" (uncertain, because {reason})"
    if changed > 0:
        texts.append(f"tissue changed by {_level(changed)}")
    return "; ".join(texts)
