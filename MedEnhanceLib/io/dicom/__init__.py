"""Reading of DICOM as hospitals send it; ambiguous series are refused with the reason."""
