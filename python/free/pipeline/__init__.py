"""The interface of diffusers: ``FreePipeline``."""

from free.pipeline.pipeline import FreePipeline

__all__ = ["FreePipeline"]
