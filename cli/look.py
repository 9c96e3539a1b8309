"""A model alone: what it is, what could be verified, and the commands to go on with. Claims nothing."""

from __future__ import annotations
