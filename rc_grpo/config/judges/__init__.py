"""Judges as branches of the configuration: what all have in common, those without a server, those of other packages."""
