"""A DICOM node: series come by C-STORE, are translated by rules, and go on by C-STORE."""
