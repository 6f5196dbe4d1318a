"""DICOM as hospitals send it; what is odd about a series is refused by name, never guessed."""
