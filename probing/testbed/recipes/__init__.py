"""Recipes that train and measure the testbed's models: VAE, text encoders, MMDiT, judge, baseline reward model."""
