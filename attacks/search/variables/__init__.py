"""What a stage of a search varies: pixels, waves, a latent vector, inner feature maps, weights."""
