"""DICOM: reading, and writing derived images."""
