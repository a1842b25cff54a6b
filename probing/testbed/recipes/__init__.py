"""How the testbed's weights came to be: one recipe each for the VAE, the text encoders and the MMDiT."""
