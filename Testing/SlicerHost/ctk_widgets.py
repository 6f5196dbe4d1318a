"""Behavior of the CTK widgets that the panels use."""

from SlicerHost import qt
from SlicerHost.standins import behavior, in_row, make

_HEADER = 24


@behavior()
class ctkCollapsibleButton:
    """A header that shows and hides what lies below it."""

    collapsed = property(
        lambda self: not self.checked, lambda self, value: self.setChecked(not value)
    )

    def construct(self):
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._fold)
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)

    def _fold(self, isOpen):
        self._show_children()
        self.updateGeometry()
        self.contentsCollapsed.emit(not isOpen)

    def _show_children(self):
        """Show or hide what lies below; nothing is hidden before the first show."""
        for child in self.children() if self.testAttribute(qt.Qt.WA_WState_Created) else ():
            if child.isWidgetType():
                child.setVisible(self.checked)

    def showEvent(self, event):
        if self.collapsed:
            self._show_children()

    childEvent = showEvent  # a child that comes later is hidden too

    def sizeHint(self):
        return self._size("sizeHint")

    def minimumSizeHint(self):
        return self._size("minimumSize")

    def _size(self, of_layout):
        if self.collapsed or not self.layout():
            return qt.QSize(120, _HEADER)
        self.layout().setContentsMargins(9, _HEADER + 6, 9, 6)
        return getattr(self.layout(), of_layout)()

    def paintEvent(self, event):
        painter, option = qt.QPainter(self), qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect = qt.QRect(0, 0, self.width, _HEADER)
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        painter.setPen(self.palette.color(qt.QPalette.ButtonText))
        painter.drawText(8, 16, f"{'▸' if self.collapsed else '▾'} {self.text}")
        painter.end()


def _of_box(name):
    """A property of the spin box, which may change what the slider's steps mean."""

    def write(self, value):
        setattr(self._own.box, name, value)
        self._fit()

    return property(lambda self: getattr(self._own.box, name), write)


def _named(name, base):
    return type(base)(name, (base,), {"stand_in": True})


ctkSlider = _named("ctkSlider", qt.QSlider)
ctkQDoubleSpinBox = _named("ctkQDoubleSpinBox", qt.QDoubleSpinBox)


@behavior(tracking=True, pageStep=10.0)
class ctkSliderWidget:
    """A slider and a spin box for one number; without tracking it reports a drag at its end."""

    prefix, suffix, decimals = _of_box("prefix"), _of_box("suffix"), _of_box("decimals")
    minimum, maximum, value = _of_box("minimum"), _of_box("maximum"), _of_box("value")
    singleStep = _of_box("singleStep")

    def construct(self):
        own = self._own
        own.slider, own.box, own.before = ctkSlider(qt.Qt.Horizontal), ctkQDoubleSpinBox(), None
        holders = make("ctkDoubleSlider")(), make("ctkDoubleSpinBox")()
        for holder, widget in zip(holders, (own.slider, own.box), strict=True):
            in_row(holder, widget)
        in_row(self, *holders)
        own.slider.sliderPressed.connect(self._press)
        own.slider.sliderReleased.connect(self._release)
        own.slider.valueChanged.connect(self._move)
        own.box.valueChanged.connect(self._change)
        self._fit()

    def _move(self, position):
        box = self._own.box
        box.value = box.minimum + position * box.singleStep

    def _change(self, value):
        self._fit()
        if not self.tracking:
            self.valueIsChanging.emit(value)
        if self._own.before is None:
            self.valueChanged.emit(value)

    def _press(self):
        self._own.before = None if self.tracking else self.value

    def _release(self):
        before, self._own.before = self._own.before, None
        if before not in (None, self.value):
            self.valueChanged.emit(self.value)

    def _fit(self):
        """The slider counts steps."""
        slider, box = self._own.slider, self._own.box
        slider.blockSignals(True)
        slider.setRange(0, round((box.maximum - box.minimum) / box.singleStep))
        slider.setValue(round((box.value - box.minimum) / box.singleStep))
        slider.blockSignals(False)


@behavior()
class ctkMessageBox:
    """A message box, in which slicer.util asks; "Don't show again" has no behavior."""

    def deleteLater(self):
        """Go after the answer, as where a main loop runs: slicer.util calls this before it asks."""
        self.finished.connect(lambda _result: qt.QMessageBox.deleteLater(self))
