"""A line in the slice views that the user drags: left of it the input, right of it the result.

The views show the result over the input, as for a fade. On top of that comes what the view shows
without the result, cut off at the line. Nothing of it is in the scene: a drag moves the cut, so
that no slice is computed again, and what is drawn goes with the comparison.
"""

import slicer
import vtk
from slicer.i18n import tr as _

#: Of the renderer's width, on both sides of the line: where the mouse takes hold of it.
_GRAB_PIXELS = 8
#: Before those of Slicer, which turn and move the slice.
_PRIORITY = 10.0
_COLOR = (1.0, 0.8, 0.2)
_LINE, _HELD_LINE = 2.0, 4.0
#: Layers of a slice view whose pictures lie over the input: Slicer's label map.
_LABEL_LAYER = 2


def problem():
    """Why there can be no line, in a sentence; empty where there can."""
    if slicer.app.layoutManager() is not None:
        return ""
    return _("There are no slice views to draw in: Slicer runs without its window.")


class Wipe:
    """The line at the same place in several views.

    onMoved(position): called while the user drags it. position: 0 is left, 1 is right.
    """

    def __init__(self, onMoved):
        self.position = 0.5
        self._onMoved = onMoved
        self._curtains = []

    def show(self, nodes):
        """Draw the line in the views of these slice nodes, those with several slices left out."""
        self.hide()
        manager = slicer.app.layoutManager()
        for node in nodes if manager is not None else ():
            widget = manager.sliceWidget(node.GetLayoutName())
            if widget is not None and node.GetLayoutGridRows() * node.GetLayoutGridColumns() == 1:
                self._curtains.append(_Curtain(widget, self.position, self._onDragged))

    def setPosition(self, position):
        """Move the line in all views."""
        self.position = min(1.0, max(0.0, float(position)))
        for curtain in self._curtains:
            curtain.setPosition(self.position)

    def hide(self):
        """Take all of it out of the views."""
        for curtain in self._curtains:
            curtain.remove()
        self._curtains = []

    def _onDragged(self, position):
        self.setPosition(position)
        self._onMoved(self.position)


class _Curtain:
    """What is drawn in one slice view, and the mouse there."""

    def __init__(self, widget, position, onDragged):
        self._view, self._logic, self._onDragged = (
            widget.sliceView(),
            widget.sliceLogic(),
            onDragged,
        )
        self._renderer = self._view.renderWindow().GetRenderers().GetItemAsObject(0)
        self._position, self._isHeld = position, False
        self._picture = _Picture()
        self._line, self._handle = _line(), _handle()
        self._names = [_name(_("Input"), True), _name(_("Enhanced"), False)]
        self._props = [self._picture.actor, self._line, self._handle, *self._names]
        for prop in self._props:
            self._renderer.AddViewProp(prop)
        _drawAfterSlice(self._renderer.GetViewProps(), self._picture.actor)
        interactor = self._view.interactor()
        self._observed = [(self._logic, self._logic.AddObserver("ModifiedEvent", self._update))]
        self._tags = {}
        for event, slot in (
            ("LeftButtonPressEvent", self._onPress),
            ("MouseMoveEvent", self._onMove),
            ("LeftButtonReleaseEvent", self._onRelease),
        ):
            self._tags[event] = interactor.AddObserver(event, slot, _PRIORITY)
            self._observed.append((interactor, self._tags[event]))
        self._update()

    def setPosition(self, position):
        self._position = position
        self._update()

    def remove(self):
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        for prop in self._props:
            self._renderer.RemoveViewProp(prop)
        self._observed = self._props = ()
        self._view.scheduleRender()

    def _update(self, *_arguments):
        """Follow the line, the view's size and its layers."""
        self._picture.show(self._logic, self._position)
        self._line.SetPosition(self._position, 0.0)
        self._handle.SetPosition(self._position, 0.5)
        for name in self._names:
            name.SetPosition(self._position, 0.03)
        self._view.scheduleRender()

    def _isNear(self, interactor):
        x, _y = interactor.GetEventPosition()
        return abs(x - self._position * self._renderer.GetSize()[0]) <= _GRAB_PIXELS

    def _onPress(self, interactor, event):
        if self._isNear(interactor):
            self._isHeld = True
            self._keep(interactor, event)

    def _onMove(self, interactor, event):
        width = _HELD_LINE if self._isHeld or self._isNear(interactor) else _LINE
        if self._line.GetProperty().GetLineWidth() != width:
            self._line.GetProperty().SetLineWidth(width)
            self._view.scheduleRender()
        if self._isHeld:
            x, _y = interactor.GetEventPosition()
            self._onDragged(x / max(1, self._renderer.GetSize()[0]))
            self._keep(interactor, event)

    def _onRelease(self, interactor, event):
        if self._isHeld:
            self._isHeld = False
            self._keep(interactor, event)

    def _keep(self, interactor, event):
        """The event is ours: what Slicer does with the mouse in a view must not begin."""
        interactor.GetCommand(self._tags[event]).SetAbortFlag(1)


