"""The smallest honest host: a scripted module runs over real MRML and real Qt, without Slicer.

Real: MRML, its logics, storage and events, and ``slicer.util`` (package slicer-core), VTK, Qt
(package PySide6). Stand-ins: the widgets and application objects that Slicer adds to Qt. They offer
what api.json lists and nothing else. ``SlicerHost.boot.start()`` puts all of it into place.
"""
