"""What families of diffusers' pipelines are made of; a family of another kind needs none of it."""
