"""What an enhancement measured and removed, in words; after the run, when all of it is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from MedEnhanceLib.runtime.texts import Text, all_of, text

# Limits of words, chosen by hand.
#: Changes of tissue, as shares of what was to be removed, below which that is the input, and below
#: which it is little: 87 %, √(1 − .5²), of the noise stays.
_NEARLY_NOTHING, _LITTLE = 0.05, 0.5
#: Upper over lower limit of the noise from which both are stated: 1.38 for a sure level.
_WIDE = 1.5
#: Change of the mean of all frames over what noise leaves in it, with its share of σ, from which
#: more than noise went. Real series: EPI 1.2, DTI 1.3, DWI .3; 22 frames of the DWI, filtered one
#: by one, 2.3 and .37 σ (the error of their mean grew by 39 %); spinal fMRI 3.6 and fMRI of 156
#: frames 11, whose means lost .4 and .2 σ of what is no noise.
_UNEXPLAINED = ((3.0, 0.1), (2.0, 0.33))
#: Change of tissue over σ up to which the rest of the error is computed from both.
_SURE_REST = 0.97
#: Verdicts on an enhancement that removes noise, as manifests record them.
CLEAN, REMOVED = "clean", "removed"
UNCERTAIN: Final = "uncertain"
#: What a damaged or edited manifest raises.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def describe(measured: Mapping[str, Any], strength: float = 1.0) -> list[Text]:
    """Describe what was measured in a volume and how it was corrected, the verdict first.

    Args:
        measured: `results.measured` of the manifest; what cannot be read there is left out.
        strength: of the result.
    """
    verdict = verdict_on(measured, strength)
    lines = [verdict] if verdict else []
    if verdict and verdict.key == "left_alone":
        return lines
    for name, lines_of in _LINES.items():
        with suppress(*_UNREADABLE):
            lines += lines_of(measured[name], strength)
    return lines


def verdict_on(measured: Mapping[str, Any], strength: float = 1.0) -> Text | None:
    """Say in one sentence what came of a run: the same in every list, page, file and history.

    Arguments as of `describe`. Returns None before the run, and where no noise is known.
    """
    with suppress(*_UNREADABLE):
        if quantity := measured.get("taken_as", {}).get("left_alone"):
            return text("left_alone", quantity=quantity)
        noise, also = measured["noise"], "with_bias_field" if "bias_field" in measured else ""
        if scanner := measured.get("scanner"):
            done = _verdict(noise, strength, "with_scanner", scanner["noise_changed"])
            tissue = level_of(strength * noise["changed"], noise.get("units", ""))
            return text("with_scanner", done=done, changed=tissue) if strength else done
        return _verdict(noise, strength, also, noise["changed"])
    return None


def history_of(measured: Mapping[str, Any], strength: float = 1.0) -> str:
    """Describe all corrections for a history note; arguments as of `describe`.

    Where a scanner was inverted, that alone: it changed more than all else.
    """
    lines = [line for line in describe(measured, strength) if line.key not in _NO_HISTORY]
    alone = [line for line in lines if line.key == "scanner"]
    return ", ".join(map(str, alone or lines))


def _verdict(noise: Mapping[str, Any], strength: float, also: str, removed: float) -> Text:
    """Say what came of a run.

    also: the key of what was corrected besides noise, "" for nothing. removed: the change of tissue
        by the removal of noise.
    """
    change, verdict = strength * removed, noise.get("verdict")
    sigma, units = level_of(noise["sigma"]), noise.get("units", "")
    if strength == 0:
        return text("no_strength")
    if verdict == CLEAN and also != "with_scanner":
        return clean(noise["sigma"], units, noise.get("snr"))
    numbers = {"changed": level_of(change, units), "sigma": sigma}
    share = _removed_share(noise, strength)
    if not change:
        done = text("unchanged")
    elif noise.get("is_stated"):
        done = text("removed_of_stated", **numbers)
    elif verdict == UNCERTAIN or also == "with_bias_field":
        done = text("removed", **numbers)
    elif share is None or also:
        done = text("removed_of", **numbers)
    else:
        done = text("removed_share", percent=max(5, 5 * round(20 * share)), **numbers)
    if also and verdict != UNCERTAIN:
        return done if also == "with_scanner" else text(also, done=done)
    if times := mean_change(noise):
        done = text("beyond_noise", done=done, times=times)
    if is_nearly_input(noise, strength):
        done = text("is_nearly_input" if change else "is_input", done=done)
    if verdict == UNCERTAIN:
        reason = noise.get("unfit") or noise.get("reason") or text("unmeasurable").to_json()
        return text("uncertain", done=done, reason=Text.from_json(reason))
    return done


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
    CT, where σ differs from place to place.
    """
    ratio = (noise["changed"] / noise["sigma"]) ** 2
    if noise.get("units") == "HU" or ratio > _SURE_REST**2:
        return None
    return 1 - math.sqrt(1 - (2 * strength - strength**2) * ratio)


