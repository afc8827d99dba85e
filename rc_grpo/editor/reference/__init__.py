"""Editors of others to compare with: any diffusers pipeline that edits an image by words, as its makers run it."""
