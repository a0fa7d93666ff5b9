"""Sets of images to train on: in memory, or decoded from folders as they are needed."""