def is_nearly_input(noise: Mapping[str, Any], strength: float) -> bool:
    """Return whether the enhancement hardly changed tissue, or the strength is 0.

    noise: `results.measured.noise` of the manifest.
    """
    sigma = float(noise.get("sigma", math.nan))
    share = _LITTLE if float(noise.get("sigma_used", sigma)) < sigma else _NEARLY_NOTHING
    share *= noise.get("ct_share", 1)
    return strength == 0 or float(noise.get("changed", math.nan)) <= share * _removable(noise)


def _removable(noise: Mapping[str, Any]) -> float:
    """Return the σ that a change is compared with: a statement may be above all that there is."""
    used = float(noise.get("sigma_used", noise.get("sigma", math.nan)))
    return min(used, float(noise.get("measured", used)))


def clean(sigma: float, units: str, snr: float | None) -> Text:
    """Say that there is hardly any noise, after a run.

    Args:
        sigma: of the noise.
        units: of the volume, "" where they are not known.
        snr: of the tissue; None for CT.
    """
    return text("clean", level=f"SNR {snr:.0f}" if snr else level_of(sigma, units))


def noise_found(noise: Mapping[str, Any]) -> Text:
    """State the noise that was measured or stated."""
    key = "noise_stated" if noise.get("is_stated") else "noise_found"
    return text(key, level=noise_level(noise, noise.get("units", "")))


def noise_level(noise: Mapping[str, Any], units: str) -> Text:
    """State the noise that a manifest or a card records, with limits where they are far apart."""
    low, high = noise.get("interval") or (0, 0)
    level = level_of(noise["sigma"], units)
    if high <= _WIDE * low:
        return text("level", level=level)
    return text("level_between", level=level, low=level_of(low), high=level_of(high))


def level_of(value: float, units: str = "") -> str:
    """Write ±, a number of three digits, and units: ±0.262 HU, ±7200."""
    return f"±{float(f'{value:.3g}'):g} {units}".rstrip()


def _taken_as(facts: Mapping[str, Any], _: float) -> Iterator[Text]:
    if guessed := facts.get("guessed_modality"):
        yield text("guessed", modality=guessed)
    if quantity := facts.get("quantity"):
        yield text("as_intensities", quantity=quantity)


def _noise(noise: Mapping[str, Any], strength: float) -> Iterator[Text]:
    """Say which noise was measured, and what of it was filtered."""
    used, share = noise.get("sigma_used", noise["sigma"]), strength * noise["share_removed"]
    change = strength * noise.get("changed", math.nan)
    percent = round(100 * share) if change != 0 else 0
    is_part, is_little = used < noise["sigma"], 0 < change < _LITTLE * share * _removable(noise)
    key = "filtered_little" if is_little else "filtered_part" if is_part and percent else "filtered"
    done = text(key, noise=noise_found(noise), percent=percent, used=level_of(used))
    reason = Text.from_json(noise["reason"]) if noise.get("reason") else None
    in_ct = noise.get("ct_share", 1)
    is_cause, causes = is_part or share < in_ct * strength, list[Text]()
    if in_ct < 1 and strength > 0:
        causes.append(text("lesions_stay"))
    if reason and is_cause and strength > 0:
        causes.append(reason)
    if strength < 1:
        causes.append(text("at_strength", strength=strength))
    if causes:
        done = text("because", done=done, reason=all_of(causes))
    yield text("though_uncertain", done=done, reason=reason) if reason and not is_cause else done
    if strength > 0 and (bias := noise.get("bias")):
        yield text(f"bias_{bias['way']}", frame=bias["frame"], share=strength * bias["share"])
    if strength > 0 and noise.get("mean_changed"):
        yield mean_changed(noise, strength)
    if strength > 0 and noise.get("verdict") == UNCERTAIN and "changed" in noise:
        yield _remedy(noise)


