"""The image editor as a policy: what a family brings, LoRA versions that prove themselves, recorded attention."""
