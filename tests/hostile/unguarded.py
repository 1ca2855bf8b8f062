"""Imported in a worker, it takes the door's last look at JPEG streams away: what it would refuse ends the process in GDCM."""

from bedside.formats import dicom_codestream

dicom_codestream._leads_to_scan = bool
