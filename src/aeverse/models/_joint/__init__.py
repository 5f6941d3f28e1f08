"""The parts of `MultimodalAutoencoder`."""
