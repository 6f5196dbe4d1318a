"""Qt's classes behave as PythonQt's do."""

import functools
import gc
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer

SKETCH = Path(__file__).resolve().parent / "fixtures/Resources/UI/Sketch.ui"


def test_properties_are_values():
    button = qt.QPushButton("Apply")
    assert (button.text, button.enabled, button.checkable) == ("Apply", True, False)
    button.text, button.enabled = "Stop", False
    assert (button.text, button.isEnabled()) == ("Stop", False)
    with pytest.raises(TypeError):
        button.text()
    combo = qt.QComboBox()
    combo.addItems(["a", "b"])
    combo.currentIndex = 1
    assert (combo.count, combo.currentText) == (2, "b")
    for value in (["no"], "no", object()):
        with pytest.raises(AttributeError, match="does not accept"):
            button.enabled = value
    with pytest.raises(ValueError, match="no keyword"):
        qt.QPushButton(text="Apply")


def test_nothing_of_ours_is_hung_on_widgets():
    label = qt.QLabel()
    with pytest.raises(AttributeError, match="creating new attributes"):
        label.job = 1
    with pytest.raises(AttributeError, match="can not be overwritten"):
        label.setText = print
    with pytest.raises(AttributeError):
        _ = label.jobs

    class Own(qt.QLabel):
        pass

    own = Own()
    own.job = 1  # a class of Python's own may
    assert own.job == 1


def test_signals_are_connected_by_their_signature(refused):
    button, calls = qt.QPushButton(), []
    assert button.connect("clicked(bool)", calls.append)
    button.click()
    assert calls == [False]
    assert button.disconnect("clicked(bool)", calls.append)
    button.click()
    assert (calls, refused) == ([False], [])
    assert not button.connect("clicked(int)", print)
    assert not button.connect("clicked()", qt.QLabel(), "explode()")
    assert refused == ["QPushButton has no signal clicked(int)", "QLabel has no slot explode()"]


def test_enums_are_ints():
    assert qt.QProcess.NotRunning == 0
    assert qt.QMessageBox.Ok == 1024
    label = qt.QLabel()
    label.alignment = qt.Qt.AlignRight
    assert label.alignment & qt.Qt.AlignRight


def test_what_pythonqt_takes_for_something_else_is_written_down(refused):
    label, spin = qt.QLabel(), qt.QSpinBox()
    label.text = None
    assert label.text == "None"
    label.setText(None)
    spin.value = np.int64(3)
    spin.value = 2.5
    label.toolTip = Path("x")
    slicer.qMRMLNodeComboBox().nodeTypes = "vtk"  # three characters
    assert len(refused) == 6
    assert spin.value == 2
    assert label.toolTip == os.fspath(Path("x"))


def test_an_event_for_nothing_is_an_error_and_no_crash():
    for send in (qt.QApplication.sendEvent, qt.QCoreApplication.postEvent):
        with pytest.raises(ValueError, match="an event for None"):
            send(None, qt.QEvent(qt.QEvent.User))


def test_a_loop_without_a_modal_dialog_is_refused(refused):
    loop = qt.QEventLoop()
    qt.QTimer.singleShot(0, loop.quit)
    loop.exec_()
    assert refused == ["QEventLoop.exec_: a second click recurses, show a modal dialog"]
    refused.clear()


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
    def __init__(self, parent=None):
        self.timer = qt.QTimer(parent) if parent else qt.QTimer()
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
