"""What people see: names of classes, pixels from latents, pictures, archives, digits."""
