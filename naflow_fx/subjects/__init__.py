"""Subjects: networks with all that is needed to explain photos with them, named in one way.

A `Recipe` says what a user said, an opener (`open_network`) makes a `Network` of it, a `Subject`
is a network with its preprocessing and class names, from a photo to a flow.
"""

from naflow_fx.subjects.api import Subject
from naflow_fx.subjects.exported import ArtefactSubject, ExportedNetwork
from naflow_fx.subjects.naming import opened, subject
from naflow_fx.subjects.recipe import Recipe

__all__ = ["ArtefactSubject", "ExportedNetwork", "Recipe", "Subject", "opened", "subject"]
