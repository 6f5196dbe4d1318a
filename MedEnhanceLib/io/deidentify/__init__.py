"""Take out of DICOM who it is, after PS3.15's Basic Profile, with pseudonyms for a cohort."""

from __future__ import annotations

from MedEnhanceLib.io.deidentify.clean import Deidentifier
from MedEnhanceLib.io.deidentify.dicom_folder import Report, deidentify
from MedEnhanceLib.io.deidentify.patients import Patients
from MedEnhanceLib.io.deidentify.rules import Change

__all__ = ["Change", "Deidentifier", "Patients", "Report", "deidentify"]
