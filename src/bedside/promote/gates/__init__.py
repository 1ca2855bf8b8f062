"""The rules of promotion, one small class each."""
