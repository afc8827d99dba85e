"""The image editor as a policy: protocol, FLUX.1 Kontext on diffusers, LoRA versions, the attention recorder."""
