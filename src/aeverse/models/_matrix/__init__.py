"""What the autoencoder of one matrix needs: settings, data, networks, training, the fitted model."""
