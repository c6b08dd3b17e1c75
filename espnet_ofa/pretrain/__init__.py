"""Self-supervised pre-training: masks, targets, segments and the model."""
