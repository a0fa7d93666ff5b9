"""The colour model of the package: its images, and how it was trained."""
