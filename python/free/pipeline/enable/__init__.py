"""One line on any diffusers pipeline: its own code draws the samples, in fewer rounds."""

from free.pipeline.enable.figures import Summary
from free.pipeline.enable.switch import disable, enable, enabled, summary

__all__ = ["Summary", "disable", "enable", "enabled", "summary"]
