"""Answers of a trained model: the best items, similar rows, explanations."""
