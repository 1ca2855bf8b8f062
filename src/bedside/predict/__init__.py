"""Predict: a model and a received series to masks, surfaces, a DICOM segmentation and a report."""