def _remedy(noise: Mapping[str, Any]) -> Text:
    """Say what to do about uncertain noise: state what even tissue agrees on, or measure it."""
    if sigma := noise.get("even_sigma"):
        level = level_of(sigma, noise.get("units", ""))
        return text("state_noise", sigma=level, run="medenhance enhance INPUT OUTPUT", noise=sigma)
    command = "medenhance noise INPUT"
    if places := noise.get("places"):
        return text("measure", command=command, place=",".join(map(str, places[0])))
    return text("find_even_tissue", command=command)


def mean_changed(noise: Mapping[str, Any], strength: float) -> Text:
    """State how the mean of all frames changed; arguments as of `mean_change`."""
    mean, alone = (level_of(strength * noise[f"mean_changed{by}"]) for by in ("", "_by_noise"))
    return text("mean_changed", mean=mean, alone=alone)


def _sequence(facts: Mapping[str, Any], strength: float) -> Iterator[Text]:
    if strength > 0 and facts.get("reason"):
        reason = Text.from_json(facts["reason"])
        yield text("frames_apart", frames=facts["frames"], reason=reason)
    elif strength > 0:
        yield text("frames_together", frames=facts["frames"], images=facts["images"])


def _odd_frames(facts: Mapping[str, Any], _: float) -> Iterator[Text]:
    yield text("odd_frames", odd="; ".join(str(Text.from_json(each)) for each in facts["texts"]))


def _bias_field(facts: Mapping[str, Any], strength: float) -> Iterator[Text]:
    if strength > 0 and facts["corrected"]:
        yield text("bias_field")


def _scanner(facts: Mapping[str, Any], strength: float) -> Iterator[Text]:
    steps, number = facts["steps"], facts["volumes"]
    changed = [_CHANGED_BY[step] for step in ("curve", "resolution", "field") if step in steps]
    if strength > 0 and changed:
        yield text("scanner", changed=", ".join(changed), volumes=number)
        if facts.get("network"):
            yield text("scanner_network")
        yield text("scanner_check", percent=100 * facts["inconsistent"])


def slices_restored(slices: Mapping[str, Any], strength: float = 1.0) -> Iterator[Text]:
    """Say how slices became thinner; slices: `results.measured.slices` of the manifest."""
    yield text("slices", **slices)
    if "tuning_gain" in slices:
        yield text("slices_tuned", steps=slices["tuning_steps"], gain=slices["tuning_gain"])
    if strength < 1:
        yield text("detail", percent=round(100 * strength))


def _segmentation(facts: Mapping[str, Any], _: float) -> Iterator[Text]:
    yield text("not_segmented", refused=facts["refused"])


def errors_left(facts: Mapping[str, Any], _: float = 1.0) -> Iterator[Text]:
    """Say what error is left; facts: `results.measured.against` of the manifest."""
    tissue, *parts = facts["table"]
    before, after = level_of(tissue["before"]), level_of(tissue["after"], facts["units"])
    yield text("error_left", before=before, after=after, percent=round(100 * tissue["left"]))
    shares = ", ".join(f"{row['part']} {100 * row['left']:.0f} %" for row in parts)
    yield text("error_left_by_part", shares=shares)
    if any(row["part"] == "background" and row["left"] > 1 for row in parts):
        yield text("air_raised")


#: Step of an inverted scanner → what it changed.
_CHANGED_BY = {"curve": "contrast", "resolution": "sharpness", "field": "field"}
#: Part of `results.measured` → its lines.
_LINES = {
    "taken_as": _taken_as,
    "noise": _noise,
    "sequence": _sequence,
    "odd_frames": _odd_frames,
    "bias_field": _bias_field,
    "scanner": _scanner,
    "slices": slices_restored,
    "segmentation": _segmentation,
    "against": errors_left,
}
#: Lines that say what to do about uncertain noise.
REMEDIES = ("measure", "find_even_tissue", "state_noise")
#: Lines that histories leave out: what a user can do, and facts of a whole sequence.
_NO_HISTORY = (
    *REMEDIES,
    *("guessed", "mean_changed", "frames_apart", "frames_together", "odd_frames"),
    *("bias_corrected", "bias_requested", "bias_stays", "error_left", "error_left_by_part"),
)
