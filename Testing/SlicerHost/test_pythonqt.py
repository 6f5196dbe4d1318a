"""Qt's classes and the stand-ins behave as PythonQt's do, or refuse."""

import functools
import gc
import weakref
from pathlib import Path

import ctk
import numpy as np
import pytest
import qt
import slicer

SKETCH = Path(__file__).resolve().parent / "fixtures/Sketch.ui"


def test_properties_are_values():
    button = qt.QPushButton("Apply")
    assert (button.text, button.enabled, button.checkable) == ("Apply", True, False)
    button.text, button.enabled = "Stop", False
    assert (button.text, button.isEnabled()) == ("Stop", False)
    combo = qt.QComboBox()
    combo.addItems(["a", "b"])
    combo.currentIndex = 1
    assert (combo.count, combo.currentText) == (2, "b")


def test_a_class_of_pythons_own_takes_attributes():
    class Own(qt.QLabel):
        pass

    own = Own()
    own.job = 1
    assert own.job == 1


def test_enums_are_ints():
    assert qt.QProcess.NotRunning == 0
    assert qt.QMessageBox.Ok == 1024
    label = qt.QLabel()
    label.alignment = qt.Qt.AlignRight
    assert label.alignment & qt.Qt.AlignRight


def test_signals_are_connected_by_their_signature(refused):
    button, calls = qt.QPushButton(), []
    assert button.connect("clicked(bool)", calls.append)
    button.click()
    assert calls == [False]
    assert button.disconnect("clicked(bool)", calls.append)
    button.click()
    assert (calls, refused) == ([False], [])


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: qt.QPushButton().text(), TypeError, "not callable"),
        (lambda: qt.QPushButton(text="Apply"), ValueError, "no keyword"),
        (lambda: setattr(qt.QPushButton(), "enabled", "no"), AttributeError, "does not accept"),
        (lambda: setattr(qt.QPushButton(), "enabled", ["no"]), AttributeError, "does not accept"),
        (lambda: setattr(qt.QLabel(), "job", 1), AttributeError, "creating new attributes"),
        (lambda: setattr(qt.QLabel(), "setText", print), AttributeError, "overwritten"),
        (lambda: qt.QLabel().jobs, AttributeError, "jobs"),
        (lambda: qt.QApplication.sendEvent(None, None), ValueError, "an event for None"),
        (lambda: qt.QCoreApplication.postEvent(None, None), ValueError, "an event for None"),
        (lambda: ctk.ctkNothing, AttributeError, "ctkNothing"),
        (lambda: slicer.qMRMLNothing, AttributeError, "qMRMLNothing"),
        (lambda: slicer.app.jobs, AttributeError, "jobs"),
        (lambda: slicer.app.restart(), NotImplementedError, "restart"),
        (lambda: ctk.ctkSliderWidget().setMaximum, AttributeError, "setMaximum"),
        (lambda: setattr(ctk.ctkSliderWidget(), "setRange", 1), AttributeError, "setRange"),
        (lambda: ctk.ctkSliderWidget(text="x"), ValueError, "no keyword"),
        (lambda: setattr(slicer.qMRMLSegmentEditorWidget(), "readOnly", True),
         NotImplementedError, "readOnly"),
        (lambda: slicer.qMRMLNodeComboBox().sortFilterProxyModel(), NotImplementedError, "sort"),
        (lambda: setattr(slicer.qSlicerDICOMExportable(), "series", "x"), AttributeError, "series"),
        (lambda: setattr(slicer.qSlicerDICOMExportable(), "confidence", "high"),
         AttributeError, "does not accept"),
    ],
)  # fmt: skip
def test_what_slicer_does_not_have_raises(refused, wrong, error, words):
    with pytest.raises(error, match=words):
        wrong()


def loop():
    events = qt.QEventLoop()
    qt.QTimer.singleShot(0, events.quit)
    events.exec_()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: setattr(qt.QLabel(), "text", None), "None becomes the text 'None'"),
        (lambda: qt.QLabel().setText(None), "None becomes the text 'None'"),
        (lambda: setattr(qt.QSpinBox(), "value", np.int64(3)), "only sometimes accepted"),
        (lambda: setattr(qt.QSpinBox(), "value", 2.5), "loses its fraction"),
        (lambda: setattr(qt.QLabel(), "toolTip", Path("x")), "only sometimes accepted"),
        (lambda: setattr(slicer.qMRMLNodeComboBox(), "nodeTypes", "vtk"), "its characters"),
        (lambda: setattr(slicer.qSlicerDICOMExportable(), "directory", SKETCH), "sometimes"),
        (lambda: slicer.qSlicerDICOMExportable().setTag("PatientID", None), "PatientID"),
        (lambda: qt.QPushButton().connect("clicked(int)", print), "no signal clicked(int)"),
        (lambda: qt.QPushButton().connect("clicked()", qt.QLabel(), "explode()"), "no slot"),
        (loop, "a second click recurses, show a modal dialog"),
    ],
)
def test_what_slicer_takes_for_something_else_is_written_down(refused, wrong, words):
    wrong()
    assert len(refused) == 1 and words in refused[0]


def test_a_widget_that_connections_hold_is_not_deleted_without_parent(refused):
    dialog = qt.QProgressDialog()
    slot = functools.partial(lambda shown: shown.hide(), dialog)
    for signal in (dialog.canceled, qt.QTimer(dialog).timeout):
        signal.connect(slot)
        dialog.deleteLater()
        assert refused.pop() and not refused
        signal.disconnect(slot)
    dialog.deleteLater()
    assert not refused


def test_classes_outlive_the_instances_that_forms_bring():
    form = slicer.util.loadUI(str(SKETCH))
    described = [each.metaObject() for each in form.findChildren(qt.QObject)]
    form.deleteLater()
    qt.QCoreApplication.sendPostedEvents(None, int(qt.QEvent.DeferredDelete))
    with pytest.raises(ValueError, match="destroyed qMRMLWidget"):
        form.show()
    assert all(each.className() for each in described)
    assert qt.QPushButton.staticMetaObject.className() == "QPushButton"


class Owner:
    def __init__(self, *parent):
        self.timer = qt.QTimer(*parent)
        self.timer.timeout.connect(self.tick)

    def tick(self):
        """Nothing to do."""


def test_a_connection_keeps_its_slot_as_long_as_its_sender_lives():
    widget = qt.QWidget()
    made = {"own": Owner(), "child": Owner(widget), "disconnected": Owner()}
    made["disconnected"].timer.timeout.disconnect(made["disconnected"].tick)
    alive = {name: weakref.ref(owner) for name, owner in made.items()}
    made.clear()
    gc.collect()
    assert {name for name, ref in alive.items() if ref()} == {"own", "child"}
    widget.deleteLater()
    slicer.app.processEvents()
    gc.collect()
    assert alive["child"]() is not None  # plain processEvents deletes nothing
    qt.QCoreApplication.sendPostedEvents(None, int(qt.QEvent.DeferredDelete))
    gc.collect()
    assert alive["child"]() is None
    assert alive["own"]() is not None  # for good: its timer has no parent that takes it along
