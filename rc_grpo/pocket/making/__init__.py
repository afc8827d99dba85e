"""How the pocket editors are trained: an autoencoder, then flow matching, by wall-clock and in sittings."""
