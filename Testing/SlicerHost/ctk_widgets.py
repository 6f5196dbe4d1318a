"""Behaviour of the CTK widgets that the panels use."""

from __future__ import annotations

import os
from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behaviour, stored


@behaviour
class ctkCollapsibleButton:
    """A header that shows and hides what lies below it."""

    _HEADER = 24
    flat = stored(False)
    collapsedHeight = stored(0)
    contentsLineWidth = stored(1)

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
        for child in self.children():
            if child.isWidgetType():
                child.setVisible(not collapsed)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def childEvent(self: Any, event: Any) -> None:
        """A child that comes later is hidden too, and lies below the header."""
        if self.layout():
            self.layout().setContentsMargins(9, self._HEADER + 6, 9, 6)
        if event.added() and event.child().isWidgetType() and self._own.collapsed:
            event.child().setVisible(False)

    def hitButton(self: Any, position: Any) -> bool:
        return position.y() <= self._HEADER

    def sizeHint(self: Any) -> Any:
        if self._own.collapsed or not self.layout():
            return qt.QSize(120, self._HEADER)
        self.layout().setContentsMargins(9, self._HEADER + 6, 9, 6)
        return self.layout().sizeHint()

    def minimumSizeHint(self: Any) -> Any:
        if self._own.collapsed or not self.layout():
            return qt.QSize(120, self._HEADER)
        self.layout().setContentsMargins(9, self._HEADER + 6, 9, 6)
        return self.layout().minimumSize()

    def paintEvent(self: Any, event: Any) -> None:
        painter, option = qt.QPainter(self), qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect = qt.QRect(0, 0, self.width, self._HEADER)
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        arrow = "▸" if self._own.collapsed else "▾"
        place = option.rect.adjusted(8, 0, -8, 0)
        role = self.palette.color(qt.QPalette.ButtonText)
        painter.setPen(role)
        painter.drawText(place, int(qt.Qt.AlignVCenter | qt.Qt.AlignLeft), f"{arrow} {self.text}")
        painter.end()


class _Number:
    """A property that a child widget holds."""

    def __new__(cls, child: str, name: str) -> Any:
        return property(
            lambda self: getattr(getattr(self._own, child), name),
            lambda self, value: setattr(getattr(self._own, child), name, value),
        )


@behaviour
class ctkDoubleSlider:
    """A QSlider whose steps are counted from real numbers."""

    tickInterval = stored(0.0)
    tracking = stored(True)
    handleToolTip = stored("")

    def construct(self: Any) -> None:
        self._own.slider = qt.QSlider(qt.Qt.Horizontal)
        self._own.range, self._own.step, self._own.page, self._own.value = (
            (0.0, 99.0),
            1.0,
            10.0,
            0.0,
        )
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._own.slider)
        self._own.slider.valueChanged.connect(self._moved)
        self._own.slider.sliderPressed.connect(self.sliderPressed)
        self._own.slider.sliderReleased.connect(self.sliderReleased)
        self._fit()

    def _fit(self: Any) -> None:
        low, high = self._own.range
        self._own.slider.blockSignals(True)
        self._own.slider.setRange(0, max(0, round((high - low) / self._own.step)))
        self._own.slider.setValue(round((self._own.value - low) / self._own.step))
        self._own.slider.blockSignals(False)

    def _moved(self: Any, position: int) -> None:
        self._own.value = min(self._own.range[1], self._own.range[0] + position * self._own.step)
        self.sliderMoved.emit(self._own.value)
        self.valueChanged.emit(self._own.value)

    @property
    def value(self: Any) -> float:
        return self._own.value

    @value.setter
    def value(self: Any, value: float) -> None:
        value = min(max(float(value), self._own.range[0]), self._own.range[1])
        if value != self._own.value:
            self._own.value = value
            self._fit()
            self.valueChanged.emit(value)

    @property
    def minimum(self: Any) -> float:
        return self._own.range[0]

    @minimum.setter
    def minimum(self: Any, value: float) -> None:
        self._set_range(value, max(value, self._own.range[1]))

    @property
    def maximum(self: Any) -> float:
        return self._own.range[1]

    @maximum.setter
    def maximum(self: Any, value: float) -> None:
        self._set_range(min(value, self._own.range[0]), value)

    def _set_range(self: Any, low: float, high: float) -> None:
        self._own.range = (float(low), float(high))
        self.rangeChanged.emit(float(low), float(high))
        self.value = self._own.value
        self._fit()

    @property
    def singleStep(self: Any) -> float:
        return self._own.step

    @singleStep.setter
    def singleStep(self: Any, value: float) -> None:
        self._own.step = float(value)
        self._fit()

    pageStep = stored(10.0)
    orientation = _Number("slider", "orientation")


