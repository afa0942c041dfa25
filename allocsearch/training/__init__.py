"""Data, fine-tuning and scoring of one allocation."""
