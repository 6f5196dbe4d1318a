"""Behavior of the CTK widgets that the panels use."""

from __future__ import annotations

from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behavior, in_row, make, stored


@behavior()
class ctkCollapsibleButton:
    """A header that shows and hides what lies below it."""

    _HEADER = 24

    def construct(self: Any) -> None:
        self._own.collapsed = False
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda checked: self._collapse(not checked))
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)

    @property
    def collapsed(self: Any) -> bool:
        return self._own.collapsed

    @collapsed.setter
    def collapsed(self: Any, value: bool) -> None:
        self._collapse(bool(value))

    def _collapse(self: Any, collapsed: bool) -> None:
        if collapsed == self._own.collapsed:
            return
        self._own.collapsed = collapsed
        self.setChecked(not collapsed)
        self._show_children()
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def _show_children(self: Any) -> None:
        """Show or hide what lies below; nothing is hidden before the first show."""
        for child in self.children() if self.testAttribute(qt.Qt.WA_WState_Created) else ():
            if child.isWidgetType():
                child.setVisible(not self._own.collapsed)

    def showEvent(self: Any, event: Any) -> None:
        if self._own.collapsed:
            self._show_children()

    def childEvent(self: Any, event: Any) -> None:
        """A child that comes later is hidden too, and lies below the header."""
        if self.layout():
            self.layout().setContentsMargins(9, self._HEADER + 6, 9, 6)
        if event.added() and self._own.collapsed:
            self._show_children()

    def sizeHint(self: Any) -> Any:
        return self._size("sizeHint")

    def minimumSizeHint(self: Any) -> Any:
        return self._size("minimumSize")

    def _size(self: Any, of_layout: str) -> Any:
        if self._own.collapsed or not self.layout():
            return qt.QSize(120, self._HEADER)
        self.layout().setContentsMargins(9, self._HEADER + 6, 9, 6)
        return getattr(self.layout(), of_layout)()

    def paintEvent(self: Any, event: Any) -> None:
        painter, option = qt.QPainter(self), qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect = qt.QRect(0, 0, self.width, self._HEADER)
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        arrow = "▸" if self._own.collapsed else "▾"
        place = option.rect.adjusted(8, 0, -8, 0)
        painter.setPen(self.palette.color(qt.QPalette.ButtonText))
        painter.drawText(place, int(qt.Qt.AlignVCenter | qt.Qt.AlignLeft), f"{arrow} {self.text}")
        painter.end()


def _of(child: str, name: str) -> property:
    """A property that a child widget holds."""
    return property(
        lambda self: getattr(getattr(self._own, child), name),
        lambda self, value: setattr(getattr(self._own, child), name, value),
    )


def _of_box(name: str) -> property:
    """A property of the spin box that changes what the slider's steps mean."""

    def write(self: Any, value: float) -> None:
        setattr(self._own.box, name, value)
        self._fit()

    return property(lambda self: getattr(self._own.box, name), write)


ctkSlider = type(qt.QSlider)("ctkSlider", (qt.QSlider,), {"stand_in": True})
ctkQDoubleSpinBox = type(qt.QDoubleSpinBox)(
    "ctkQDoubleSpinBox", (qt.QDoubleSpinBox,), {"stand_in": True}
)


@behavior()
class ctkSliderWidget:
    """A slider and a spin box for one number; without tracking it reports a drag at its end."""

    tracking = stored(True)
    pageStep = stored(10.0)
    prefix, suffix = _of("box", "prefix"), _of("box", "suffix")
    decimals, value = _of("box", "decimals"), _of("box", "value")
    minimum, maximum = _of_box("minimum"), _of_box("maximum")
    singleStep = _of_box("singleStep")

    def construct(self: Any) -> None:
        self._own.slider, self._own.box = ctkSlider(qt.Qt.Horizontal), ctkQDoubleSpinBox()
        holders = make("ctkDoubleSlider")(), make("ctkDoubleSpinBox")()
        for holder, widget in zip(holders, (self._own.slider, self._own.box), strict=True):
            in_row(holder, widget)
        in_row(self, *holders)
        self._own.isHeld, self._own.before = False, 0.0
        self._own.slider.sliderPressed.connect(self._held)
        self._own.slider.sliderReleased.connect(self._released)
        self._own.slider.valueChanged.connect(self._moved)
        self._own.box.valueChanged.connect(self._changed)
        self._fit()

    def _moved(self: Any, position: int) -> None:
        box = self._own.box
        box.value = box.minimum + position * box.singleStep

    def _changed(self: Any, value: float) -> None:
        self._fit()
        if not self.tracking:
            self.valueIsChanging.emit(value)
        if self.tracking or not self._own.isHeld:
            self.valueChanged.emit(value)

    def _held(self: Any) -> None:
        self._own.isHeld, self._own.before = not self.tracking, self.value

    def _released(self: Any) -> None:
        was_held, self._own.isHeld = self._own.isHeld, False
        if was_held and self.value != self._own.before:
            self.valueChanged.emit(self.value)

    def _fit(self: Any) -> None:
        """The slider counts steps."""
        slider, box = self._own.slider, self._own.box
        slider.blockSignals(True)
        slider.setRange(0, round((box.maximum - box.minimum) / box.singleStep))
        slider.setValue(round((box.value - box.minimum) / box.singleStep))
        slider.blockSignals(False)


@behavior()
class ctkMessageBox:
    """A message box, in which slicer.util asks; "Don't show again" has no behavior."""

    def deleteLater(self: Any) -> None:
        """Go after the answer, as where a main loop runs: slicer.util calls this before it asks."""
        self.finished.connect(lambda _result: qt.QMessageBox.deleteLater(self))