@behaviour
class ctkSliderWidget:
    """A slider with a spin box for the same number."""

    tracking = stored(True)
    pageStep = stored(10.0)
    tickInterval = stored(0.0)
    decimals = _Number("box", "decimals")
    prefix = _Number("box", "prefix")
    suffix = _Number("box", "suffix")

    def construct(self: Any) -> None:
        from SlicerHost.standins import make

        self._own.slider, self._own.box = make("ctkDoubleSlider")(), qt.QDoubleSpinBox()
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._own.slider, 1)
        layout.addWidget(self._own.box)
        self._own.slider.valueChanged.connect(lambda value: setattr(self._own.box, "value", value))
        self._own.box.valueChanged.connect(self._changed)

    def _changed(self: Any, value: float) -> None:
        self._own.slider.blockSignals(True)
        self._own.slider.value = value
        self._own.slider.blockSignals(False)
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    value = _Number("box", "value")

    @property
    def minimum(self: Any) -> float:
        return self._own.box.minimum

    @minimum.setter
    def minimum(self: Any, value: float) -> None:
        self._own.slider.minimum = self._own.box.minimum = value

    @property
    def maximum(self: Any) -> float:
        return self._own.box.maximum

    @maximum.setter
    def maximum(self: Any, value: float) -> None:
        self._own.slider.maximum = self._own.box.maximum = value

    @property
    def singleStep(self: Any) -> float:
        return self._own.box.singleStep

    @singleStep.setter
    def singleStep(self: Any, value: float) -> None:
        self._own.slider.singleStep = self._own.box.singleStep = value

    @property
    def spinBoxVisible(self: Any) -> bool:
        return not self._own.box.isHidden()

    @spinBoxVisible.setter
    def spinBoxVisible(self: Any, value: bool) -> None:
        self._own.box.setVisible(value)


@behaviour
class ctkPathLineEdit:
    """A path, typed or browsed for."""

    filters = stored(0)
    options = stored(0)
    nameFilters = stored([])
    settingKey = stored("")
    label = stored("")
    sizeAdjustPolicy = stored(0)
    minimumContentsLength = stored(0)

    def construct(self: Any) -> None:
        self._own.edit, self._own.browse = qt.QLineEdit(), qt.QToolButton()
        self._own.browse.text = "..."
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._own.edit)
        layout.addWidget(self._own.browse)
        self._own.edit.textChanged.connect(self._changed)

    def _changed(self: Any, path: str) -> None:
        self.currentPathChanged.emit(path)
        self.validInputChanged.emit(os.path.exists(path))

    currentPath = _Number("edit", "text")

    @property
    def showBrowseButton(self: Any) -> bool:
        return not self._own.browse.isHidden()

    @showBrowseButton.setter
    def showBrowseButton(self: Any, value: bool) -> None:
        self._own.browse.setVisible(value)

    showHistoryButton = stored(True)

    def addCurrentPathToHistory(self: Any) -> None:
        history = self._own.stored.setdefault("history", [])
        if self.currentPath and self.currentPath not in history:
            history.append(self.currentPath)
