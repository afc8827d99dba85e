"""Marks read from the chances of one token each: no text is written, four short questions about an edit."""
