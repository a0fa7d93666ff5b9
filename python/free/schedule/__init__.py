"""The sampler as a table: timesteps, and the coefficients of every transition."""

from free.schedule.clipping import Clipping
from free.schedule.schedule import Schedule
from free.schedule.table import Table

__all__ = ["Clipping", "Schedule", "Table"]
