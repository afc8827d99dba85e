"""A judge's folder: made of a base and an adapter, proved to answer as they do, and checked before it is served."""
