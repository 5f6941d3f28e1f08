"""What both estimators share, and nothing of either: features, batches, references, graph targets, attributions."""