class _Picture:
    """What a view shows without the result, left of the line."""

    def __init__(self):
        self._connections = []
        self._blend = vtk.vtkImageBlend()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetInputConnection(self._blend.GetOutputPort())
        self._mapper.SetColorWindow(255.0)
        self._mapper.SetColorLevel(127.5)
        self._mapper.UseCustomExtentsOn()
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self._mapper)
        # As the slice itself: before segmentations, rulers and texts.
        self.actor.GetProperty().SetDisplayLocationToBackground()

    def show(self, logic, position):
        layers = [(logic.GetNthLayerImageDataConnection(0), 1.0)]
        labels = logic.GetNthLayerImageDataConnection(_LABEL_LAYER)
        if labels is not None:
            layers.append((labels, logic.GetSliceCompositeNode().GetLabelOpacity()))
        if layers != self._connections:
            self._connections = layers
            self._blend.RemoveAllInputs()
            for index, (connection, opacity) in enumerate(layers):
                if connection is not None:
                    self._blend.AddInputConnection(connection)
                    self._blend.SetOpacity(index, opacity)
        columns, rows, _slices = logic.GetSliceNode().GetDimensions()
        cut = round(position * columns)
        self._mapper.SetCustomDisplayExtents((0, max(0, cut - 1), 0, rows - 1))
        self.actor.SetVisibility(cut > 0 and layers[0][0] is not None)


def _drawAfterSlice(props, actor):
    """Move an actor to its place in the order of drawing: right after the view's own image.

    Filled segments are nearer, so that where they are drawn before it, nothing of it is seen, not
    even where they are transparent.
    """
    for index in range(props.GetNumberOfItems()):
        each = props.GetItemAsObject(index)
        mapper = each.GetMapper() if each.IsA("vtkActor2D") and each is not actor else None
        if mapper is not None and mapper.IsA("vtkImageMapper"):
            props.RemoveItem(actor)
            props.InsertItem(index, actor)
            return


def _line():
    """A vertical line over the view's height, at the actor's position."""
    source, toView = vtk.vtkLineSource(), vtk.vtkCoordinate()
    source.SetPoint1(0.0, 0.0, 0.0)
    source.SetPoint2(0.0, 1.0, 0.0)
    toView.SetCoordinateSystemToNormalizedViewport()
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputConnection(source.GetOutputPort())
    mapper.SetTransformCoordinate(toView)
    actor = _actor(mapper)
    actor.GetProperty().SetLineWidth(_LINE)
    return actor


def _handle():
    """A disk in the middle of the line, to show that it can be dragged."""
    source = vtk.vtkRegularPolygonSource()
    source.SetNumberOfSides(24)
    source.SetRadius(_GRAB_PIXELS)
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputConnection(source.GetOutputPort())
    return _actor(mapper)


def _actor(mapper):
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*_COLOR)
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    return actor


def _name(text, isLeft):
    """What a side of the line shows."""
    actor = vtk.vtkTextActor()
    actor.SetInput(f"{text}  " if isLeft else f"  {text}")
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    style = actor.GetTextProperty()
    style.SetFontSize(14)
    style.SetColor(*_COLOR)
    style.ShadowOn()
    if isLeft:
        style.SetJustificationToRight()
    else:
        style.SetJustificationToLeft()
    return actor
