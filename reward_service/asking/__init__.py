"""A server asked by the OpenAI chat protocol: bounded, with deadlines, again only after what passes."""
