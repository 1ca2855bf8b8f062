"""From received files to a dataset of the store: checked, pseudonymised, split by patient, every file accounted for."""
