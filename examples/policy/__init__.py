"""A diffusion policy that lands a spacecraft, and what FREE makes of its control loop."""
