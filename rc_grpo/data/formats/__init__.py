"""Files that tasks come in: a reader each, which hands on records and judges none."""
